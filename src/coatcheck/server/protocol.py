"""Protocol: uvicorn's HTTP protocol, with an end to request heads that are slow or large, and to slow readers.

uvicorn alone waits for the rest of a request head for ever, so that 2000 half-sent requests hold 2000 descriptors
until somebody restarts it (slowloris); and for ever until its answers are read. It keeps whatever requests come in one
piece: 14 000 of 18 octets, on each of 40 connections, took 1.2 GB and held up the loop for 13 s.

    a head is not complete after 10 s       the connection is closed
    a head has more than 32 KiB             431, and the connection is closed
    a body ends with trailer fields         they are dropped
    an answer is not read for 30 s          the connection is closed
    more than 16 requests wait in line      the connection is closed
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS: Final = 10.0
MAX_HEAD: Final = 32 * 1024  # octets
READ_SECONDS: Final = 30.0
MAX_WAITING: Final = 16  # requests

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 44\r\nconnection: close\r\n\r\n"
    b"a request's head has at most 32 KiB (431).\r\n"
)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. From its first octet on, a request head has ten seconds; so has a new connection.

    The parser's callbacks say where a head begins and ends; between two requests uvicorn's own keep-alive limit
    (5 s) counts, until the first octet of the next.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_size = 0
        self._unread = 0
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        # Writing is then paused whenever anything is left to be read, and resumed when nothing is.
        transport.set_write_buffer_limits(high=0)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._head_is_here()
        self._is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take octets in; whoever has sent too many that are still no head is cut off."""
        # The parser hands out whole header fields only: one that never ends is counted here.
        self._unread += len(data) if self._in_head else 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._unread > MAX_HEAD:
            self._refuse_head()
        elif self.timeout_keep_alive_task is None and not self.is_answering():
            # Empty lines before a head end the keep-alive limit, and begin nothing.
            self._expect_head()

    def pause_writing(self) -> None:
        """An answer waits to be read."""
        if self._reading is None:
            self._reading = self.loop.call_later(READ_SECONDS, self._give_up)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Everything has been read."""
        self._is_read()
        super().resume_writing()

    def is_answering(self) -> bool:
        """Say whether a request of this connection is being answered."""
        # uvicorn declares a cycle, and begins with None.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target in."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field in; a trailer is counted and dropped.

        uvicorn would add it to the head (RFC 9110, 6.5.1 forbids it): a client could send the fields that a proxy
        in front of us removes or overwrites, X-Forwarded-For among them.
        """
        self._count(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A head begins."""
        if len(self.pipeline) >= MAX_WAITING:
            self.transport.abort()
            # The parser ends with it, and looks at nothing else that came in the same piece.
            raise ValueError("too many requests wait in line")
        self._expect_head()
        self._head_size = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._head_is_here()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read; what is too large has a status of its own."""
        if self._head_size > MAX_HEAD:
            self._refuse_head()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _count(self, octets: int) -> None:
        self._head_size += octets
        if self._head_size > MAX_HEAD:
            # The parser ends with it, and uvicorn then answers by `send_400_response`.
            raise ValueError("the request's head is too large")

    def _refuse_head(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _expect_head(self) -> None:
        self._in_head = True
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_is_here(self) -> None:
        self._in_head = False
        self._unread = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_read(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _give_up(self) -> None:
        # Also if it is closing: that waits until everything has been read.
        self.transport.abort()
