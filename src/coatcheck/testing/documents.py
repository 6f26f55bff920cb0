"""DocumentsContract: the promises of `coatcheck.documents`, as tests that any place for documents can run.

    @pytest.mark.anyio
    class TestMyDocuments(DocumentsContract):
        @pytest.fixture
        async def documents(self):
            documents = MyDocuments(...)
            await documents.open()
            yield documents
            await documents.close()

Every test is handed a place that is open and empty, and runs on asyncio. pytest and anyio's plugin for it are needed
only by who runs them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from coatcheck.documents import MAX_KEY, MAX_KEYS, MAX_PAGE, MAX_TIME, MAX_VALUE, Documents, Values
from coatcheck.errors import InvalidValue, StoreUnavailable
from coatcheck.testing.clock import START

RIVALS = 30

UNUSUAL_KEYS = (
    "a",
    "A",
    "a ",
    " a",
    "a/b",
    "a/../b",
    "a*",
    "a?",
    "[a]",
    "{a}",
    "{server}",
    "a%",
    "a_",
    "a:b",
    "a\nb",
    "\x01",
    "\x7f",
    "'; DROP TABLE coatcheck_document; --",
    "Zoë",
    "Zoe\u0308",  # looks the same as "Zoë" in another normal form, and is another key
    "用户",
    "👩‍👩‍👧",
    "\uffff",
    "\U0010ffff",
    "x" * MAX_KEY,
    "x" * (MAX_KEY - 1),
    "é" * (MAX_KEY // 2),
)

HOSTILE_KEYS = ("", "\0", "a\0b", "\ud800", "x" * (MAX_KEY + 1), "é" * (MAX_KEY // 2 + 1))

WRONG_EXPECTATIONS: tuple[Values, ...] = (
    {"there": None},
    {"there": b"other"},
    {"there": b""},
    {"there": b"valu"},
    {"there": b"value\0"},
    {"absent": b"value"},
    {"absent": b""},
    {"there": b"value", "absent": b"value"},
    {"absent": None, "there": None},
)


class DocumentsContract:
    """A place for documents keeps these promises, or it is not one.

    Subclasses give the fixture `documents`, and may give `damage`.
    """

    async def damage(self, documents: Documents, key: str) -> None:
        """Change some octets of a stored document behind its back; without it, that test is skipped."""
        raise NotImplementedError

    # -- one at a time -------------------------------------------------------------------------------------------

    async def test_what_is_stored_comes_back_in_the_order_of_the_keys(self, documents: Documents) -> None:
        """`get` returns what is stored under each key, None where nothing is, and a key may be named twice."""
        assert await documents.get("one", "two") == [None, None]
        assert await documents.commit({}, {"one": b"1", "two": b"2"})
        assert await documents.get("two", "absent", "one", "two") == [b"2", None, b"1", b"2"]
        assert await documents.get() == []

    async def test_octets_of_every_kind_are_kept(self, documents: Documents) -> None:
        """A value is any octets, none at all among them, up to 64 KiB; sixteen of them go into one call."""
        values: Values = {
            "none": b"",
            "zero": b"\0",
            "all": bytes(range(256)),
            **{f"large{n}": (bytes(range(256)) * 256)[:MAX_VALUE] for n in range(MAX_KEYS - 3)},
        }
        assert await documents.commit(dict.fromkeys(values), values)
        assert await documents.get(*values) == list(values.values())
        assert await documents.commit(values, dict.fromkeys(values))
        assert await documents.get(*values) == [None] * MAX_KEYS

    async def test_commit_and_note_compare_and_swap(self, documents: Documents) -> None:
        """`writes` are stored if all of `expected` is what is stored; else nothing is stored, and False returned."""
        for write in (documents.commit, documents.note):
            assert await write({}, {"there": b"value", "absent": None})
            for expected in WRONG_EXPECTATIONS:
                assert not await write(expected, {"there": b"changed", "absent": b"made", "third": b"made"})
                assert await documents.get("there", "absent", "third") == [b"value", None, None]
            assert await write({"there": b"value", "absent": None}, {"there": b"changed", "absent": b"made"})
            assert await documents.get("there", "absent") == [b"changed", b"made"]

    async def test_what_is_not_expected_is_not_compared(self, documents: Documents) -> None:
        """A key that is only written may hold anything; one that is only expected is left as it is."""
        assert await documents.commit({"read": None}, {"written": b"1"})
        assert await documents.commit({"read": None}, {"written": b"2"})
        assert await documents.get("read", "written") == [None, b"2"]
        assert await documents.commit({"written": b"2"}, {})
        assert not await documents.commit({"written": b"1"}, {})
        assert await documents.commit({}, {})
        assert await documents.get("read", "written") == [None, b"2"]

    async def test_several_documents_change_together(self, documents: Documents) -> None:
        """One call may make, change and remove; removing what is not there is no failure."""
        assert await documents.commit({}, {"old": b"1", "kept": b"1"})
        assert await documents.commit({"old": b"1"}, {"old": None, "kept": b"2", "new": b"3", "absent": None})
        assert await documents.get("old", "kept", "new", "absent") == [None, b"2", b"3", None]

    async def test_unusual_keys_are_told_apart(self, documents: Documents) -> None:
        """A key is compared octet by octet; nothing in it means anything."""
        for number, key in enumerate(UNUSUAL_KEYS):
            assert await documents.note({key: None}, {key: str(number).encode()})
        for number, key in enumerate(UNUSUAL_KEYS):
            assert await documents.get(key) == [str(number).encode()]
            assert (key, str(number).encode()) in await documents.page(key)
        assert [key for key, _ in await documents.page("")] == sorted(UNUSUAL_KEYS, key=str.encode)

    # -- pages ---------------------------------------------------------------------------------------------------

    async def test_pages_follow_each_other_in_the_order_of_the_octets(self, documents: Documents) -> None:
        """Every page but the last is full; together they are all that begins with the prefix, each once."""
        keys = [f"{first}{second}" for first in ("a/", "a", "b", "a0", "é") for second in ("", "1", "10", "2", "ü")]
        for key in keys:
            assert await documents.note({}, {key: key.encode()})
        for prefix, limit in itertools.product(("", "a", "a/", "a/1", "b", "é", "nothing"), (1, 2, 3, 7, MAX_PAGE)):
            wanted = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
            found: list[str] = []
            while page := await documents.page(prefix, found[-1] if found else "", limit):
                assert len(page) == min(limit, len(wanted) - len(found))
                assert all(value == key.encode() for key, value in page)
                found += [key for key, _ in page]
            assert found == wanted
        assert [key for key, _ in await documents.page("a/", "a")] == ["a/", "a/1", "a/10", "a/2", "a/ü"]
        assert await documents.page("a", "b") == []

    async def test_a_page_has_only_what_is_stored_for_good(self, documents: Documents) -> None:
        """Documents that expire, and those that were removed, are on no page; those that no longer expire are."""
        assert await documents.commit({}, {"stays": b"1", "leaves": b"1", "goes": b"1"})
        assert await documents.note({}, {"passing": b"1", "leaves": b"2"}, expires_at=START)
        assert await documents.commit({}, {"goes": None})
        assert await documents.page("") == [("stays", b"1")]
        assert await documents.get("passing", "leaves", "goes") == [b"1", b"2", None]
        assert await documents.commit({}, {"passing": b"3"})
        assert await documents.page("") == [("passing", b"3"), ("stays", b"1")]

    # -- expiry --------------------------------------------------------------------------------------------------

    async def test_what_has_expired_is_gone_after_a_sweep(self, documents: Documents) -> None:
        """`sweep` removes what has expired, unless a server has already; what has not, and what never does, stays."""
        calls = [[f"passing/{call}/{n}" for n in range(MAX_KEYS)] for call in range(33)]
        for number, keys in enumerate(calls):
            assert await documents.note({}, dict.fromkeys(keys, b"1"), expires_at=1000 + number)
        assert await documents.commit({}, {"later": b"2"}, expires_at=START + 1)
        assert await documents.commit({}, {"last": b"3"}, expires_at=MAX_TIME)
        assert await documents.commit({}, {"stays": b"4"})
        assert await documents.sweep(START) in (0, 33 * MAX_KEYS)
        for keys in calls:
            assert await documents.get(*keys) == [None] * MAX_KEYS
        assert await documents.get("later", "last", "stays") == [b"2", b"3", b"4"]
        assert await documents.sweep(START) == 0

    async def test_the_last_call_says_when_a_document_expires(self, documents: Documents) -> None:
        """A later write takes another time, or none; a call that stores nothing changes no time."""
        assert await documents.commit({}, {"longer": b"1", "forever": b"1", "same": b"1"}, expires_at=START)
        assert await documents.commit({}, {"longer": b"2"}, expires_at=START + 1)
        assert await documents.commit({}, {"forever": b"2"})
        assert not await documents.commit({"same": b"2"}, {"same": b"2"}, expires_at=1)
        await documents.sweep(START - 1)
        assert await documents.get("longer", "forever", "same") == [b"2", b"2", b"1"]
        await documents.sweep(START)
        assert await documents.get("longer", "forever") == [b"2", b"2"]

    # -- many at once --------------------------------------------------------------------------------------------

    async def test_one_of_many_rivals_wins(self, documents: Documents) -> None:
        """Of concurrent commits that expect the same, exactly one returns True, and what it wrote is stored (P5)."""
        for expected in (None, b"old"):
            assert await documents.commit({}, {"prize": expected})
            rivals = [self._take(documents, expected, number) for number in range(RIVALS)]
            won = await asyncio.gather(*rivals)
            assert won.count(True) == 1
            assert await documents.get("prize") == [str(won.index(True)).encode()]

    async def test_what_is_only_expected_is_guarded_as_well(self, documents: Documents) -> None:
        """Of two commits that each write what the other expects not to be there, one wins: not both, and not none."""

        async def pair(number: int) -> tuple[bool, bool]:
            left, right = f"left/{number}", f"right/{number}"
            return await asyncio.gather(
                documents.commit({left: None}, {right: b"1"}), documents.commit({right: None}, {left: b"1"})
            )

        won = await asyncio.gather(*(pair(number) for number in range(RIVALS)))
        assert [both.count(True) for both in won] == [1] * RIVALS

    async def test_no_concurrent_change_is_lost(self, documents: Documents) -> None:
        """A number that many raise, each with `get` and `commit` until it wins, is exact (P3)."""
        assert await documents.commit({}, {"number": b"0"})
        await asyncio.gather(
            *(self._raise(documents.note if n % 2 else documents.commit, documents) for n in range(RIVALS))
        )
        assert await documents.get("number") == [str(RIVALS).encode()]

    async def test_what_is_got_together_is_as_of_one_moment(self, documents: Documents) -> None:
        """Two documents that always change together are never seen apart."""
        assert await documents.commit({}, {"left": b"start", "right": b"start"})

        async def read() -> None:
            left, right = await documents.get("left", "right")
            assert left == right

        async def write(number: int) -> None:
            value = str(number).encode()
            assert await documents.note({}, {"right": value, "left": value})

        await asyncio.gather(*(read() if number % 2 else write(number) for number in range(2 * RIVALS)))

    async def test_commits_of_the_same_documents_in_any_order_all_come_to_an_end(self, documents: Documents) -> None:
        """Whatever order calls name their keys in, none waits for another that waits for it."""
        orders = list(itertools.permutations(("a", "b", "c", "d")))
        commits = [documents.note({}, dict.fromkeys(keys, str(keys).encode())) for keys in orders]
        assert all(await asyncio.gather(*commits))
        a, b, c, d = await documents.get("a", "b", "c", "d")
        assert a is not None
        assert a == b == c == d

    # -- what may come -------------------------------------------------------------------------------------------

    async def test_limits_are_named_and_nothing_is_stored(self, documents: Documents) -> None:
        """What is over a limit is InvalidValue, before anything is asked or stored (P9)."""
        many = {f"key{number}": b"" for number in range(MAX_KEYS + 1)}
        calls: list[Callable[[], Awaitable[object]]] = [lambda: documents.get(*many)]
        for key in HOSTILE_KEYS:
            calls += [
                lambda key=key: documents.get("key0", key),  # type: ignore[misc]
                lambda key=key: documents.commit({key: None}, {"key0": b""}),  # type: ignore[misc]
                lambda key=key: documents.note({}, {"key0": b"", key: b""}),  # type: ignore[misc]
            ]
        for write in (documents.commit, documents.note):
            calls += [
                lambda write=write: write({}, many),  # type: ignore[misc]
                lambda write=write: write({"key99": None}, dict(list(many.items())[1:])),  # type: ignore[misc]
                lambda write=write: write({}, {"key0": b"", "key1": b"x" * (MAX_VALUE + 1)}),  # type: ignore[misc]
                lambda write=write: write({"key1": b"x" * (MAX_VALUE + 1)}, {"key0": b""}),  # type: ignore[misc]
                lambda write=write: write({}, {"key0": b""}, expires_at=0),  # type: ignore[misc]
                lambda write=write: write({}, {"key0": b""}, expires_at=-START),  # type: ignore[misc]
                lambda write=write: write({}, {"key0": b""}, expires_at=MAX_TIME + 1),  # type: ignore[misc]
            ]
        for limit in (0, -1, MAX_PAGE + 1):
            calls.append(lambda limit=limit: documents.page("", "", limit))  # type: ignore[misc]
        for key in ("\ud800", "x" * (MAX_KEY + 1)):
            calls += [
                lambda key=key: documents.page(key),  # type: ignore[misc]
                lambda key=key: documents.page("", key),  # type: ignore[misc]
            ]
        for call in calls:
            await _refused(call)
        assert await documents.page("") == []

    async def test_a_damaged_document_is_never_returned_and_not_in_the_way(self, documents: Documents) -> None:
        """It raises StoreUnavailable, is never what was expected, and can be written over or removed (P4)."""
        assert await documents.commit({}, {"damaged": b"some value", "sound": b"other"})
        try:
            await self.damage(documents, "damaged")
        except NotImplementedError:
            import pytest

            pytest.skip("this place does not say how a document is damaged")
        for call in (lambda: documents.get("sound", "damaged"), lambda: documents.page("")):
            try:
                await call()
            except StoreUnavailable:
                continue
            raise AssertionError("a damaged document was returned, or hidden")
        assert await documents.get("sound") == [b"other"]
        assert not await documents.commit({"damaged": b"some value"}, {"sound": b"changed"})
        assert not await documents.commit({"damaged": None}, {"sound": b"changed"})
        assert await documents.commit({"sound": b"other"}, {"damaged": b"whole"})
        assert await documents.page("") == [("damaged", b"whole"), ("sound", b"other")]

    async def test_open_and_close_may_be_called_again(self, documents: Documents) -> None:
        """A second `open` or `close` does nothing; what was stored is there after both."""
        assert await documents.commit({}, {"key": b"value"})
        await documents.open()
        await documents.close()
        await documents.close()
        await documents.open()
        assert await documents.get("key") == [b"value"]

    # -- inside --------------------------------------------------------------------------------------------------

    async def _take(self, documents: Documents, expected: bytes | None, number: int) -> bool:
        write = documents.note if number % 3 == 0 else documents.commit
        return await write({"prize": expected}, {"prize": str(number).encode()})

    async def _raise(self, write: Callable[[Values, Values], Awaitable[bool]], documents: Documents) -> None:
        while True:
            [number] = await documents.get("number")
            assert number is not None
            if await write({"number": number}, {"number": str(int(number) + 1).encode()}):
                return


async def _refused(call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except InvalidValue as error:
        assert any(character.isdigit() for character in str(error)), "the message names no limit"  # noqa: PT017
        return
    raise AssertionError("what is over a limit was taken")
