"""A load generator: keeps a connection for each user busy, in a process of its own.

It reads a line of JSON for each turn, `{"port", "requests", "seconds"}`, with the text of one request for each
connection; it answers with the number of answers, and the seconds that they took. An answer that is not 200 ends it.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Self

_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_GRACE: Final = 30.0


class _User:
    """A connection, which has always one request on its way."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = request
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_GRACE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heard = b""
        self.number = self._socket.fileno()

    def ask(self) -> None:
        self._socket.sendall(self._request)

    def hear(self) -> bool:
        """Take in what has come, and say whether an answer is complete."""
        heard = self._socket.recv(65_536)
        if not heard:
            raise SystemExit("the server has closed a connection")
        self._heard = heard = self._heard + heard
        end = heard.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not heard.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"the server has answered {heard[:60]!r}")
        length = _LENGTH.search(heard, 0, end + 2)
        if length is None:
            raise SystemExit("an answer does not say how long it is")
        if len(heard) < end + 4 + int(length[1]):
            return False
        self._heard = b""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def turn(port: int, requests: Sequence[bytes], seconds: float) -> tuple[int, float]:
    """Return how many answers came, and in how many seconds."""
    with ExitStack() as stack:
        users = {user.number: user for user in (stack.enter_context(_User(port, text)) for text in requests)}
        poll, answers = stack.enter_context(select.epoll()), 0
        for number in users:
            poll.register(number, select.EPOLLIN)
        began = time.perf_counter()
        for user in users.values():
            user.ask()
        while (taken := time.perf_counter() - began) < seconds:
            # It never sleeps: to wake it costs the server several microseconds, and only one that is slow would pay.
            for number, _ in poll.poll(0):
                user = users[number]
                if user.hear():
                    answers += 1
                    user.ask()
        return answers, taken


def main() -> None:
    """Take turns until standard input ends."""
    for line in sys.stdin:
        told = json.loads(line)
        print(json.dumps(turn(told["port"], [text.encode() for text in told["requests"]], told["seconds"])), flush=True)


if __name__ == "__main__":
    main()
