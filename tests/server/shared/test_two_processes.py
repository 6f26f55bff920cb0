"""Two `coatcheck serve` processes on one store: what was acknowledged outlives them, and the store's own process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from places import SHARED, Places
from serving import NAME, PASSWORD, Served, Visitor, cli, until
from valkey_server import Valkey, info

SESSION, ACCESS, REFRESH = "__Host-session", "__Host-access", "__Host-refresh"
SECRET = "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020"
ISSUER = "http://localhost:8000"


@dataclass
class Kept:
    """A store whose servers are ours to kill."""

    url: str
    restart: Callable[[], None]


@pytest.fixture(params=SHARED)
def kept(request: pytest.FixtureRequest, place: Places) -> Kept:
    get = request.getfixturevalue
    if request.param == "redis":
        servers: list[Valkey] = [get("own_valkey")]
        return Kept(servers[0].url, lambda: _restart(servers))
    if request.param == "cluster":
        return Kept(place("cluster"), lambda: _restart(get("cluster")))
    own = get("own_server")
    return Kept(place("postgres"), lambda: (own.kill(), own.start())[0])


def _restart(servers: list[Valkey]) -> None:
    for server in servers:
        server.kill()
    for server in servers:
        server.start()
    if len(servers) > 1:
        until(lambda: all("cluster_state:ok" in info(server, "CLUSTER", "INFO") for server in servers))


@pytest.fixture
def serve(kept: Kept, tmp_path: Path) -> Iterator[Callable[[], Served]]:
    """Start a server; it is not waited for."""
    environment = {"COATCHECK_STORE": kept.url, "COATCHECK_SECRET": SECRET, "COATCHECK_ISSUER": ISSUER}
    started: list[Served] = []

    def start() -> Served:
        started.append(Served(tmp_path / "data", "--algorithm", "ES256", environment=environment))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end()


def test_p1_p2_kill_9_and_a_restart_of_the_store_neither_revive_nor_lose_a_session(
    kept: Kept, serve: Callable[[], Served], tmp_path: Path
) -> None:
    a, b = (served.ready() for served in (serve(), serve()))
    assert "in the store: accounts, keys and limits" in a.text
    first = Visitor(b)
    assert first("POST", a.set_up_path, {"account": NAME, "password": PASSWORD}, form=True)[0] == 303
    living = [first]
    for _ in range(3):
        living.append(Visitor(a))
        living[-1].sign_in()
    dead = [Visitor(a) for _ in range(3)]
    for visitor in dead:
        visitor.sign_in(tokens=True)
        copied = dict(visitor.jar)
        assert visitor.at(b)("GET", "/api/session")[0] == 200
        assert visitor("POST", "/api/sign-out", {}) == (200, {"ended": 1})
        visitor.jar = copied
        assert _code(visitor.at(b), SESSION) == "revoked"

    assert a.end(signal.SIGKILL) == -signal.SIGKILL
    kept.restart()
    c = serve().ready()
    assert "set-up" not in c.text
    for served in (b, c):
        # What B had open has been closed: for a moment it answers 503, and never that somebody is not signed in.
        until(lambda at=served: _status(living[0], at) == 200)  # type: ignore[misc]
        assert [_status(visitor, served) for visitor in living] == [200] * len(living)
        for visitor in dead:
            assert [_code(visitor.at(served), name) for name in (SESSION, ACCESS)] == ["revoked"] * 2
            refused = visitor.at(served)("POST", "/api/refresh", {"refresh_token": visitor.jar[REFRESH]})
            assert (refused[0], refused[1]["code"]) == (401, "revoked")
    keys = [Visitor(served)("GET", "/.well-known/jwks.json")[1]["keys"] for served in (b, c)]
    assert keys[0] == keys[1]
    token = Visitor(c).sign_in(deliver="token")["access_token"]
    assert jwt.get_unverified_header(token)["kid"] in {key["kid"] for key in keys[0]}
    assert Visitor(b)("GET", "/api/session", bearer=token)[0] == 200
    assert [served.end() for served in (b, c)] == [0, 0]
    assert not (tmp_path / "data").exists()
    logged = "".join(line for served in (a, b, c) for line in (*served.logged, *served.printed))
    assert "GET /api/session" in logged
    for secret in (SECRET, PASSWORD, token, *dead[0].jar.values()):
        assert secret not in logged


def _status(visitor: Visitor, served: Served) -> int:
    status: int = visitor.at(served)("GET", "/api/session")[0]
    assert status in {200, 503}
    return status


def _code(visitor: Visitor, name: str) -> str:
    visitor.jar = {name: visitor.jar[name]}
    code: str = visitor("GET", "/api/session")[1]["code"]
    return code


def test_a_store_that_is_down_at_the_start_is_exit_code_3_and_words(free_port: int, tmp_path: Path) -> None:
    store, data = f"redis://:a-password@127.0.0.1:{free_port}/0", tmp_path / "data"
    environment = {"COATCHECK_STORE": store, "COATCHECK_SECRET": SECRET}
    found = cli("serve", "--port", "0", "--data-dir", str(data), environment=environment)
    assert (found.returncode, found.stdout) == (3, "")
    assert "cannot answer" in found.stderr
    for unwanted in ("Traceback", SECRET, "a-password"):
        assert unwanted not in found.stderr
    assert not data.exists()
