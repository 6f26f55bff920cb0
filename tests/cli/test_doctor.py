"""`coatcheck doctor`: each fault that is planted is found and named, and nothing is said to be wrong without one."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from postgres_server import Server as Postgres
from postgres_server import server
from valkey_server import Valkey, free_port, own_valkey

from coatcheck import Coatcheck, KeyFile, SQLiteStore
from coatcheck.cli import doctor_store
from coatcheck.cli.main import main
from coatcheck.clock import system_clock
from coatcheck.core import base64url
from coatcheck.core.credentials import SessionBox
from coatcheck.core.seal import seal
from coatcheck.feed import Batch
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.stores import store_from_url

__all__ = ["free_port", "own_valkey", "server"]  # fixtures

SECRET = "Wq3vX9tK2mB7yR4nJ8sL1dF6gH5pC0zA"
DAY = 86_400_000
CLOCK = "coatcheck.cli.doctor_store.system_clock"

Found = dict[str, tuple[str, str]]
Doctor = Callable[..., Found]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run it; return verdict and words by check. Where a check says several things, the worst counts."""
    for name in list(os.environ):
        if name.startswith("COATCHECK_") and "TEST" not in name:
            monkeypatch.delenv(name)
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    monkeypatch.setenv("COATCHECK_PORT", "1")  # where nobody answers, whatever else runs on this machine
    monkeypatch.setattr("coatcheck.feeds.sqlite._HEARTBEAT", 0.1)
    order = ("not looked at", "fine", "attention", "broken")

    def run(*words: str, **environment: str) -> Found:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = main(["doctor", "--data-dir", str(tmp_path / "data"), "--json", *words])
        printed, err = capsys.readouterr()
        assert err == ""
        found: Found = {}
        for each in json.loads(printed):
            if order.index(each["verdict"]) >= order.index(found.get(each["check"], ("not looked at", ""))[0]):
                found[each["check"]] = (each["verdict"], each["seen"])
            assert each["fix"] or each["verdict"] in ("fine", "not looked at")
        assert code == int(any(verdict in ("attention", "broken") for verdict, _ in found.values()))
        return found

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of a server that has run."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    KeyFile(directory / "keys.json", algorithm="ES256").open()

    async def work() -> None:
        store, feed = SQLiteStore(directory / "coatcheck.sqlite"), SQLiteFeed(directory / "coatcheck.sqlite")
        async with Coatcheck(store, feed=feed) as coat:
            await coat.sessions.create("ann")

    asyncio.run(work())
    return directory


def wrong(found: Found) -> dict[str, str]:
    return {check: verdict for check, (verdict, _) in found.items() if verdict in ("attention", "broken")}


# -- nothing is wrong


def test_nothing_is_wrong_where_nothing_has_run_yet(doctor: Doctor, tmp_path: Path) -> None:
    assert wrong(doctor()) == {}
    assert not (tmp_path / "data").exists()  # it makes nothing


def test_nothing_is_wrong_with_a_healthy_server(doctor: Doctor, data: Path) -> None:
    found = doctor("--write")
    assert wrong(found) == {}
    for check in ("settings", "data directory", "keys", "store", "clock of the store", "feed", "revoking"):
        assert found[check][0] == "fine", check


def test_without_write_nothing_is_written(doctor: Doctor, data: Path) -> None:
    async def sessions() -> int:
        async with Coatcheck(
            SQLiteStore(data / "coatcheck.sqlite"), feed=SQLiteFeed(data / "coatcheck.sqlite")
        ) as coat:
            return len(await coat.sessions.list("ann")) + (await coat.feed.snapshot(0)).position

    before = asyncio.run(sessions())
    assert "revoking" not in doctor()
    assert asyncio.run(sessions()) == before


# -- settings

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound
NOBODY = "https://localhost:1"
REDIS_IS_DOWN = "redis://127.0.0.1:1/0"
SETTINGS: dict[str, tuple[tuple[str, ...], dict[str, str], dict[str, str]]] = {
    "an issuer by plain http": ((), {"COATCHECK_ISSUER": "http://auth.example"}, {"settings": "broken"}),
    "a port that is none": ((), {"COATCHECK_PORT": "x"}, {"settings": "broken"}),
    "https without a word about proxies": (
        (),
        {"COATCHECK_ISSUER": NOBODY},
        {"proxy headers": "attention", "issuer": "attention"},
    ),
    "every proxy is believed": (
        (),
        {"COATCHECK_ISSUER": NOBODY, "FORWARDED_ALLOW_IPS": "*"},
        {"proxy headers": "attention", "issuer": "attention"},
    ),
    "every address is believed": (
        (),
        {"COATCHECK_ISSUER": NOBODY, "FORWARDED_ALLOW_IPS": "10.0.0.1, 0.0.0.0/0"},
        {"proxy headers": "attention", "issuer": "attention"},
    ),
    "a proxy, and an issuer on localhost": (
        (),
        {"FORWARDED_ALLOW_IPS": "10.0.0.1"},
        {"proxy headers": "attention"},
    ),
    "for everybody, by plain http": ((), {"COATCHECK_HOST": EVERYWHERE}, {"Secure cookies": "attention"}),
    "sessions in memory": (("--store", "memory:"), {}, {"store": "attention"}),
    "a shared store without a secret, down": (
        ("--store", REDIS_IS_DOWN),
        {},
        {"secret": "attention", "store": "broken"},
    ),
    "a short secret": (
        ("--store", REDIS_IS_DOWN),
        {"COATCHECK_SECRET": "hunter2"},
        {"secret": "broken", "store": "broken"},
    ),
    "a store of no kind": (("--store", "mysql://h/d"), {}, {"store": "broken", "keys": "", "feed": ""}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_work_is_found(doctor: Doctor, name: str) -> None:
    words, environment, expected = SETTINGS[name]
    assert wrong(doctor(*words, **environment)) == {check: verdict for check, verdict in expected.items() if verdict}


def test_a_proxy_that_is_named_is_fine(doctor: Doctor) -> None:
    found = doctor(COATCHECK_ISSUER=NOBODY, FORWARDED_ALLOW_IPS="10.0.0.1")
    assert (found["proxy headers"], wrong(found)) == (("fine", "believed from 10.0.0.1"), {"issuer": "attention"})


def test_s17_no_secret_is_shown(doctor: Doctor) -> None:
    found = doctor("--store", "redis://:hunter2@127.0.0.1:1/0", COATCHECK_SECRET=SECRET)
    assert "hunter2" not in repr(found)
    assert SECRET not in repr(found)


# -- data directory, keys, files


def test_a_data_directory_that_others_may_read_is_found(doctor: Doctor, data: Path) -> None:
    data.chmod(0o755)
    assert wrong(doctor()) == {"data directory": "broken"}


def test_a_key_file_that_others_may_read_is_found(doctor: Doctor, data: Path) -> None:
    (data / "keys.json").chmod(0o644)
    assert wrong(doctor()) == {"keys": "broken"}


def _change_keys(data: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((data / "keys.json").read_bytes())
    change(content)
    (data / "keys.json").write_text(json.dumps(content))


def _weak() -> dict[str, str]:
    numbers = rsa.generate_private_key(65537, 1024).private_numbers()  # noqa: S505 - it is to be refused
    public = numbers.public_numbers
    members = {"n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p, "q": numbers.q}
    members |= {"dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    texts = {name: base64url.encode(n.to_bytes((n.bit_length() + 7) // 8, "big")) for name, n in members.items()}
    return {"kty": "RSA", "alg": "RS256", "kid": "weak"} | texts


def test_j5_a_weak_key_is_found(doctor: Doctor, data: Path) -> None:
    _change_keys(data, lambda content: content["keys"][0].update(jwk=_weak()))
    found = doctor()
    assert (wrong(found), "the key has 1024 bits" in found["keys"][1]) == ({"keys": "broken"}, True)


def test_keys_that_make_no_ring_are_found(doctor: Doctor, data: Path) -> None:
    _change_keys(data, lambda content: content["keys"][0].update(role="upcoming"))
    assert wrong(doctor()) == {"keys": "broken"}


def test_a_key_that_was_not_changed_for_a_year_is_found(doctor: Doctor, data: Path) -> None:
    _change_keys(data, lambda content: content["keys"][0].update(made_at=content["keys"][0]["made_at"] - 400 * DAY))
    found = doctor()
    assert (wrong(found), "400 days ago" in found["keys"][1]) == ({"keys": "attention"}, True)


def test_a_key_that_was_retired_long_ago_is_found(doctor: Doctor, data: Path) -> None:
    KeyFile(data / "keys.json").rotate(published_for=timedelta(0))
    assert wrong(doctor()) == {}
    _change_keys(
        data, lambda content: [key.update(retired_at=key["retired_at"] - 3 * DAY) for key in content["keys"]
                               if key["role"] == "retired"]
    )  # fmt: skip
    assert wrong(doctor()) == {"keys": "attention"}


def test_files_from_the_future_are_found(doctor: Doctor, data: Path) -> None:
    ahead = time.time() + 3600
    os.utime(data / "coatcheck.sqlite", (ahead, ahead))
    found = doctor()
    assert wrong(found) == {"clock of the store": "broken"}
    assert "ahead of" in found["clock of the store"][1]


def test_a_damaged_database_is_found(doctor: Doctor, data: Path) -> None:
    for file in data.glob("coatcheck.sqlite*"):
        file.write_bytes(b"no database at all" * 500)
    assert wrong(doctor()) == {"store": "broken"}


def test_a_silent_feed_is_found(doctor: Doctor, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(self: SQLiteFeed, position: int) -> Any:
        yield Batch(after=position, position=position)
        await asyncio.Event().wait()

    monkeypatch.setattr(SQLiteFeed, "follow", silent)
    monkeypatch.setattr(doctor_store, "_SILENT_SECONDS", 0.2)
    assert wrong(doctor("--write")) == {"feed": "broken", "revoking": "broken"}


# -- shared stores


def test_redis(doctor: Doctor, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"COATCHECK_SECRET": SECRET}
    healthy = doctor("--store", own_valkey.url, "--write", **own)
    assert wrong(healthy) == {}
    assert [healthy[check][0] for check in ("store", "clock of the store", "feed", "revoking")] == ["fine"] * 4
    with monkeypatch.context() as patch:
        patch.setattr(CLOCK, lambda: system_clock() + 5_000)
        assert wrong(doctor("--store", own_valkey.url, **own)) == {"clock of the store": "attention"}
        patch.setattr(CLOCK, lambda: system_clock() + 60_000)
        found = doctor("--store", own_valkey.url, **own)
        assert wrong(found) == {"clock of the store": "broken"}
        assert "60 s behind" in found["clock of the store"][1]
    own_valkey.ask("CONFIG", "SET", "appendonly", "no")
    found = doctor("--store", own_valkey.url, **own)
    assert (wrong(found), "keeps no log" in found["store"][1]) == ({"store": "broken"}, True)
    volatile = doctor("--store", f"{own_valkey.url}?allow_volatile=true", **own)
    assert (wrong(volatile), "volatile" in volatile["store"][1]) == ({"store": "attention"}, True)


def test_postgresql(doctor: Doctor, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{server.url}{'&' if '?' in server.url else '?'}schema={server.schema}_doctor"
    own = {"COATCHECK_SECRET": SECRET}
    try:
        found = doctor("--store", url)
        assert (found["store"][0], "is not there yet" in found["store"][1]) == ("not looked at", True)
        asyncio.run(_made(url))
        found = doctor("--store", url, "--write", **own)
        assert wrong(found) == {}
        assert [found[check][0] for check in ("store", "clock of the store", "feed", "revoking")] == ["fine"] * 4
        monkeypatch.setattr(CLOCK, lambda: system_clock() - 60_000)
        assert wrong(doctor("--store", url, **own)) == {"clock of the store": "broken"}
    finally:
        server.ask(f"DROP SCHEMA IF EXISTS {server.schema}_doctor CASCADE")


async def _made(url: str) -> None:
    async with Coatcheck(store_from_url(url)):
        pass


# -- a running app

Answer = Callable[[str | None], Mapping[str, str | list[str]]]


class App(ThreadingHTTPServer):
    """An app that gives the headers that a function returns for the Cookie header."""

    daemon_threads = True

    def __init__(self, answer: Answer, status: int = 200) -> None:
        self.answer, self.status = answer, status
        self.cookies: list[str | None] = []  # of the requests
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        app = self.server
        assert isinstance(app, App)
        app.cookies.append(self.headers["cookie"])
        headers: dict[str, str | list[str]] = {"Date": format_datetime(datetime.now(UTC), usegmt=True)}
        headers |= app.answer(self.headers["cookie"])
        self.send_response_only(app.status)
        for name, value in headers.items():
            for each in [value] if isinstance(value, str) else value:
                self.send_header(name, each)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., App]]:
    apps: list[App] = []

    def serve(answer: Answer, status: int = 200) -> App:
        apps.append(App(answer, status))
        return apps[-1]

    yield serve
    for each in apps:
        each.shutdown()
        each.server_close()


SID = "kV3nQ8sY1tB6mZ0xR4wJ7aL2eC5hF9dG"
ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
NO_STORE = {"Cache-Control": "no-store", "Vary": "Cookie"}
GOOD = {"Set-Cookie": f"__Host-session={SID}; {ATTRIBUTES}"} | NO_STORE


def _once(cookie: str | None) -> Mapping[str, str | list[str]]:
    return NO_STORE if cookie else GOOD


def _always_anew(cookie: str | None) -> Mapping[str, str | list[str]]:
    # By turns, so that no two answers are the same.
    other = SID[::-1] if cookie and SID in cookie else SID
    return {"Set-Cookie": f"__Host-session={other}; {ATTRIBUTES}"} | NO_STORE


def _two_places(_: str | None) -> Mapping[str, str | list[str]]:
    # The second one is another each time, and is for other pages.
    other = f"__Secure-sid={secrets.token_urlsafe(32)}; {ATTRIBUTES.replace('Path=/', 'Path=/app')}"
    return {"Set-Cookie": [f"__Secure-sid={SID}; {ATTRIBUTES}", other]} | NO_STORE


def _sealed_anew(_: str | None) -> Mapping[str, str | list[str]]:
    box = SessionBox(seal(b"record" * 20, keys=[bytes(32)], purpose="session", name="x", nonce=secrets.token_bytes(12)))
    return {"Set-Cookie": f"__Host-session={box.value}; {ATTRIBUTES}"} | NO_STORE


APPS: dict[str, tuple[Answer, dict[str, str]]] = {
    "a healthy one": (_once, {}),
    "one that sets no cookie": (lambda _: {}, {}),
    "one that sets the same cookie again": (lambda _: GOOD, {}),
    "one that does not know its cookie again": (_always_anew, {"recognised": "broken"}),
    "one whose cookie browsers drop": (
        lambda _: {"Set-Cookie": f"__Host-session={SID}; Path=/; HttpOnly; SameSite=Lax"} | NO_STORE,
        {"cookies": "broken"},
    ),
    "cross-site without Secure": (
        lambda _: {"Set-Cookie": f"sid={SID}; Path=/; HttpOnly; SameSite=None"} | NO_STORE,
        {"cookies": "broken"},
    ),
    "the same cookie twice": (
        lambda _: {"Set-Cookie": [f"__Host-sid={SID}; {ATTRIBUTES}"] * 2} | NO_STORE,
        {"cookies": "attention"},
    ),
    "a name for two places": (_two_places, {"cookies": "attention"}),
    "another site's Domain": (
        lambda _: {"Set-Cookie": f"sid={SID}; {ATTRIBUTES}; Domain=app.example"} | NO_STORE,
        {"cookies": "broken"},
    ),
    "a Path that does not cover the page": (
        lambda _: {"Set-Cookie": f"sid={SID}; Path=/app; Secure; HttpOnly; SameSite=Lax"} | NO_STORE,
        {"cookies": "attention"},
    ),
    "a cookie that is over when it comes": (
        lambda _: {"Set-Cookie": f"{GOOD['Set-Cookie']}; Expires=Mon, 01 Jan 2024 00:00:00 GMT"} | NO_STORE,
        {"cookies": "broken"},
    ),
    "one that takes a cookie back": (
        lambda _: {"Set-Cookie": f"__Host-sid=deleted; {ATTRIBUTES}; Expires=Thu, 01 Jan 1970 00:00:01 GMT"},
        {},
    ),
    "a cookie that is sealed anew in each answer": (_sealed_anew, {}),
    "kept by caches": (lambda _: {"Set-Cookie": GOOD["Set-Cookie"]}, {"caching": "attention"}),
    "without Vary": (
        lambda _: {"Set-Cookie": GOOD["Set-Cookie"], "Cache-Control": "private"},
        {"caching": "attention"},
    ),
    "a clock that is behind": (
        lambda _: {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"},
        {"clock of the app": "broken"},
    ),
    "a Date that is none": (lambda _: {"Date": "now"}, {"clock of the app": "attention"}),
    "headers that are too large": (
        lambda _: {"Set-Cookie": [f"c{n}={'x' * 3000}; {ATTRIBUTES}" for n in range(3)]},
        {"size of headers": "broken"},
    ),
    "headers that are large": (lambda _: {"X-Large": "x" * 5000}, {"size of headers": "attention"}),
}  # fmt: skip


@pytest.mark.parametrize("name", APPS)
def test_a_fault_of_a_running_app_is_found(doctor: Doctor, serve: Callable[..., App], name: str) -> None:
    answer, expected = APPS[name]
    app = serve(answer)
    assert wrong(doctor("--url", app.url)) == expected
    assert len(app.cookies) == 2


def test_the_public_address_is_asked_whether_the_server_is_there(doctor: Doctor, serve: Callable[..., App]) -> None:
    good, other = serve(lambda _: {}), serve(lambda _: {}, 404)
    assert doctor(COATCHECK_PORT=str(good.server_address[1]))["issuer"][0] == "fine"
    assert wrong(doctor(COATCHECK_PORT=str(other.server_address[1]))) == {"issuer": "attention"}


def test_c15_an_app_that_refuses_its_own_cookies_is_found(doctor: Doctor, serve: Callable[..., App]) -> None:
    app = serve(lambda _: GOOD)

    def answer(cookie: str | None) -> Mapping[str, str | list[str]]:
        app.status = 431 if cookie else 200
        return GOOD

    app.answer = answer
    found = doctor("--url", app.url)
    assert (wrong(found), "431" in found["recognised"][1]) == ({"recognised": "broken"}, True)


@pytest.mark.parametrize("headers", [{"X-Long": "x" * 70_000}, {f"X-{n}": "x" for n in range(120)}])
def test_c15_headers_that_cannot_be_read_are_too_large(
    doctor: Doctor, serve: Callable[..., App], headers: Mapping[str, str]
) -> None:
    assert wrong(doctor("--url", serve(lambda _: headers).url)) == {"size of headers": "broken"}


def test_what_was_not_kept_is_not_said_to_be_known(doctor: Doctor, serve: Callable[..., App]) -> None:
    verdict, seen = doctor("--url", serve(_sealed_anew).url)["recognised"][:2]
    assert (verdict, "coatcheck sealed session" in seen) == ("not looked at", True)


def test_an_app_that_fails_is_found(doctor: Doctor, serve: Callable[..., App]) -> None:
    assert wrong(doctor("--url", serve(lambda _: {}, 500).url)) == {"app": "broken"}


def test_an_app_that_does_not_answer_is_found(doctor: Doctor) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = doctor("--url", f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert found["app"] == ("broken", "127.0.0.1 does not answer: Connection refused")


def test_s18_secure_cookies_over_plain_http_are_found(
    doctor: Doctor, serve: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Browsers keep them of localhost, and of no other host (C21)."""
    app, real = serve(lambda _: GOOD), socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, *rest: real(("127.0.0.1", address[1]), *rest))
    port = app.server_address[1]
    assert wrong(doctor("--url", f"http://app.example:{port}/")) == {"Secure cookies": "broken"}
    assert wrong(doctor("--url", f"http://localhost:{port}/")) == {}
    assert app.cookies == [None, None, None, f"__Host-session={SID}"]


@pytest.mark.parametrize(
    "url", ["app.example", "ftp://app.example/", "http://", "http://h:x/", "http://h:0/", "http://h/ä"]
)
def test_an_address_that_is_none_is_a_wrong_command_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--url", url]) == 2
    assert "--url" in capsys.readouterr().err


def test_people_read_it_as_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--data-dir", str(tmp_path / "data"), "--store", "memory:", "--fail-on", "high"]) == 0
    printed = capsys.readouterr().out
    assert "attention      store " in printed
    assert "do: keep sessions in a file" in printed
