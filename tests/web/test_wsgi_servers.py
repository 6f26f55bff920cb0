"""The WSGI middleware on real servers: two processes of gunicorn, and the threads of Werkzeug's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import watchdog
import wsgi_server
from wire import HOST, Header, Reply, Wire

pytestmark = pytest.mark.anyio

TRIES = 400
PATIENCE = 30  # seconds
TICK = b"4\r\ntick\r\n"


@pytest.fixture
def wire(server: str, tmp_path: Path) -> Iterator[Wire]:
    command = [sys.executable, wsgi_server.__file__, server, str(tmp_path / "s.sqlite")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    watchdog.watch(process.pid)
    assert process.stdout is not None
    yield Wire(int(process.stdout.readline()))
    process.terminate()
    process.wait(30)
    watchdog.forget(process.pid)
    process.stdout.close()


@pytest.mark.parametrize("server", ["gunicorn"])
async def test_p1_signed_out_in_one_process_is_refused_in_the_other(wire: Wire) -> None:
    """P1, P5: by the cookie at once, and by the token as soon as the feed is heard, in processes that were forked."""
    token = words(await wire("POST", "/sign-in"))[1]
    bearer, cookies = [(b"authorization", b"Bearer " + token.encode())], cookie_of(wire)
    assert len(await told(wire, bearer, "ann")) == len(await told(wire, cookies, "ann")) == 2
    assert words(await wire("POST", "/sign-out"))[1] == "True"
    for _ in range(20):
        assert words(await wire.send("GET", "/me", cookies))[1] == "nobody"
    assert len(await told(wire, bearer, "nobody")) == 2


@pytest.mark.parametrize("server", ["gunicorn", "werkzeug"])
async def test_c13_two_headers_over_the_wire_make_nobody_anybody(wire: Wire) -> None:
    """What the server makes of them is its own; what it is here was seen with these two."""
    token = words(await wire("POST", "/sign-in"))[1].encode()
    [cookie], bearer = cookie_of(wire), (b"authorization", b"Bearer " + token)
    basic, other = (b"authorization", b"Basic YTpi"), (b"cookie", b"a=1")
    for one in ([cookie], [bearer], [basic, cookie]):
        assert words(await wire.send("GET", "/me", one))[1] == "ann"
    for two in (
        [cookie, cookie],
        [other, cookie],
        [cookie, other],
        [bearer, bearer],
        [basic, bearer, cookie],
        [bearer, basic, cookie],
        [basic, basic, cookie],
    ):
        assert words(await wire.send("GET", "/me", two))[1] == "nobody", two


@pytest.mark.parametrize("server", ["gunicorn", "werkzeug"])
async def test_f11_a_stream_is_cut_after_a_sign_out_in_whichever_process(wire: Wire) -> None:
    """Its connection is closed without HTTP's last chunk, so nobody takes a part for the whole."""
    await wire("POST", "/sign-in")
    [(name, cookie)] = cookie_of(wire)
    reader, writer = await asyncio.open_connection(HOST, wire.port)
    async with asyncio.timeout(PATIENCE):
        writer.write(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n%b: %b\r\n\r\n" % (name, cookie))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        for _ in range(2):
            await reader.readuntil(TICK)
        assert words(await wire("POST", "/sign-out"))[1] == "True"
        rest = await reader.read()
    writer.close()
    assert rest == TICK * (len(rest) // len(TICK))


def words(reply: Reply) -> list[str]:
    assert reply.status == 200, reply
    return reply.body.decode().split(" ")


def cookie_of(wire: Wire) -> list[Header]:
    return [(b"cookie", f"__Host-session={wire.jar['__Host-session']}".encode())]


async def told(wire: Wire, headers: list[Header], answer: str) -> set[str]:
    """Ask until both processes have given an answer, and return which have."""
    processes: set[str] = set()
    for _ in range(TRIES):
        process, subject = words(await wire.send("GET", "/me", headers))
        if subject == answer:
            processes.add(process)
        if len(processes) == 2:
            break
    return processes
