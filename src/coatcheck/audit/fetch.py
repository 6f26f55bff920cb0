"""One request and its answer, by the standard library: bounded in time and size, to one origin, nothing followed."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from coatcheck.audit.target import Origin
from coatcheck.errors import CoatcheckError

MAX_REQUESTS: Final = 120
REQUEST_SECONDS: Final = 10.0
TOTAL_SECONDS: Final = 180.0
MAX_BODY: Final = 512 * 1024  # octets that are read; what comes after is not looked at

_PARAMETERS: Final = re.compile("[?;]")


class NotLooked(CoatcheckError):
    """The application did not answer, or did not let us sign in: nothing can be said about it."""

    # What the command line's exit code 3 goes by.
    status = 503
    code = "not_looked"


@dataclass(frozen=True)
class Answer:
    """A response, and the request that it answers. Headers are text, each octet a character."""

    origin: Origin
    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: str = field(repr=False)

    @property
    def to(self) -> str:
        """What was asked, in words: without query and parameters, which may hold what nobody should see."""
        return _words_for(self.method, self.path)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_html(self) -> bool:
        """Whether a browser shows it as a page, scripts and all."""
        kind = (self.first("content-type") or "").partition(";")[0].strip().lower()
        return kind in {"text/html", "application/xhtml+xml"}

    def every(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        return [value for each, value in self.headers if each == name]

    def first(self, name: str) -> str | None:
        """Return a header's value, several joined by a comma; None if it is not there."""
        found = self.every(name)
        return ", ".join(found) if found else None

    def words_of(self, name: str) -> set[str]:
        """Return the members of a list header, in lower case."""
        return {word.strip().lower() for value in self.every(name) for word in value.split(",") if word.strip()}


class _Request(NamedTuple):
    origin: Origin
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Sends requests to one origin, one connection each, and remembers every answer.

    Certificates are verified against those that the machine trusts; the environment's SSL_CERT_FILE adds to them.

    Args:
        origin: the only host that is ever spoken to.
        most: requests, all in all.
        seconds: that they may take, all in all.
    """

    def __init__(self, origin: Origin, *, most: int = MAX_REQUESTS, seconds: float = TOTAL_SECONDS) -> None:
        self.origin = origin
        self.answers: list[Answer] = []
        self.requests = 0
        self._most = most
        self._ends = time.monotonic() + seconds

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, origin: Origin | None = None
    ) -> Answer:
        """Send a request and return its answer.

        Args:
            method, path: of the request line.
            headers: besides Host, Content-Length and Connection. Each character is an octet.
            body: of the request.
            origin: the same host under another scheme or port.

        Raises:
            NotLooked: there is no answer, or no request or time left.
        """
        left = self._ends - time.monotonic()
        if self.requests >= self._most or left <= 0:
            raise NotLooked(f"the audit ends after {self.requests} requests: the limit of requests or time is reached")
        self.requests += 1
        where = origin or self.origin
        try:
            answer = self._ask(_Request(where, method, path, headers, body), min(REQUEST_SECONDS, left))
        except ssl.SSLCertVerificationError as error:
            words = (
                f"the certificate of {where} is not trusted here ({error.verify_message}); SSL_CERT_FILE may name it"
            )
            raise NotLooked(words) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise NotLooked(f"{where} did not answer {_words_for(method, path)}: {reason}") from None
        self.answers.append(answer)
        return answer

    def _ask(self, request: _Request, seconds: float) -> Answer:
        connection = self._connection(request.origin, seconds)
        try:
            connection.connect()
            with _at_most(seconds, connection.sock):
                return _speak(connection, request)
        finally:
            connection.close()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _connection(self, origin: Origin, seconds: float) -> http.client.HTTPConnection:
        if origin.is_https:
            return http.client.HTTPSConnection(origin.host, origin.port, timeout=seconds, context=self._tls)
        return http.client.HTTPConnection(origin.host, origin.port, timeout=seconds)


def _words_for(method: str, path: str) -> str:
    return f"{method} {_PARAMETERS.split(path, maxsplit=1)[0]}"


def _speak(connection: http.client.HTTPConnection, request: _Request) -> Answer:
    connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    own = {"Host": request.origin.authority, "Connection": "close", "Accept-Encoding": "identity"}
    if request.body or request.method == "POST":
        own["Content-Length"] = str(len(request.body))
    for name, value in {**own, **request.headers}.items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders(request.body or None)
    response = connection.getresponse()
    found = tuple((name.lower(), value) for name, value in response.getheaders())
    text = response.read(MAX_BODY).decode("utf-8", "replace")
    return Answer(request.origin, request.method, request.path, response.status, found, text)


@contextlib.contextmanager
def _at_most(seconds: float, connected: socket.socket) -> Generator[None]:
    """End a conversation that drips in: the time limit of a socket is one for each packet.

    Raises:
        TimeoutError: it took longer. What was understood so far is no answer.
    """
    over = threading.Event()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError(f"it took more than {seconds:.0f} s")
