"""`coatcheck serve`, as a process of its own, over HTTP: the whole journey, and what other processes do to it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from serving import NAME, PASSWORD, Served, Visitor, cli, until

from coatcheck.server.serve import AccessFilter, loggable
from coatcheck.server.settings import ALGORITHMS

SESSION, ACCESS, REFRESH = "__Host-session", "__Host-access", "__Host-refresh"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*words: str, environment: dict[str, str] | None = None) -> Served:
        served = Served(tmp_path / "data", *words, environment=environment)
        started.append(served)
        return served.ready()

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end()


def _add_account(served: Served) -> None:
    added = cli("accounts", "add", NAME, "--password-stdin", "--data-dir", str(served.data), stdin=PASSWORD + "\n")
    assert (added.returncode, added.stderr) == (0, "")


def _set_up_by_link(served: Served) -> None:
    """As a person does it, once; the second visit finds nothing."""
    path = served.set_up_path
    visitor = Visitor(served)
    assert visitor("GET", path)[0] == 200
    status, _ = visitor("POST", path, {"account": NAME, "password": PASSWORD}, form=True)
    assert status == 303
    assert visitor("GET", "/api/session")[1]["admin"] is True
    assert visitor("GET", path)[0] == 410
    assert path.rpartition("/")[2] not in "".join(served.logged), "S17: the token is in a log line"
    assert "/set-up/[redacted]" in "".join(served.logged)


@pytest.mark.parametrize(
    ("store", "algorithm", "set_up", "durability"),
    [
        ("", "RS256", _set_up_by_link, "power-safe"),
        ("memory:", "ES256", _add_account, "volatile"),
        ("file:{}", "Ed25519", _add_account, "crash-safe"),
    ],
)
def test_the_whole_journey_over_http(
    serve: Callable[..., Served],
    tmp_path: Path,
    store: str,
    algorithm: str,
    set_up: Callable[[Served], None],
    durability: str,
) -> None:
    store = store.format(tmp_path / "sessions")
    served = serve("--algorithm", algorithm, *(["--store", store] if store else []))
    assert durability in served.text
    assert ALGORITHMS[algorithm] in served.text
    set_up(served)

    # A token is verified by another library, from the published keys alone.
    client = Visitor(served)
    tokens = client.sign_in(deliver="token")
    published = client("GET", "/.well-known/jwks.json")[1]
    refreshed = client("POST", "/api/refresh", {"refresh_token": tokens["refresh_token"]})[1]
    for token in (tokens["access_token"], refreshed["access_token"]):
        claims = _verified_by_pyjwt(token, published, algorithm, f"http://localhost:{served.port}")
        assert client("GET", "/api/session", bearer=token)[1]["session_id"] == claims["sid"]

    # Cookie, access token and refresh token are three credentials of one session, and die together.
    browser = Visitor(served)
    browser.sign_in(tokens=True)
    copied = dict(browser.jar)
    assert set(copied) == {SESSION, ACCESS, REFRESH}
    assert browser("GET", "/api/session")[0] == 200
    assert browser("POST", "/api/sign-out", {}) == (200, {"ended": 1})
    assert browser.jar == {}
    thief = Visitor(served)
    thief.jar = {SESSION: copied[SESSION]}
    assert thief("GET", "/api/session")[1]["code"] == "revoked"
    assert Visitor(served)("GET", "/api/session", bearer=copied[ACCESS])[1]["code"] == "revoked"
    assert Visitor(served)("POST", "/api/refresh", {"refresh_token": copied[REFRESH]})[1]["code"] == "revoked"

    # Another process disables the account: this one refuses it in every form.
    browser.sign_in()
    words = ["accounts", "disable", NAME, "--data-dir", str(served.data), *(["--store", store] if store else [])]
    disabled = cli(*words)
    assert (disabled.returncode, disabled.stderr) == (0, "")
    until(lambda: browser("GET", "/api/session")[0] == 401)
    until(lambda: client("GET", "/api/session", bearer=tokens["access_token"])[0] == 401)
    refused = client("POST", "/api/sign-in", {"account": NAME, "password": PASSWORD})
    assert (refused[0], refused[1]["code"]) == (401, "wrong_password")

    assert client("GET", "/readyz") == (200, {"status": "ok", "problems": []})
    assert served.end() == 0
    logged = "".join(served.logged)
    assert "GET /api/session" in logged
    for secret in (PASSWORD, *copied.values(), tokens["access_token"], tokens["refresh_token"]):
        assert secret not in logged + served.text


def _verified_by_pyjwt(token: str, published: Any, algorithm: str, issuer: str) -> Any:
    [key] = [
        key for key in jwt.PyJWKSet.from_dict(published).keys if key.key_id == jwt.get_unverified_header(token)["kid"]
    ]
    return jwt.decode(token, key, algorithms=[ALGORITHMS[algorithm]], audience=issuer, issuer=issuer)


def test_p1_p2_after_kill_9_the_dead_stay_dead_and_the_living_live(serve: Callable[..., Served]) -> None:
    served = serve("--algorithm", "ES256", "--issuer", "http://localhost:8000")
    _add_account(served)
    living, dead = Visitor(served), Visitor(served)
    living.sign_in()
    tokens = dead.sign_in(deliver="token")
    dead.sign_in(tokens=True)
    copied = dict(dead.jar)
    dead("POST", "/api/sign-out", {})
    Visitor(served)("POST", "/api/sign-out", {}, bearer=tokens["access_token"])
    assert served.end(signal.SIGKILL) == -signal.SIGKILL
    again = serve("--algorithm", "RS256", "--issuer", "http://localhost:8000")
    assert "ES256" in again.text, "the keys that are there stay"
    assert "set-up" not in again.text
    for visitor in (living, dead):
        visitor.port = again.port
    assert living("GET", "/api/session")[0] == 200
    dead.jar = {SESSION: copied[SESSION]}
    assert dead("GET", "/api/session")[1]["code"] == "revoked"
    for token in (copied[ACCESS], tokens["access_token"]):
        assert Visitor(again)("GET", "/api/session", bearer=token)[1]["code"] == "revoked"


def test_p8_a_running_server_follows_a_rotation_on_the_command_line(serve: Callable[..., Served]) -> None:
    served = serve("--algorithm", "ES256")
    _add_account(served)
    visitor = Visitor(served)
    browser = Visitor(served)
    browser.sign_in()
    old = visitor.sign_in(deliver="token")
    before = {key["kid"] for key in visitor("GET", "/.well-known/jwks.json")[1]["keys"]}
    assert cli("keys", "rotate", "--data-dir", str(served.data)).returncode == 1, "published too recently"
    rotated = cli("keys", "rotate", "--now", "--data-dir", str(served.data))
    assert (rotated.returncode, rotated.stderr) == (0, "")
    until(lambda: before < {key["kid"] for key in visitor("GET", "/.well-known/jwks.json")[1]["keys"]})
    new = visitor("POST", "/api/refresh", {"refresh_token": old["refresh_token"]})[1]
    kids = [jwt.get_unverified_header(token)["kid"] for token in (old["access_token"], new["access_token"])]
    assert kids[0] != kids[1]
    assert set(kids) == before
    for token in (old["access_token"], new["access_token"]):
        assert visitor("GET", "/api/session", bearer=token)[0] == 200
    assert browser("GET", "/api/session")[0] == 200


@pytest.mark.parametrize(("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")])
def test_forwarded_addresses_count_only_from_the_proxies_that_are_named(
    serve: Callable[..., Served], trusted: str, address: str
) -> None:
    served = serve("--algorithm", "ES256", environment={"FORWARDED_ALLOW_IPS": trusted} if trusted else None)
    _add_account(served)
    visitor = Visitor(served)
    asked = {"account": NAME, "password": PASSWORD}
    assert visitor("POST", "/api/sign-in", asked, forwarded="203.0.113.9")[0] == 200
    [session] = visitor("GET", "/api/sessions")[1]["sessions"]
    assert session["address"] == address


def test_a_port_in_use_is_said_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = cli("serve", "--data-dir", str(tmp_path / "data"), "--port", port)
    assert found.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another with --port" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data-dir", "/dev/null/data"], "--data-dir (COATCHECK_DATA_DIR)"),
        (["--store", "mongodb://:a-secret@host"], "no store is called 'mongodb'"),
        (["--algorithm", "none"], "--algorithm (COATCHECK_ALGORITHM)"),
        (["--host", "no.such.host.invalid"], "--host (COATCHECK_HOST)"),
        (["--host", ".."], "--host (COATCHECK_HOST)"),
    ],
)
def test_a_setting_that_cannot_work_is_exit_code_2_and_words(tmp_path: Path, words: list[str], said: str) -> None:
    data = [] if "--data-dir" in words else ["--data-dir", str(tmp_path / "data")]
    found = cli("serve", "--port", "0", *data, *words)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert "a-secret" not in found.stderr


def test_data_directory_and_keys_are_for_us_alone(serve: Callable[..., Served]) -> None:
    served = serve("--algorithm", "ES256")
    assert served.data.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o077 for file in served.data.iterdir()} == {0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_normal_end(serve: Callable[..., Served], number: int) -> None:
    assert serve("--algorithm", "ES256").end(number) == 0


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/account", "/account"),
        ("/sign-in?next=/account&secret=1", "/sign-in"),
        ("/set-up/abc", "/set-up/[redacted]"),
        ("//set-up/abc", "//set-up/[redacted]"),
        ("/Set-Up/abc?x", "/Set-Up/[redacted]"),
        ("/set-up", "/set-up"),
    ],
)
def test_s17_queries_and_set_up_tokens_are_not_logged(path: str, logged: str) -> None:
    import logging

    assert loggable(path) == logged
    record = logging.LogRecord(
        "uvicorn.access", 20, "", 0, '%s - "%s %s HTTP/%s" %d', ("c", "GET", path, "1.1", 200), None
    )
    assert AccessFilter().filter(record)
    assert record.getMessage() == f'c - "GET {logged} HTTP/1.1" 200'
