"""FaultProxy does what each of its verbs says, to the connections that are open and to new ones, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coatcheck.errors import InvalidValue
from coatcheck.testing import FaultProxy

LONG = 10.0  # seconds in which what must come has come


class Echo(socketserver.BaseRequestHandler):
    """Says everything again, and counts what it heard."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, EchoServer)
        try:
            while heard := self.request.recv(65536):
                server.heard += len(heard)
                self.request.sendall(heard)
            server.ends.append("end")
        except ConnectionResetError:
            server.ends.append("reset")


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard = 0
        self.ends: list[str] = []


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), LONG))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


Connect = Callable[[], socket.socket]


def exactly(client: socket.socket, count: int) -> bytes:
    heard = b""
    while len(heard) < count:
        more = client.recv(count - len(heard))
        assert more, "the connection has ended"
        heard += more
    return heard


def answer(client: socket.socket, words: bytes = b"hello") -> bytes:
    client.sendall(words)
    return exactly(client, len(words))


def silent(client: socket.socket, seconds: float = 0.05) -> bool:
    """Say whether nothing came in a while: a shorter while would see less, never more."""
    client.settimeout(seconds)
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LONG)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_everything_passes_unchanged_in_both_directions(connect: Connect) -> None:
    words = os.urandom(3_000_000)
    client = connect()
    sender = threading.Thread(target=client.sendall, args=(words,))
    sender.start()
    assert exactly(client, len(words)) == words
    sender.join()


def test_the_end_of_one_direction_is_passed_on_alone(connect: Connect, echo: EchoServer, proxy: FaultProxy) -> None:
    client = connect()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert exactly(client, 10) == b"last words"
    assert client.recv(1) == b""
    until(lambda: proxy.connections == 0)
    assert echo.ends == ["end"]


def test_delay_is_latency_and_no_limit_of_throughput(connect: Connect, proxy: FaultProxy) -> None:
    """50 messages in a row arrive about one latency each way after they were sent, not 50."""
    client = connect()
    assert answer(client) == b"hello"
    proxy.delay(0.1)
    began = time.monotonic()
    for number in range(50):
        client.sendall(b"%02d" % number)
        time.sleep(0.001)
    assert exactly(client, 100) == b"".join(b"%02d" % number for number in range(50))
    assert 0.2 <= time.monotonic() - began < 2.5


def test_what_is_delayed_goes_at_once_when_it_heals(connect: Connect, proxy: FaultProxy) -> None:
    client = connect()
    proxy.delay(1000)
    client.sendall(b"hello")
    assert silent(client)
    proxy.heal()
    assert exactly(client, 5) == b"hello"


def test_hold_stops_both_directions_of_old_and_new_connections(
    connect: Connect, proxy: FaultProxy, echo: EchoServer
) -> None:
    old = connect()
    assert answer(old) == b"hello"
    proxy.hold()
    new = connect()
    for client in (old, new):
        client.sendall(b"held")
        assert silent(client)
    assert echo.heard == 5
    proxy.heal()
    for client in (old, new):
        assert exactly(client, 4) == b"held"


def test_hold_replies_lets_requests_pass(connect: Connect, proxy: FaultProxy, echo: EchoServer) -> None:
    client = connect()
    proxy.hold_replies()
    client.sendall(b"hello")
    until(lambda: echo.heard == 5)
    assert silent(client)
    proxy.heal()
    assert exactly(client, 5) == b"hello"


def test_drip_gives_small_pieces_and_heal_the_rest(connect: Connect, proxy: FaultProxy) -> None:
    client = connect()
    proxy.drip(100)
    client.sendall(b"a" * 5000)
    pieces = [client.recv(65536) for _ in range(5)]
    assert max(map(len, pieces)) < 50
    proxy.heal()
    exactly(client, 5000 - sum(map(len, pieces)))


def test_drip_of_nothing_is_refused(proxy: FaultProxy) -> None:
    with pytest.raises(InvalidValue, match="hold"):
        proxy.drip(0)


def test_reset_is_a_reset_at_both_ends_and_only_for_those_that_are_there(
    connect: Connect, proxy: FaultProxy, echo: EchoServer
) -> None:
    there = [connect() for _ in range(3)]
    for client in there:
        assert answer(client) == b"hello"
    proxy.reset()
    assert proxy.connections == 0
    for client in there:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    until(lambda: echo.ends == ["reset"] * 3)
    assert answer(connect()) == b"hello"


def test_cut_closes_and_refuses_and_the_port_stays_the_same(connect: Connect, proxy: FaultProxy) -> None:
    there, port = connect(), proxy.port
    assert answer(there) == b"hello"
    proxy.cut()
    assert there.recv(1) == b""
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            connect()
        proxy.cut()
    proxy.heal()
    assert proxy.port == port
    assert answer(connect()) == b"hello"


def test_faults_end_with_heal_though_they_add_up(connect: Connect, proxy: FaultProxy) -> None:
    client = connect()
    proxy.delay(0.01)
    proxy.drip(1000)
    proxy.hold()
    client.sendall(b"hello")
    assert silent(client)
    proxy.reset()
    proxy.heal()
    assert answer(connect(), b"x" * 100_000) == b"x" * 100_000


def test_a_client_that_resets_resets_the_server(connect: Connect, proxy: FaultProxy, echo: EchoServer) -> None:
    client = connect()
    assert answer(client) == b"hello"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    until(lambda: echo.ends == ["reset"])
    until(lambda: proxy.connections == 0)


def test_where_no_server_is_clients_are_reset(free_port: int) -> None:
    with FaultProxy("127.0.0.1", free_port) as proxy:
        # Perhaps so soon that it is noticed while connecting.
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", proxy.port), LONG) as one:
            one.recv(1)
        until(lambda: proxy.connections == 0)


def test_what_waits_in_the_proxy_is_bounded(connect: Connect, proxy: FaultProxy) -> None:
    """Who sends without end to a server that is not heard waits, as with a server that does not read."""
    proxy.hold()
    client = connect()
    client.settimeout(0.2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 100_000_000:
            sent += client.send(bytes(65536))
    assert sent < 100_000_000
    client.settimeout(LONG)
    proxy.heal()
    exactly(client, sent)


def left() -> tuple[int, int]:
    return len(list(Path("/dev/fd").iterdir())), threading.active_count()


def test_nothing_is_left_at_the_end(echo: EchoServer) -> None:
    """Neither a descriptor nor a thread, whatever was under way."""
    clients: list[socket.socket] = []
    faults: list[Callable[[FaultProxy], None]] = [FaultProxy.hold, lambda it: it.delay(1000), lambda it: it.drip(1)]
    before = left()
    for spoil in faults:
        with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy:
            mine = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]
            clients.extend(mine)
            assert [answer(client) for client in mine] == [b"hello"] * 5
            spoil(proxy)
            for client in mine:
                client.sendall(b"a" * 1000)
    for client in clients:
        client.close()
    until(lambda: left() == before)


@pytest.mark.anyio
async def test_it_works_in_an_event_loop(echo: EchoServer) -> None:
    async with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.cut()
        assert await reader.read() == b""
        writer.close()


def test_clients_of_another_process_are_served(proxy: FaultProxy) -> None:
    program = (
        "import socket, sys\n"
        "client = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)\n"
        "client.sendall(b'hello')\n"
        "print(client.recv(5, socket.MSG_WAITALL).decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(proxy.port)], check=True, capture_output=True, text=True)
    assert done.stdout == "hello\n"
