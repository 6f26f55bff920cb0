"""`coatcheck migrate`: a schema, or a whole server, is moved, and nobody is signed out."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from places import Places, place
from postgres_server import Server as Postgres
from postgres_server import server
from serving import NAME, PASSWORD, Served, Visitor
from valkey_server import single_url

from coatcheck import Coatcheck, Session
from coatcheck.cli import migrate, progress
from coatcheck.cli.main import main
from coatcheck.core import base64url, jws, status_list
from coatcheck.errors import ConfigurationError, Conflict, StoreUnavailable
from coatcheck.keyfile import KeyFile
from coatcheck.server import status_lists
from coatcheck.server.accounts import Accounts
from coatcheck.server.passwords import Passwords
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings
from coatcheck.store import Store
from coatcheck.stores import documents_from_url, store_from_url
from coatcheck.stores.moving import Moving, Step
from coatcheck.stores.sqlite_documents import SQLiteDocuments
from coatcheck.testing import make_record
from coatcheck.testing.records import following

__all__ = ["place", "server", "single_url"]

T = TypeVar("T")

SECRET = "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020"
ISSUER = "http://localhost:8000"
STATUS_TTL, PATIENCE = timedelta(seconds=10), 30
SESSION, ACCESS, REFRESH = "__Host-session", "__Host-access", "__Host-refresh"


class Shell:
    """Runs commands in this process, on one data directory."""

    def __init__(self, data: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.data, self._capture = data, capture
        self.code, self.err = -1, ""

    def __call__(self, *words: str) -> str:
        self.code = main([*words, "--data-dir", str(self.data)])
        printed, self.err = self._capture.readouterr()
        return printed

    def move(self, source: str, target: str, *words: str) -> str:
        return self("migrate", "--from", source, "--to", target, *words)

    @property
    def sqlite(self) -> str:
        """The URL of the store that a server has if none is named."""
        return f"sqlite:///{self.data}/coatcheck.sqlite"


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COATCHECK_SECRET", SECRET)
    monkeypatch.delenv("COATCHECK_STORE", raising=False)
    monkeypatch.delenv("COATCHECK_DATA_DIR", raising=False)
    monkeypatch.setattr(migrate, "SILENCE", 0.05)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path / "data", capsys)


def in_store(url: str, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def whole() -> T:
        store = store_from_url(url)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


def sessions(url: str, *subjects: str | None) -> list[str]:
    """Make sessions, and return their ids."""
    made = [make_record(subject) for subject in subjects]

    async def work(store: Store) -> list[bool]:
        return [await store.create(record) for record in made]

    assert all(in_store(url, work))
    return [record.id for record in made]


def there(url: str, *ids: str) -> list[bool]:
    async def work(store: Store) -> list[bool]:
        return [await store.load(id) is not None for id in ids]

    return in_store(url, work)


@pytest.fixture
def at_home(shell: Shell) -> list[str]:
    """A server's data in its data directory: keys, an account, and three sessions of it."""
    shell.data.mkdir(mode=0o700)
    KeyFile(shell.data / "keys.json", algorithm="ES256").open()

    async def account() -> str:
        documents = SQLiteDocuments(shell.data / "coatcheck.sqlite")
        await documents.open()
        found = await Accounts(documents).add("ann", "a hash", admin=True)
        await documents.close()
        return found.id

    return sessions(shell.sqlite, *[asyncio.run(account())] * 3)


# -- from one store to the next, with real servers ---------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(data: Path, store: str) -> Served:
        words = ["--issuer", ISSUER, "--algorithm", "ES256", *(["--store", store] if store else [])]
        started.append(Served(data, *words, environment={"COATCHECK_SECRET": SECRET}))
        return started[-1].ready()

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end()


def test_p8_a_server_that_moves_three_times_signs_nobody_out(
    serve: Callable[..., Served], shell: Shell, place: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From SQLite to Redis, to PostgreSQL, and to SQLite again; P1: nor does it sign anybody in who was signed out."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PASSWORD}\n".encode())))
    shell("accounts", "add", NAME, "--password-stdin")
    served = serve(shell.data, "")
    browser, tokens_of, gone = Visitor(served), Visitor(served).sign_in(deliver="token"), Visitor(served)
    browser.sign_in(tokens=True, remember=True)
    gone.sign_in(tokens=True)
    ended = dict(gone.jar)
    gone("POST", "/api/sign-out", {})
    home = tmp_path / "another"
    stops = [
        (shell.sqlite, place("redis"), shell.data),
        ("", place("postgres"), tmp_path / "none"),
        ("", f"sqlite:///{home}/coatcheck.sqlite", home),
    ]
    last = ""
    for source, target, data in stops:
        assert served.end() == 0
        shell.data = data
        shell.move(source or last, target)
        assert (shell.code, "moved, in" in shell.err) == (0, False), shell.err
        served = serve(data, target)
        assert "set-up" not in served.text
        client, browser = Visitor(served), browser.at(served)
        assert browser("GET", "/api/session")[0] == 200
        assert len(browser("GET", "/api/sessions")[1]["sessions"]) == 2
        assert client("GET", "/api/session", bearer=tokens_of["access_token"])[0] == 200
        status, refreshed = client("POST", "/api/refresh", {"refresh_token": tokens_of["refresh_token"]})
        assert status == 200, refreshed
        tokens_of |= refreshed
        client.jar = {SESSION: ended[SESSION]}
        assert client("GET", "/api/session")[1]["code"] == "revoked"
        client.jar = {}
        assert client("GET", "/api/session", bearer=ended[ACCESS])[1]["code"] == "revoked"
        assert client("POST", "/api/refresh", {"refresh_token": ended[REFRESH]})[1]["code"] == "revoked"
        last = target
    assert not (tmp_path / "none").exists()
    Visitor(served).sign_in()


# -- what is moved, and what is left -----------------------------------------------------------------------------------


def test_accounts_keys_and_sessions_arrive_and_a_second_move_changes_nothing(
    shell: Shell, at_home: list[str], place: Places
) -> None:
    target = place("redis")
    said = shell.move(shell.sqlite, target)
    assert (shell.code, said.splitlines()[:2]) == (
        0,
        ["sessions: 3 copied", "accounts and keys: moved, in 3 documents"],
    )
    assert "copying sessions: 3 of 3" in shell.err
    before = shell("keys", "list", "--json"), shell("accounts", "list", "--json")
    assert (
        shell("keys", "list", "--json", "--store", target),
        shell("accounts", "list", "--json", "--store", target),
    ) == before
    assert there(target, *at_home) == [True] * 3

    [late] = sessions(shell.sqlite, "late")
    assert shell.move(shell.sqlite, target) == ""
    assert (shell.code, shell.err) == (
        1,
        "coatcheck: already moved: this store was filled by `coatcheck migrate` and may be in use since\n",
    )
    assert there(target, *at_home, late) == [True, True, True, False]


def test_scripts_get_json(shell: Shell, at_home: list[str], place: Places) -> None:
    assert json.loads(shell.move(shell.sqlite, place("redis"), "--json")) == {
        "sessions": {
            "copied": len(at_home),
            "changed": 0,
            "same": 0,
            "removed": 0,
            "expired": 0,
            "damaged": [],
            "refused": [],
        },
        "finished": True,
        "documents": 3,
        "revocations": 0,
    }


def test_without_a_server_s_data_only_sessions_are_moved_and_no_secret_is_needed(
    shell: Shell, place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COATCHECK_SECRET")
    source, target = place("file"), place("redis")
    ids = sessions(source, "ann", None)
    assert "accounts and keys: there are none" in shell.move(source, target)
    assert shell.code == 0, shell.err
    assert there(target, *ids) == [True, True]
    assert not shell.data.exists()


def test_from_one_local_store_to_another_accounts_and_keys_stay_where_they_are(
    shell: Shell, at_home: list[str], place: Places
) -> None:
    target = place("file")
    assert f"accounts and keys: they stay in {shell.data}" in shell.move(shell.sqlite, target)
    assert there(target, *at_home) == [True] * 3
    shell("accounts", "list", "--store", target)
    assert shell.code == 0
    assert json.loads(shell("sessions", "list", "--json", "--store", target))


@pytest.mark.parametrize("kinds", [("sqlite", "file"), ("file", "redis"), ("redis", "postgres")], ids="-".join)
def test_p1_revocations_move_with_the_sessions(shell: Shell, place: Places, kinds: tuple[str, str]) -> None:
    """A token of a session that has ended is refused in the new place as well, without a look-up."""
    source, target = (place(kind) for kind in kinds)

    async def work(store: Store) -> str:
        async with Coatcheck(store) as coat:
            ended, _ = [await coat.sessions.create("ann") for _ in range(2)]
            await coat.sessions.revoke(ended.id or "")
            return ended.id or ""

    id = in_store(source, work)
    assert "revocations: 1\n" in shell.move(source, target)

    async def heard(store: Store) -> bool:
        async with Coatcheck(store) as coat:
            return coat.revocations.covers(id, None, 0)

    assert in_store(target, heard)


@pytest.mark.parametrize("kinds", [("sqlite", "redis"), ("redis", "postgres"), ("postgres", "sqlite")], ids="-".join)
def test_p1_status_lists_move_too(shell: Shell, place: Places, tmp_path: Path, kinds: tuple[str, str]) -> None:
    """A token from before the move is refused by the list that it names, whether its session ended before or after."""
    homes = [shell.data, tmp_path / "another"]
    urls = ["" if kind == "sqlite" else place(kind) for kind in kinds]

    async def before() -> tuple[list[Session], list[int]]:
        async with open_server(shell, urls[0], status_ttl=STATUS_TTL) as server:
            desk = server.coat.sessions
            made = [await desk.create(f"{number}") for number in range(5)]
            indexes = [index(server, (await desk.issue(session)).access_token) for session in made]
            await desk.revoke(made[1])
            await desk.revoke_all("2")
            await desk.rotate(made[3])
            await damage(server, await desk.create("whose place cannot be read"))
            return made, indexes

    async def after() -> None:
        async with open_server(shell, urls[1], status_ttl=STATUS_TTL) as server:
            assert await statuses(server, indexes) == [0, 1, 1, 1, 0]
            assert index(server, (await server.coat.sessions.issue(made[0])).access_token) == indexes[0]
            await server.coat.sessions.revoke(made[4])
            async with asyncio.timeout(PATIENCE):
                while await statuses(server, indexes) != [0, 1, 1, 1, 1]:  # noqa: ASYNC110 (there is no event)
                    await asyncio.sleep(0.01)

    made, indexes = asyncio.run(before())
    if kinds[1] == "sqlite":
        shell.data = homes[1]
    shell.move(urls[0] or f"sqlite:///{homes[0]}/coatcheck.sqlite", urls[1] or f"sqlite:///{homes[1]}/coatcheck.sqlite")
    assert shell.code == 0, shell.err
    asyncio.run(after())


async def damage(server: Server, session: Session) -> None:
    """Put something into the place of a session's tokens that is none: a move goes on all the same."""
    until = server.coat.clock() + 900_000
    await server._documents.commit({}, {f"{status_lists._OF}{session.id}": b"\x01damaged"}, expires_at=until)


def index(server: Server, token: str) -> int:
    """Where a token says that its status stands, in the first list."""
    status = json.loads(jws.verify(token, server.coat.keyring, typ="at+jwt"))["status"]["status_list"]
    assert status["uri"] == f"{ISSUER}/status-lists/0"
    return int(status["idx"])


async def statuses(server: Server, indexes: list[int]) -> list[int]:
    """What the first list says, as soon as there is one."""
    lists = server.status_lists
    assert lists is not None
    async with asyncio.timeout(PATIENCE):
        token = None
        while token is None:
            with suppress(StoreUnavailable):  # the feed was not heard yet
                token = await lists.token(0)
            await asyncio.sleep(0.01)
    now = server.coat.clock() / 1000
    found = status_list.verify(token, server.coat.keyring, uri=lists.uri(0), now=now, leeway=0).statuses
    return [found.status(index) for index in indexes]


def test_a_damaged_session_is_named_and_the_exit_code_tells(shell: Shell, at_home: list[str], place: Places) -> None:
    with sqlite3.connect(shell.data / "coatcheck.sqlite") as connection:
        damage = "UPDATE coatcheck_record SET body = substr(body, 2) WHERE id = ?"
        connection.execute(damage, (base64url.decode(at_home[0]),))
    connection.close()
    target = place("redis")
    assert "sessions: 2 copied" in shell.move(shell.sqlite, target)
    assert shell.code == 1
    assert f"moved, but for 1 sessions that cannot be: {at_home[0]}\n" in shell.err
    assert there(target, *at_home) == [False, True, True]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "code", "said"),
    [
        ("", "file:x", 2, "give both --from and --to"),
        ("file:x", "", 2, "give both --from and --to"),
        ("memory:", "file:x", 2, "--from: what is in the memory of a server is out of reach"),
        ("{home}", "memory:", 2, "--to: what is in the memory of a server is out of reach"),
        ("sqlite:///missing.db", "file:x", 2, "--from: there is no "),
        ("file:missing", "file:x", 2, "--from: there is no "),
        ("{home}", "{home}", 2, "--from and --to are the same place"),
        ("nosuch:", "file:x", 2, "no store is called 'nosuch'"),
        ("{home}", "sqlite:///elsewhere/coatcheck.sqlite", 2, "it is ambiguous whose accounts and keys are meant"),
        ("sqlite:///elsewhere/coatcheck.sqlite", "file:x", 2, "it is ambiguous whose accounts and keys are meant"),
        ("{home}", "sqlite:///missing/x.db", 2, "cannot be opened: No such file or directory"),
    ],
)
def test_what_cannot_be_moved_is_said_in_words(
    shell: Shell, at_home: list[str], source: str, target: str, code: int, said: str
) -> None:
    ends = [word for flag, url in (("--from", source), ("--to", target)) if url for word in (flag, url)]
    assert shell("migrate", *(end.format(home=shell.sqlite) for end in ends)) == ""
    assert shell.code == code
    assert said in shell.err
    assert not Path("x").exists()


def test_an_empty_source_is_no_source(shell: Shell, place: Places) -> None:
    """A name that was mistyped must not look like a move that went well."""
    shell.move(place("redis"), place("postgres"))
    assert (shell.code, "--from: there is nothing to move" in shell.err) == (2, True)


@pytest.mark.parametrize("kind", ["redis", "file"])
def test_a_target_with_sessions_is_in_use(shell: Shell, at_home: list[str], place: Places, kind: str) -> None:
    target = place(kind)
    [theirs] = sessions(target, "theirs")
    shell.move(shell.sqlite, target)
    assert (shell.code, shell.err) == (1, "coatcheck: --to is in use: there are sessions in it\n")
    assert there(target, theirs, *at_home) == [True, False, False, False]


def test_a_target_with_accounts_is_in_use(shell: Shell, at_home: list[str], place: Places) -> None:
    target = place("redis")

    async def account() -> None:
        documents = documents_from_url(target)
        await documents.open()
        await Accounts(documents).add("bob", "a hash")
        await documents.close()

    asyncio.run(account())
    shell.move(shell.sqlite, target)
    assert (shell.code, "--to is in use: there are accounts or keys" in shell.err) == (1, True)
    assert there(target, *at_home) == [False] * 3


def test_a_data_directory_with_keys_is_in_use(shell: Shell, at_home: list[str], place: Places, tmp_path: Path) -> None:
    middle = place("redis")
    shell.move(shell.sqlite, middle)
    shell.data = tmp_path / "other"
    KeyFile(shell.data / "keys.json", algorithm="ES256").open()
    shell.move(middle, f"sqlite:///{shell.data}/coatcheck.sqlite")
    assert (shell.code, "--to is in use: there are accounts or keys" in shell.err) == (1, True)


def test_without_the_secret_no_keys_are_moved_and_nothing_is_begun(
    shell: Shell, at_home: list[str], place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COATCHECK_SECRET")
    target = place("redis")
    shell.move(shell.sqlite, target)
    assert (shell.code, "COATCHECK_SECRET" in shell.err) == (2, True)
    monkeypatch.setenv("COATCHECK_SECRET", SECRET)
    assert "sessions: 3 copied" in shell.move(shell.sqlite, target)


# -- with others about -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_server(shell: Shell, store: str = "", **more: Any) -> AsyncGenerator[Server]:
    settings, passwords = (
        Settings(data_dir=shell.data, store=store, secret=SECRET, **more),
        Passwords(memory=8, passes=1),
    )
    async with Server(settings, passwords=passwords) as server:
        yield server


def test_while_a_server_runs_on_local_data_it_is_not_moved(
    shell: Shell, at_home: list[str], place: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    target = place("file")

    async def work() -> int:
        async with open_server(shell):
            words = ["migrate", "--from", shell.sqlite, "--to", target, "--data-dir", str(shell.data)]
            return await asyncio.to_thread(main, words)

    assert asyncio.run(work()) == 1
    assert "a server, or another command, uses " in capsys.readouterr().err
    shell.move(shell.sqlite, target)
    assert (shell.code, there(target, *at_home)) == (0, [True] * 3)


@pytest.mark.parametrize("words", [("accounts", "list"), ("keys", "list"), ("sessions", "list")])
def test_while_local_data_are_moved_no_server_starts_and_no_command_changes_them(
    shell: Shell, at_home: list[str], place: Places, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: what would be signed out then would live on in the new place."""
    outcomes: list[Any] = []

    async def fill(_: Moving) -> None:
        async def start() -> None:
            async with open_server(shell):
                pass

        outcomes.append(await asyncio.to_thread(main, [*words, "--data-dir", str(shell.data)]))
        outcomes.append(await asyncio.gather(start(), return_exceptions=True))

    monkeypatch.setattr(Moving, "fill", fill)
    shell.move(shell.sqlite, place("redis"))
    code, [error] = outcomes
    assert (code, type(error)) == (1, Conflict)
    assert "is moving" in shell.err


@pytest.mark.parametrize("kind", ["redis", "file"])
def test_p1_a_target_that_is_not_finished_serves_nobody(
    shell: Shell, at_home: list[str], place: Places, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place(kind)
    with monkeypatch.context() as patch:
        patch.setattr(Moving, "tidy", fails)
        shell.move(shell.sqlite, target)
    assert shell.code == 3

    async def serve() -> None:
        async with open_server(shell, target):
            pass

    with pytest.raises(ConfigurationError, match="begun and not finished: run the same `coatcheck migrate` again"):
        asyncio.run(serve())
    shell("accounts", "list", "--store", target)
    assert (shell.code, "begun and not finished" in shell.err) == (2, True)
    assert "3 there already" in shell.move(shell.sqlite, target)
    asyncio.run(serve())


def test_p1_what_is_copied_ahead_while_a_server_runs_is_finished_when_it_has_stopped(
    shell: Shell, at_home: list[str], place: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    """The break is short then; and what was signed out in between is not forgotten."""
    target = place("redis")
    words = ["migrate", "--from", shell.sqlite, "--to", target, "--data-dir", str(shell.data)]

    async def work() -> int:
        async with open_server(shell) as server:
            code = await asyncio.to_thread(main, [*words, "--ahead"])
            assert await server.coat.store.delete(at_home[0])
            return code

    assert asyncio.run(work()) == 0
    said = capsys.readouterr().out
    assert said.startswith("sessions: 3 copied\n")
    assert "Copied ahead, and not finished" in said
    shell("accounts", "list", "--store", target)
    assert (shell.code, "begun and not finished" in shell.err) == (2, True)
    assert "0 copied, 2 there already, 1 ended since" in shell.move(shell.sqlite, target)
    assert there(target, *at_home) == [False, True, True]


async def fails(_: Moving) -> None:
    raise StoreUnavailable("the store is away")


def test_what_an_earlier_run_left_damaged_is_copied_anew(
    shell: Shell, at_home: list[str], place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place("file")
    with monkeypatch.context() as patch:
        patch.setattr(Moving, "tidy", fails)
        shell.move(shell.sqlite, target)
    name = base64url.decode(at_home[1]).hex()
    (Path(target.removeprefix("file://")) / "records" / name[:2] / name).write_bytes(b"half of it")
    assert "sessions: 1 copied, 2 there already" in shell.move(shell.sqlite, target)
    assert there(target, *at_home) == [True] * 3


def test_p1_what_ends_between_two_runs_stays_ended(
    shell: Shell, at_home: list[str], place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = place("postgres")
    with monkeypatch.context() as patch:
        patch.setattr(Moving, "tidy", fails)
        shell.move(shell.sqlite, target)
    assert there(target, *at_home) == [True] * 3
    shell("sessions", "revoke", at_home[0])
    assert shell.code == 0
    said = shell.move(shell.sqlite, target)
    assert said.startswith("sessions: 0 copied, 2 there already, 1 ended since and removed\n")
    assert there(target, *at_home) == [False, True, True]


def test_p1_a_source_that_is_still_in_use_is_told_of_and_nothing_is_finished(
    shell: Shell, place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = place("redis"), place("postgres")
    [id] = sessions(source, "ann")
    fill = Moving.fill

    async def fill_and_write(self: Moving) -> None:
        await fill(self)
        record = await self._source.load(id)
        assert record is not None
        assert await self._source.replace(following(record))

    with monkeypatch.context() as patch:
        patch.setattr(Moving, "fill", fill_and_write)
        shell.move(source, target)
    assert (shell.code, "somebody uses it" in shell.err) == (1, True)
    assert "Stop all servers and applications that use --from" in shell.err
    assert "1 there already" in shell.move(source, target)
    assert shell.code == 0


def test_of_two_moves_to_one_shared_store_the_second_is_told(
    shell: Shell, place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = place("redis"), place("postgres")
    ids = sessions(source, "ann", "bob")
    fill, codes = Moving.fill, list[int]()

    async def begin_another(self: Moving) -> None:
        monkeypatch.setattr(Moving, "fill", fill)
        another = asyncio.create_task(asyncio.to_thread(main, ["migrate", "--from", source, "--to", target]))
        while not another.done():
            monkeypatch.setattr("coatcheck.stores.moving_state._BEAT", 0)
            await self._confirm()
            await asyncio.sleep(0.005)
        codes.append(another.result())
        await fill(self)

    monkeypatch.setattr(Moving, "fill", begin_another)
    assert "sessions: 2 copied" in shell.move(source, target)
    assert (shell.code, codes) == (0, [1])
    assert "another run is moving to this store" in shell.err
    assert there(target, *ids) == [True, True]


@pytest.mark.parametrize(
    ("source", "target", "words", "waits"),
    [
        ("redis", "postgres", (), True),
        ("file", "redis", (), False),
        ("redis", "file", (), False),
        ("file", "redis", ("--ahead",), True),
        ("file", "sqlite", ("--ahead",), False),
    ],
)
def test_where_no_lock_tells_that_a_run_has_ended_it_is_given_some_seconds(
    shell: Shell, place: Places, monkeypatch: pytest.MonkeyPatch, source: str, target: str, words: Any, waits: bool
) -> None:
    asked: list[float] = []

    def begun(*_: Any, silence: float, **__: Any) -> Any:
        asked.append(silence)
        raise Conflict("enough")

    monkeypatch.setattr(migrate, "begun", begun)
    there, here = place(source), place(target)
    sessions(there, "ann")
    shell.move(there, here, *words)
    assert (shell.code, [silence > 0 for silence in asked]) == (1, [waits])


def test_who_interrupts_it_reads_how_to_go_on(
    shell: Shell, at_home: list[str], place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: progress.Progress, step: Step) -> None:
        raise KeyboardInterrupt

    target = place("redis")
    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "tell", interrupt)
        shell.move(shell.sqlite, target)
    assert shell.code == 130
    assert "the same command goes on where this one has stopped" in shell.err
    assert "sessions: 3 copied" in shell.move(shell.sqlite, target)


# -- the schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "file", "postgres"])
def test_a_schema_is_made_once_and_it_is_said_what_was_done(shell: Shell, place: Places, kind: str) -> None:
    store = place(kind)
    first = shell("migrate", "--store", store).splitlines()
    assert shell.code == 0, shell.err
    assert "documents: version 1, is new" in first
    again = json.loads(shell("migrate", "--store", store, "--json"))
    assert {each["component"] for each in again} >= {"documents"}
    assert all(each["before"] == each["version"] > 0 for each in again)


def test_a_store_without_a_schema_is_ready(shell: Shell, place: Places) -> None:
    assert shell("migrate", "--store", place("redis")) == "ready: this store needs no schema\n"
    assert not shell.data.exists()


def test_a_store_that_does_not_answer_is_exit_code_3(shell: Shell) -> None:
    shell("migrate", "--store", "redis://127.0.0.1:1/0")
    assert shell.code == 3


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_ten_may_make_the_schema_at_once(shell: Shell, place: Places, kind: str) -> None:
    words = ["migrate", "--store", place(kind), "--data-dir", str(shell.data)]
    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(main, [words] * 10)) == [0] * 10


def test_afterwards_the_application_s_own_role_needs_no_right_to_change_the_schema(
    shell: Shell, place: Places, server: Postgres
) -> None:
    store = place("postgres")
    role = f"app{os.getpid()}"
    shell("migrate", "--store", store)
    assert shell.code == 0, shell.err
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'".encode())
        try:
            for right in GRANTS:
                connection.execute(f"GRANT {right} TO {role}".encode())
            location = store.partition("@")[2]
            [id] = sessions(f"postgresql://{role}:hunter2@{location}", "ann")
            assert there(store, id) == [True]
            shell("accounts", "list", "--store", f"postgresql://{role}:hunter2@{location}")
            assert shell.code == 0, shell.err
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


GRANTS = (
    "USAGE ON SCHEMA coatcheck",
    "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA coatcheck",
    "USAGE ON ALL SEQUENCES IN SCHEMA coatcheck",
)
"""As docs/how-to/move-to-another-store.md has it."""


# -- how far it has come -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_shows_how_far_it_is() -> None:
    out, now = Terminal(), iter([0.0, 0.01, 10.0, 20.0, 20.0])
    shown = progress.Progress(out, lambda: next(now))
    for step in (Step("copying", 0, 1000), Step("copying", 1, 1000), Step("copying", 500, 1000)):
        shown.tell(step)
    shown.tell(Step("copying", 1000, 1000))
    shown.tell(Step("copying", 1000, 1000))
    shown.end()
    shown.end()
    assert out.getvalue().split("\r\x1b[2K") == [
        "",
        "[                        ] copying: 0 of about 1000",
        "[############            ] copying: 500 of about 1000, 50/s, 10 s left",
        "[########################] copying: 1000 of 1000, 50/s, 0 s left\n",
    ]


def test_in_a_log_there_is_a_line_every_few_seconds() -> None:
    out, now = io.StringIO(), iter([0.0, 4.0, 5.0, 6.0, 7.0])
    shown = progress.Progress(out, lambda: next(now))
    for done in (0, 40, 50, 60):
        shown.tell(Step("copying", done, 50))
    shown.tell(Step("copying", 60, 60))
    shown.end()
    assert out.getvalue().splitlines() == [
        "copying: 0 of about 50",
        "copying: 50 of 50, 10/s, 0 s left",
        "copying: 60 of 60, 9/s, 0 s left",
    ]


# -- the source is used, or another run goes on, meanwhile -------------------------------------------------------------


def test_p1_a_run_that_was_paused_brings_back_nothing_that_was_ended_in_the_target(
    shell: Shell, place: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped between two of its own steps; another run has finished the move, and the target is in use."""
    source, target = place("redis"), place("postgres")
    [id] = sessions(source, "ann")
    create, codes = Moving._create, list[int]()

    async def paused(self: Moving, record: Any) -> bool:
        monkeypatch.setattr(Moving, "_create", create)
        codes.append(await asyncio.to_thread(main, ["migrate", "--from", source, "--to", target]))
        assert await asyncio.to_thread(there, target, id) == [True]

        async def sign_out(store: Store) -> bool:
            return await store.delete(id) is not None

        assert await asyncio.to_thread(in_store, target, sign_out)
        monkeypatch.setattr("coatcheck.stores.moving_state._BEAT", 0)  # it took longer than a beat
        return await create(self, record)

    monkeypatch.setattr(Moving, "_create", paused)
    shell.move(source, target)
    assert codes == [0]
    assert there(target, id) == [False]
    assert (shell.code, "another run has taken over" in shell.err) == (1, True)


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_p1_an_account_that_is_disabled_in_the_source_meanwhile_is_noticed(
    shell: Shell, place: Places, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It has no session at the moment, so no session shows it."""
    source, target = place(kind), place("redis")

    def accounts(url: str, work: Callable[[Accounts], Coroutine[Any, Any, T]]) -> T:
        async def whole() -> T:
            documents = documents_from_url(url)
            await documents.open()
            try:
                return await work(Accounts(documents))
            finally:
                await documents.close()

        return asyncio.run(whole())

    accounts(source, lambda them: them.add("eve", "a hash"))
    fill = Moving.fill

    async def fill_and_disable(self: Moving) -> None:
        await fill(self)
        assert await asyncio.to_thread(accounts, source, lambda them: them.disable("eve"))

    with monkeypatch.context() as patch:
        patch.setattr(Moving, "fill", fill_and_disable)
        shell.move(source, target)
    assert (shell.code, "somebody uses it" in shell.err) == (1, True)
    shell.move(source, target)
    assert shell.code == 0
    moved = accounts(target, lambda them: them.find("eve"))
    assert moved is not None
    assert moved.disabled
