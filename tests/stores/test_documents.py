"""Documents on SQLite, Redis, a Redis Cluster and PostgreSQL: the contract, any calls against a mapping, and races."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from document_places import Driven, Where, where
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import run
from coatcheck.stores import documents_from_url
from coatcheck.stores.postgres_documents import PostgresDocuments
from coatcheck.stores.redis_documents import RedisDocuments
from coatcheck.stores.sqlite_documents import _GET, _PAGE, _SWEEP, SQLiteDocuments
from coatcheck.testing import DocumentsContract, make_record
from coatcheck.testing.clock import START

__all__ = ["where"]  # a fixture
pytestmark = pytest.mark.anyio

Together = Callable[..., list[int]]


def flip(octet: int) -> Callable[[bytes], bytes]:
    return lambda value: bytes([*value[:octet], value[octet] ^ 1, *value[octet + 1 :]])


class TestDocuments(DocumentsContract):
    @pytest.fixture(params=["awaited", "driven"])
    async def documents(self, where: Where, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
        made = where.new()
        documents: Any = made if request.param == "awaited" else Driven(made)
        await documents.open()
        yield documents
        await documents.close()

    @pytest.fixture(autouse=True)
    def _where(self, where: Where) -> None:
        self._place = where

    async def damage(self, documents: Documents, key: str) -> None:
        self._place.rewrite(key, flip(5))


def opened(documents: Documents, work: Callable[[], Any]) -> Any:
    """Run work in an event loop of its own."""

    async def main() -> Any:
        await documents.open()
        try:
            return await work()
        finally:
            await documents.close()

    return asyncio.run(main())


# -- against a mapping

Stored = dict[str, tuple[bytes, int | None]]
AS_STORED = object()  # an expectation that is right

names = st.sampled_from(["a", "a/1", "a/2", "a0", "b", "é"])
values = st.sampled_from([None, b"", b"1", b"2"])
writes = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["commit", "note"]),
        "expected": st.dictionaries(names, st.one_of(st.just(AS_STORED), values), max_size=3),
        "writes": st.dictionaries(names, values, max_size=3),
        "expires_at": st.sampled_from([None, None, START, START + 1]),
    }
)
reads = st.fixed_dictionaries({"get": st.lists(names, max_size=4)})
pages = st.fixed_dictionaries(
    {"prefix": st.sampled_from(["", "a", "a/", "b"]), "after": names, "limit": st.integers(1, 4)}
)
calls = st.lists(st.one_of(writes, writes, reads, pages), max_size=15)


class Model:
    """What documents promise, as a mapping."""

    def __init__(self) -> None:
        self.stored: Stored = {}

    def value(self, key: str) -> bytes | None:
        return self.stored.get(key, (None, None))[0]

    def write(self, expected: Mapping[str, Any], writes: Mapping[str, bytes | None], expires_at: int | None) -> bool:
        if any(self.value(key) != value for key, value in expected.items()):
            return False
        for key, value in writes.items():
            self.stored.pop(key, None)
            if value is not None:
                self.stored[key] = (value, expires_at)
        return True

    def page(self, prefix: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        keys = sorted((key for key in self.stored if key.startswith(prefix) and key > after), key=str.encode)
        return [(key, self.stored[key][0]) for key in keys if self.stored[key][1] is None][:limit]


async def replay(documents: Documents, steps: list[dict[str, Any]], root: str) -> None:
    """Make the calls on documents below `root`, and hold each answer against the mapping's."""
    model = Model()
    for step in steps:
        if "get" in step:
            keys = [root + key for key in step["get"]]
            assert await documents.get(*keys) == [model.value(key) for key in keys]
        elif "prefix" in step:
            bounds = (root + step["prefix"], root + step["after"], step["limit"])
            assert await documents.page(*bounds) == model.page(*bounds)
        else:
            right = {root + key: model.value(root + key) for key in step["expected"]}
            expected = right | {root + k: v for k, v in step["expected"].items() if v is not AS_STORED}
            changes = {root + key: value for key, value in step["writes"].items()}
            method = getattr(documents, step["method"])
            answer = await method(expected, changes, expires_at=step["expires_at"])
            assert answer == model.write(expected, changes, step["expires_at"])
    assert await documents.page(root, limit=100) == model.page(root, "", 100)


def test_any_calls_do_to_documents_what_they_do_to_a_mapping(where: Where) -> None:
    documents, roots = where.new(), itertools.count()
    with asyncio.Runner() as runner:
        runner.run(documents.open())

        @settings(max_examples=60, deadline=None)
        @given(calls)
        def check(steps: list[dict[str, Any]]) -> None:
            runner.run(replay(documents, steps, f"{next(roots)}|"))

        check()
        runner.run(documents.close())


# -- races


async def test_p5_one_of_many_rivals_wins_over_two_connections(where: Where) -> None:
    """Ten rounds of 40 commits with one expectation, from two objects that know nothing of each other."""
    one, other = where.new(), where.new()
    await one.open()
    await other.open()
    held: bytes | None = None
    for number in range(10):
        rivals = [
            (one if n % 2 else other).commit({"prize": held}, {"prize": f"{number}/{n}".encode()}) for n in range(40)
        ]
        won = await asyncio.gather(*rivals)
        assert won.count(True) == 1
        held = f"{number}/{won.index(True)}".encode()
        assert await one.get("prize") == await other.get("prize") == [held]
    await one.close()
    await other.close()


def test_p3_a_counter_is_exact_across_two_processes(where: Where, together: Together) -> None:
    """Two processes raise one number and write down who was told so: no step is lost, none counted twice."""
    opened(first := where.new(), lambda: first.commit({}, {"number": b"0"}))

    def process(name: str) -> None:
        documents = where.new()

        async def step() -> None:
            while True:
                [number] = await documents.get("number")
                assert number is not None
                raised = str(int(number) + 1)
                if await documents.commit(
                    {"number": number}, {"number": raised.encode(), f"by/{raised}": name.encode()}
                ):
                    return

        async def work() -> None:
            await asyncio.gather(*(step() for _ in range(5)))
            for _ in range(20):
                await step()

        opened(documents, work)

    assert together(lambda: process("a"), lambda: process("b")) == [0, 0]
    last = where.new()
    number, told = opened(last, lambda: asyncio.gather(last.get("number"), last.page("by/")))
    assert number == [b"50"]
    assert sorted(by for _, by in told) == [b"a"] * 25 + [b"b"] * 25


# -- what is stored


@pytest.mark.parametrize("octet", [0, 1, 5, 11, 13])
async def test_p4_no_flipped_octet_is_returned(where: Where, octet: int) -> None:
    """Wherever a document is damaged: format, value or checksum."""
    documents = where.new()
    assert await documents.commit({}, {"key": b"some value"})
    where.rewrite("key", flip(octet))
    for call in (documents.get("key"), documents.page("")):
        with pytest.raises(StoreUnavailable, match="damaged"):
            await call
    assert not await documents.commit({"key": b"some value"}, {"key": b"other"})
    await documents.close()


async def test_p4_a_documents_octets_under_another_key_are_nobodys(where: Where) -> None:
    documents, taken = where.new(), list[bytes]()

    def take(value: bytes) -> bytes:
        taken.append(value)
        return value

    assert await documents.commit({}, {"account/1": b"same", "account/2": b"same"})
    where.rewrite("account/1", take)
    where.rewrite("account/2", lambda _: taken[0])
    with pytest.raises(StoreUnavailable, match="damaged"):
        await documents.get("account/2")
    assert await documents.get("account/1") == [b"same"]
    await documents.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_sweep_removes_what_expires_now_and_says_how_many(kind: str, request: pytest.FixtureRequest) -> None:
    documents = Where(kind, request).new()
    for key, expires_at in (("before", START - 1), ("now", START), ("after", START + 1)):
        assert await documents.note({}, {key: b"1"}, expires_at=expires_at)
    assert await documents.sweep(START) == 2
    assert await documents.get("before", "now", "after") == [None, None, b"1"]
    assert await documents.sweep(START) == 0
    await documents.close()


async def test_the_index_of_a_redis_server_has_what_stays_and_nothing_else(valkey: Any, prefix: str) -> None:
    """What is removed, and what expires, leaves it; a document that is gone all the same makes no page short (P9)."""
    documents = RedisDocuments.from_url(valkey.url, prefix=prefix)
    assert await documents.commit({}, dict.fromkeys("abcdef", b"1"))
    assert await documents.commit({}, {"a": None, "g": b"1"})
    assert await documents.note({}, {"b": b"2", "h": b"2"}, expires_at=START)
    assert valkey.ask("ZRANGE", f"{prefix}:{{server}}i", 0, -1) == [b"c", b"d", b"e", b"f", b"g"]
    valkey.ask("DEL", f"{prefix}:{{server}}d:c", f"{prefix}:{{server}}d:e")
    assert await documents.page("", limit=2) == [("d", b"1"), ("f", b"1")]
    await documents.close()


def test_reads_and_sweeps_use_an_index(tmp_path: Path) -> None:
    """However many attempts to sign in there are, a page and a sweep read what they return or remove."""
    documents = SQLiteDocuments(tmp_path / "documents.db")
    run(documents.open())
    run(documents.close())
    with sqlite3.connect(tmp_path / "documents.db") as connection:
        for statement, arguments in ((_GET.format("?, ?"), 2), (_PAGE, 3), (_SWEEP, 2)):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", (0,) * arguments).fetchall()
            steps = [step for *_, step in plan]
            assert [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step] == []
    connection.close()


# -- where they are

URLS = [
    ("sqlite:///own.db", SQLiteDocuments),
    ("sqlite:////var/lib/own.db", SQLiteDocuments),
    ("redis://host", RedisDocuments),
    ("rediss+cluster://a,b?wait_replicas=1", RedisDocuments),
    ("redis+sentinel://a,b/main", RedisDocuments),
    ("postgresql://name:hunter2@host/coats", PostgresDocuments),
    ("postgres://name:hunter2@host/coats?sslmode=verify-full", PostgresDocuments),
]


@pytest.mark.parametrize(("url", "kind"), URLS)
def test_a_url_names_documents_and_opens_nothing(url: str, kind: type, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    documents = documents_from_url(url)
    assert isinstance(documents, kind)
    assert isinstance(documents, Documents)
    assert "hunter2" not in repr(documents)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory:",
        "file:///var/lib/coats",
        "sqlite:",
        "sqlite:///:memory:",
        "sqlite:///x?hunter2",
        "redis://:hunter2@a,b",
        "redis://:hunter2@host?prefix=a b",
        "postgresql:hunter2",
        "nosuch://:hunter2@host",
    ],
)
def test_any_other_url_is_a_configuration_error_that_tells_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        documents_from_url(url)
    assert "hunter2" not in str(caught.value)


async def test_records_and_documents_share_a_place(where: Where) -> None:
    """Neither removes, lists or counts what is the other's, whatever a document is called."""
    store, documents = where.store(), where.new()
    record, old = make_record("alice"), make_record("alice", expires_at=START)
    assert await store.create(record)
    assert await store.create(old)
    assert await documents.commit({}, {"alice": b"1", "x}c": b"0", record.id: b"2"})
    assert await store.sweep(START) == 1
    assert await documents.sweep(record.expires_at) == 0
    assert await store.revoke_subject("alice", START) == [record.id]
    assert sorted(await documents.page("")) == sorted([("alice", b"1"), ("x}c", b"0"), (record.id, b"2")])
    await store.close()
    await documents.close()


async def test_p4_a_key_that_is_no_text_is_damage_and_nothing_else(server: Any, schema: str) -> None:
    documents = PostgresDocuments(server.url, schema=schema)
    assert await documents.commit({}, {"key": b"some value"})
    server.ask("UPDATE coatcheck_document SET key = %s", b"key\xff")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await documents.page("")
    await documents.close()
