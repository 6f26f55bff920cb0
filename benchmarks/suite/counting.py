"""A proxy that counts what goes through it: round trips and bytes."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit


@dataclass
class Count:
    """How often clients have spoken after they were spoken to, and how many bytes they sent and received."""

    trips: int = 0
    sent: int = 0
    received: int = 0

    def reset(self) -> None:
        """Begin anew."""
        self.trips = self.sent = self.received = 0


@contextmanager
def counted(url: str, count: Count) -> Iterator[str]:
    """Give a URL that leads to the same server through a proxy of our own."""
    parts = urlsplit(url)
    assert parts.hostname is not None  # noqa: S101 (URLs of ours have both)
    assert parts.port is not None  # noqa: S101
    listener = socket.create_server(("127.0.0.1", 0))
    place = parts.netloc.replace(f":{parts.port}", f":{listener.getsockname()[1]}")
    proxy = _Proxy(listener, (parts.hostname, parts.port), count)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield urlunsplit(parts._replace(netloc=place))
    finally:
        proxy.stop()
        thread.join()


class _Proxy:
    def __init__(self, listener: socket.socket, server: tuple[str, int], count: Count) -> None:
        self._listener, self._server, self._count = listener, server, count
        self._waker, self._wakened = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: dict[socket.socket, bool] = {}  # whether each has been spoken to since it last spoke

    def stop(self) -> None:
        self._waker.send(b"x")

    def run(self) -> None:
        for watched in (self._listener, self._wakened):
            self._selector.register(watched, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                source = key.fileobj
                if source is self._wakened:
                    self._close()
                    return
                if source is self._listener:
                    self._accept()
                elif source in self._pairs:
                    self._pass_on(source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)
        self._clients[client] = True

    def _pass_on(self, source: socket.socket) -> None:
        target = self._pairs[source]
        try:
            data = source.recv(65_536)
            if data:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(source, target)
        elif source in self._clients:
            self._count.trips += self._clients[source]
            self._count.sent += len(data)
            self._clients[source] = False
        else:
            self._count.received += len(data)
            self._clients[target] = True

    def _drop(self, *ends: socket.socket) -> None:
        for end in ends:
            self._selector.unregister(end)
            self._pairs.pop(end)
            self._clients.pop(end, None)
            end.close()

    def _close(self) -> None:
        self._selector.close()
        for end in (*self._pairs, self._listener, self._waker, self._wakened):
            end.close()
