"""The WSGI middleware (PEP 3333): `environ["coatcheck"]` is the request's Exchange.

WSGI has one value for each header: where a client sent two of a name, servers join them by a comma. What cannot be told
apart from two Authorization headers, or from a second Cookie header with one of our cookies in it, is refused, as two
are; browsers send one of each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Any

from coatcheck.compose import Coatcheck
from coatcheck.core.credentials import CookieNames
from coatcheck.errors import CoatcheckError, ConfigurationError, CrossSite
from coatcheck.exchange import Exchange
from coatcheck.request_head import Headers, RequestHead
from coatcheck.run import run
from coatcheck.web.answer import SERVER_ERROR, PlainHTTP, answer, is_ours_to_answer
from coatcheck.web.background import Background
from coatcheck.web.exempt import exempt_paths
from coatcheck.web.stream import Stream

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
"""Takes the status, the headers, and perhaps an `exc_info`."""
App = Callable[[Environ, StartResponse], Iterable[bytes]]

REFUSED = "coatcheck.refused"
"""In the environ: the application answers an error of ours itself, as the middleware would, and nothing is saved."""

# RFC 9110, 11.4: a scheme and its parameters. A value with a comma in it that is not of this form was two.
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(rf"{_WORD} +")
_PARAMETER = re.compile(rf'{_WORD}[ \t]*=[ \t]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[ \t]*|[^",]+)')
_COMMA = re.compile(r",[ \t]*")
_CREDENTIALS = (b"cookie", b"authorization")


class CoatcheckWSGI:
    """Gives every request of a WSGI application its Exchange.

    Handlers find it with `exchange(environ)`, and call its coroutines with `coatcheck.run.run`. The edits of a handler
    are saved before its response starts, and again at its end for what a streamed body changed; if the handler raises
    or answers 5xx, they are dropped.

    An error of coatcheck's that the application lets pass becomes its answer: 401, 403, 409 or 503, in JSON.

    A response in several parts is cut between two of them once what it came with has ended: see `coatcheck.web.stream`.

    Args:
        app: the application.
        coatcheck: opened at the first request of a process, in a thread of its own.
        csrf_exempt: paths (`PATH_INFO`) at which other sites may send unsafe requests, for webhooks and the like.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path, or has the template of a route in it.
    """

    def __init__(self, app: App, *, coatcheck: Coatcheck, csrf_exempt: Collection[str] = ()) -> None:
        self.app = app
        self.coatcheck = coatcheck
        self.csrf_exempt = exempt_paths(csrf_exempt)
        self.background = Background(coatcheck)
        self.plain_http = PlainHTTP()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        response = _Response(environ, start_response, self)
        try:
            response.exchange = self.begin(environ)
            return response.of(self.app(environ, response.start_response))
        except CoatcheckError as error:
            return response.refused(error)

    def begin(self, environ: Environ) -> Exchange:
        """Put the request's Exchange into its environ, and return it.

        Raises:
            CrossSite: another site sent it.
            StoreUnavailable: it cannot be told whether its session is alive.
        """
        head = request_head(environ, self.coatcheck.policy.cookie_names)
        if not self.coatcheck.is_open:
            self.background.open_for(head)
        found = run(Exchange.begin(head, self.coatcheck.sessions, self.coatcheck.verifier))
        try:
            found.require_same_site()
        except CrossSite:
            if not self.exempts(environ):
                raise
        environ["coatcheck"] = found
        return found

    def exempts(self, environ: Environ) -> bool:
        """Say whether other sites may send this request; an adapter whose routes can be marked asks those, too."""
        path: str = environ.get("PATH_INFO", "")
        return _octets(path).decode("utf-8", "replace") in self.csrf_exempt


class _Response:
    """What is between application and server: it lets nothing leave before the session is saved.

    It is the server's iterable, and the application's `start_response`, which is held back until there is something
    to send: until then the application may take it back (with an `exc_info`), and an error of ours may answer.
    """

    __slots__ = (
        "_body", "_chunks", "_environ", "_failed", "_head", "_middleware", "_server", "_started", "_stream", "_write",
        "exchange",
    )  # fmt: skip

    exchange: Exchange  # not that of the environ, which an application within the application may have replaced

    def __init__(self, environ: Environ, server: StartResponse, middleware: CoatcheckWSGI) -> None:
        self._environ = environ
        self._server = server
        self._middleware = middleware
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._started = self._failed = False
        self._write: Write | None = None  # the server's
        self._stream: Stream | None = None
        self._body: object = None
        self._chunks: Iterator[bytes] = iter(())

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Write:
        """Be the application's `start_response`."""
        if self._started:
            return self._server(status, headers, exc_info)  # which raises: it is too late
        self._head = (status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Be what `start_response` returns."""
        if self._started:
            self._judge()
        self._start()
        if self._write is not None:
            self._write(data)

    def of(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body for the server, which begins the response when it asks for the first of it."""
        self._body, self._chunks = body, iter(body)
        return self

    def refused(self, error: CoatcheckError) -> Iterable[bytes]:
        """Answer with an error, as the body for the server.

        Raises:
            CoatcheckError: the response has started, or the error is about the program.
        """
        if self._started or not is_ours_to_answer(error):
            raise error
        said = answer(error)
        self._started = self._failed = True
        self._server(f"{said.status} {HTTPStatus(said.status).phrase}", native(said.headers))
        self._chunks = iter((said.body,))
        return self

    def __iter__(self) -> _Response:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks, None)
            if not self._started:
                while chunk == b"":  # nothing leaves before there is something
                    chunk = next(self._chunks, None)
                self._start()
            elif chunk is not None or self._stream is not None:  # not even its end leaves, once it is cut
                self._judge()
            if chunk is None:
                self._end()
        except CoatcheckError as error:
            self.refused(error)
            return next(self._chunks)
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Let the application clean up."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()

    def _start(self) -> None:
        if self._started:
            return
        if self._head is None:
            raise ConfigurationError("the application has a body, but did not call start_response")
        status, headers = self._head
        refused = REFUSED in self._environ
        self._failed = refused or int(status[:3]) >= SERVER_ERROR
        if not refused:
            headers = self._dressed(headers)
        self._started = True
        self._write = self._server(status, headers)

    def _judge(self) -> None:
        """Cut a response that has begun if what it was let in by has ended; what says that it failed is let be."""
        if self._failed:
            return
        if self._stream is None:
            self._stream = Stream(self.exchange, self._middleware.coatcheck)
        run(self._stream.judge())

    def _dressed(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        found = self.exchange
        if not self._failed:
            run(found.finish())
        dressed = found.dress([(_octets(name), _octets(value)) for name, value in headers])
        self._middleware.plain_http.notice(found.head, dressed)
        return native(dressed)

    def _end(self) -> None:
        """Save what a streamed body changed."""
        if not self._failed and self.exchange.session.is_edited():
            run(self.exchange.finish())


def exchange(environ: Environ) -> Exchange:
    """Return the Exchange of a request.

    Raises:
        ConfigurationError: the middleware is not installed, or is further inside than what asks.
    """
    found: Exchange | None = environ.get("coatcheck")
    if found is None:
        raise ConfigurationError(
            "no exchange: coatcheck is not installed (CoatcheckWSGI; in Flask init_app), or further inside than what "
            "asks for it"
        )
    return found


class EnvironHead(RequestHead, frozen=True, kw_only=True):
    """What an Exchange needs of a request that came by WSGI.

    Args:
        headers: those that hold credentials; the others are made of the environ when somebody asks for them.
        environ: a copy; the original leads to the Exchange, and through it back to this.
    """

    environ: Environ

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of a header."""
        if name in _CREDENTIALS:
            return RequestHead.values(self, name)
        value = self.environ.get(_key(name))
        return [] if value is None else [_octets(value)]


def request_head(environ: Environ, names: CookieNames) -> EnvironHead:
    """Return what an Exchange needs of a request.

    Args:
        environ: as WSGI has it, or Django's `request.META`.
        names: the names of our cookies.
    """
    headers: Headers = []
    if (authorization := environ.get("HTTP_AUTHORIZATION")) is not None:
        headers.append((b"authorization", _octets(authorization)))
        if "," in authorization:
            headers += _second_authorization(authorization)
    if (cookie := environ.get("HTTP_COOKIE")) is not None:
        headers.append((b"cookie", _octets(cookie)))
        if "," in cookie:
            headers += _second_cookies(cookie, names)
    websocket = environ.get("HTTP_UPGRADE", "").strip().lower() == "websocket"
    return EnvironHead(
        method="CONNECT" if websocket else environ["REQUEST_METHOD"],
        scheme=environ["wsgi.url_scheme"],
        headers=headers,
        address=environ.get("REMOTE_ADDR") or "",
        environ=environ.copy(),
    )


@lru_cache(256)
def _key(header: bytes) -> str:
    return "HTTP_" + header.decode("latin-1").upper().replace("-", "_")


def _octets(text: str) -> bytes:
    # A server sends nothing else than latin-1 (PEP 3333); a test client may.
    return text.encode("latin-1", "replace")


def _second_authorization(joined: str) -> Headers:
    """Return a header that makes it two, unless the value is of one."""
    return [] if _is_one_authorization(joined) else [(b"authorization", b"")]


def _is_one_authorization(text: str) -> bool:
    # Step by step: a single pattern would have to be possessive, and those of Python 3.11.2 match what they should not.
    found = _SCHEME.match(text)
    while found is not None:
        found = _PARAMETER.match(text, found.end())
        if found is None or found.end() == len(text):
            break
        found = _COMMA.match(text, found.end())
    return found is not None


def _second_cookies(joined: str, names: CookieNames) -> Headers:
    """Return a cookie that cannot be read for each of ours that may stand at the beginning of a second header."""
    pairs = {pair.partition("=")[0].strip(" \t") for pair in joined.split(",")[1:]}
    ours = (names.session, *names.more, names.seen, names.access, names.refresh)
    return [(b"cookie", name + b"=") for name in ours if name.decode("ascii") in pairs]


def native(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as WSGI has them: octets as text (PEP 3333)."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
