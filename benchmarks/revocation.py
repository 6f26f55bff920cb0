"""How long it takes until a revocation counts: from its acknowledgement to the refusal in two API processes.

    python3 tools/dev.py bench revocation [--count 1000] [--only redis] [--record]

An auth server is a process of its own, and so are two APIs that have no store (`Verifier.from_issuer`): the server
hears what its store's feed carries, and tells them over HTTP. Sessions are ended over the server's API, four at once,
one in four of them with all others of its subject. Each API verifies what is being ended again and again, and tokens
that stay good as well, which it must never refuse. Times are of the monotonic clock, which all processes share. A
refusal that comes before the acknowledgement counts as 0 ms.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from suite import command, report, servers
from suite.auth_server import serving

from coatcheck import CoatcheckError, Revoked, Verifier
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings

APIS: Final = 2
AT_ONCE: Final = 4
KEPT: Final = 20
PATIENCE: Final = 10.0  # seconds

Token = str


class Ending(NamedTuple):
    """A session to be ended, and how."""

    token: Token
    path: str


def main() -> None:
    """Measure, and show."""
    parser = command.parser(__doc__)
    parser.add_argument("--count", type=int, default=1000, help="sessions to be ended")
    options = command.parse(parser)
    options.count = 40 if options.quick else options.count
    rows: list[list[str | int | float]] = []
    for name, place in PLACES.items():
        if options.only.lower() in name.lower():
            with servers.folder() as folder, place() as store:
                found = sorted(measure(folder, store, options.count))
            rows.append([name, len(found), *(found[int((len(found) - 1) * share)] for share in (0.5, 0.9, 0.99, 1))])
    table = report.Table("revocation", ("the server's store", "refusals", "p50, ms", "p90", "p99", "max"), rows)
    report.publish("revocation", [table], libraries=("uvicorn", "redis", "psycopg"), record=options.record)


@contextmanager
def redis() -> Iterator[str]:
    """Give the URL of a server."""
    with servers.valkey() as server:
        yield server.url


@contextmanager
def postgres() -> Iterator[str]:
    """Give the URL of a server."""
    with servers.postgres() as server:
        yield server.url


# What gives the URL of a store; without one it is in the server's data directory.
PLACES: Final[dict[str, Callable[[], AbstractContextManager[str]]]] = {
    "SQLite": lambda: nullcontext(""),
    "Redis": redis,
    "PostgreSQL": postgres,
}


def measure(directory: Path, store: str, count: int) -> list[float]:
    """Return how many milliseconds each refusal in each API came after its acknowledgement."""
    feed_token, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    environment = {**os.environ, "COATCHECK_FEED_TOKEN": feed_token, "COATCHECK_SECRET": secret}
    with serving(directory / "data", store, environment) as (port, _):
        url = f"http://localhost:{port}"
        settings = Settings(data_dir=directory / "data", store=store, port=port, secret=secret)
        kept, endings = asyncio.run(sign_in(settings, count))
        apis = [Api(url, feed_token, kept) for _ in range(APIS)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(lambda ending: end(port, ending, apis), endings))
        for api in apis:
            api.close()
    return [latency for each in found for latency in each]


async def sign_in(settings: Settings, count: int) -> tuple[list[Token], list[Ending]]:
    """Return tokens of sessions that stay, and of those that are to be ended; made beside the server, in its store."""
    async with Server(settings, on_event=lambda _: None) as server:
        sessions = server.coat.sessions

        async def token(subject: str) -> Token:
            return (await sessions.issue(await sessions.create(subject, amr=("pwd",)))).access_token

        kept = [await token(f"kept {number}") for number in range(KEPT)]
        paths = ("/api/sign-out", "/api/sign-out", "/api/sign-out", "/api/sign-out-everywhere")
        return kept, [Ending(await token(f"ended {n}"), paths[n % len(paths)]) for n in range(count)]


def end(port: int, ending: Ending, apis: list[Api]) -> list[float]:
    """End a session, and return how many milliseconds after the acknowledgement it was refused in each API."""
    waits = [api.watch(ending.token) for api in apis]
    connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {ending.token}", "Content-Type": "application/json"}
    connection.request("POST", ending.path, "{}", headers)
    answer = connection.getresponse()
    answer.read()
    acknowledged = time.monotonic()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{ending.path} answered {answer.status}")
    return [max(0.0, wait.result() - acknowledged) * 1000 for wait in waits]


class Wait:
    """What an API has still to say of a token: when it was refused."""

    def __init__(self) -> None:
        self._said = threading.Event()
        self._at = 0.0

    def say(self, at: float) -> None:
        self._at = at
        self._said.set()

    def result(self) -> float:
        if not self._said.wait(PATIENCE):
            raise SystemExit(f"a token was not refused within {PATIENCE:g} s")
        return self._at


class Api:
    """A process that verifies, as `api` does."""

    def __init__(self, url: str, feed_token: str, kept: list[Token]) -> None:
        self._waits: dict[int, Wait] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(  # noqa: S603 - this file
            [sys.executable, __file__, "api", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("an API has no pipes")
        self._in, self._out = self._process.stdin, self._process.stdout
        for line in (feed_token, *kept):
            self._in.write(f"{line}\n")
        self._in.flush()
        if self._out.readline() != "ready\n":
            raise SystemExit("an API has not begun")
        threading.Thread(target=self._listen, daemon=True).start()

    def watch(self, token: Token) -> Wait:
        with self._lock:
            number, wait = len(self._waits), Wait()
            self._waits[number] = wait
            self._in.write(f"{number} {token}\n")
            self._in.flush()
        return wait

    def close(self) -> None:
        self._in.close()
        if self._process.wait(PATIENCE):
            raise SystemExit("an API has refused a token that was good")
        self._out.close()

    def _listen(self) -> None:
        for line in self._out:
            number, at = line.split()
            self._waits[int(number)].say(float(at))


def api(url: str) -> None:
    """Verify what standard input names, until it is refused, and say when that was; and what stays, for ever."""
    verifier = Verifier.from_issuer(url, feed_token=sys.stdin.readline().strip())
    kept = [sys.stdin.readline().strip() for _ in range(KEPT)]
    watched: dict[str, Token] = {}
    ended = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            number, token = line.split()
            watched[number] = token
        ended.set()

    with verifier:
        print("ready", flush=True)
        threading.Thread(target=listen, daemon=True).start()
        while not ended.is_set():
            for number, token in list(watched.items()):
                try:
                    verifier.verify(token)
                except Revoked:
                    print(number, time.monotonic(), flush=True)
                    del watched[number]
            try:
                verifier.verify(kept[secrets.randbelow(KEPT)])
            except CoatcheckError as error:
                raise SystemExit(f"a token that is good was refused: {error!r}") from error
            time.sleep(0.0005)  # an API does other things as well


if __name__ == "__main__":
    if sys.argv[1:2] == ["api"]:
        api(sys.argv[2])
    else:
        main()
