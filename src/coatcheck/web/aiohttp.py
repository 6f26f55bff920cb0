"""aiohttp: `exchange(request)` is the request's Exchange, and `exchange(request).session` its session.

init_app(app, coatcheck)
...
await exchange(request).sign_in("ann")       a coroutine, as everything else that may do I/O
exchange(request).require(scopes=["notes"])  an error that a handler lets pass is answered: 401, 403, 409 or 503
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.payload import Payload
from yarl import URL

from coatcheck.compose import Coatcheck
from coatcheck.errors import CoatcheckError, ConfigurationError, CrossSite
from coatcheck.exchange import Exchange
from coatcheck.request_head import Headers, RequestHead
from coatcheck.standing import ExchangeStanding
from coatcheck.web.answer import SERVER_ERROR, PlainHTTP, answer, is_ours_to_answer
from coatcheck.web.exempt import csrf_exempt, exempt_paths, is_exempt
from coatcheck.web.open_connections import FAREWELL_SECONDS, OpenConnection, OpenConnections, close_code
from coatcheck.web.opening import open_for, open_with_application

__all__ = ["csrf_exempt", "exchange", "init_app"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("coatcheck")


def init_app(app: web.Application, coatcheck: Coatcheck, *, csrf_exempt: Collection[str] = ()) -> None:
    """Give an aiohttp application, and the applications within it, our sessions.

    The edits of a handler are saved before its response starts, and again at its end for what a streamed body changed;
    if the handler raises or answers 5xx, they are dropped. An error of coatcheck's that it lets pass becomes its
    answer, in JSON. WebSockets and streams are cut within a second after what they came with has ended.

    Args:
        app: the application. What a proxy has told is made the request's by a middleware that is added before this is
            called; all others are added afterwards.
        coatcheck: opened and closed with the application.
        csrf_exempt: paths at which other sites may send unsafe requests; the decorator `csrf_exempt` marks handlers.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path, or has the template of a route in it.
    """
    adapter = _Adapter(coatcheck, csrf_exempt)

    @web.middleware  # which cannot mark a method
    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await adapter.serve(request, handler)

    app.middlewares.append(serve)
    app.on_response_prepare.append(adapter.prepare)
    app.cleanup_ctx.append(adapter.live)


def exchange(request: web.BaseRequest) -> Exchange:
    """Return the Exchange of a request.

    Raises:
        ConfigurationError: `init_app` was not called, or after a middleware that asks was added.
    """
    carried: _Carried | None = request.get(_CARRIED)
    if carried is None:
        raise ConfigurationError("no exchange: call init_app(app, coatcheck), before middlewares that ask are added")
    return carried.exchange


class _Adapter:
    """What is done with the requests of one application."""

    def __init__(self, coatcheck: Coatcheck, csrf_exempt: Collection[str]) -> None:
        self._coatcheck = coatcheck
        # As the router compares them: "/hooks%2Fx", which is one segment to it, is not "/hooks/x".
        self._csrf_exempt = frozenset(URL.build(path=path).path_safe for path in exempt_paths(csrf_exempt))
        self._own = web.RequestKey("coatcheck", _Carried)  # an application within this one may have another
        self._plain_http = PlainHTTP()
        self._open_connections = OpenConnections(coatcheck.verifier)

    async def live(self, _app: web.Application) -> AsyncIterator[None]:
        """Open and close the coatcheck with the application."""
        await open_with_application(self._coatcheck)
        yield
        await self._coatcheck.close()

    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Be the application's middleware."""
        carried = _Carried()
        try:
            await self._begin(request, carried)
            try:
                response = await handler(request)
            except web.HTTPException as raised:
                await self._finish(carried, raised)
                raise
            await self._finish(carried, response)
        except CoatcheckError as error:
            if carried.started or not is_ours_to_answer(error):
                raise
            carried.dressed = True
            return _answered(error)
        return response

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Be told that a response is about to start: one that streams, or one that `serve` has seen already."""
        carried = request.get(self._own)
        if carried is None:
            return
        if not carried.dressed:
            response.cookies.clear()  # they are among its headers by now
            try:
                await self._dress(carried, response)
            except CoatcheckError:
                # How this one was to be written is not for the one that says why it was not, through the same writer.
                writer = cast("Any", request.writer)
                writer.chunked, writer.length, writer._compress = False, None, None  # noqa: SLF001 - no other way
                raise
        carried.started = True
        if not isinstance(response, web.Response) or isinstance(response.body, Payload):
            self._watch(carried, request, response)

    async def _begin(self, request: web.Request, carried: _Carried) -> None:
        head = _head(request)
        if not self._coatcheck.is_open:
            await open_for(head, self._coatcheck)
        found = await Exchange.begin(head, self._coatcheck.sessions, self._coatcheck.verifier)
        try:
            found.require_same_site()
        except CrossSite:
            if request.rel_url.path_safe not in self._csrf_exempt and not is_exempt(request.match_info.handler):
                raise
        carried.exchange = found
        request[_CARRIED] = request[self._own] = carried

    async def _finish(self, carried: _Carried, response: web.StreamResponse) -> None:
        if not carried.dressed:
            await self._dress(carried, response)
        elif not carried.failed and carried.is_open():
            await carried.exchange.finish()  # what a streamed body changed

    async def _dress(self, carried: _Carried, response: web.StreamResponse) -> None:
        found = carried.exchange
        carried.failed = response.status >= SERVER_ERROR
        if not carried.failed:
            await found.finish()
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        headers += [(b"Set-Cookie", morsel.OutputString().encode()) for morsel in response.cookies.values()]
        dressed = found.dress(headers)
        self._plain_http.notice(found.head, dressed)
        response.cookies.clear()
        response.headers.clear()
        response.headers.extend([(name.decode(), value.decode()) for name, value in dressed])
        carried.dressed = True

    def _watch(self, carried: _Carried, request: web.Request, response: web.StreamResponse) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        connection = carried.connection = _Connection(task, request, response)
        standing = ExchangeStanding(carried.exchange, self._coatcheck.sessions, self._coatcheck.verifier)
        self._open_connections.add(connection, standing)
        task.add_done_callback(lambda _: self._open_connections.discard(connection))


class _Carried:
    """A request's Exchange, and how far its response has come."""

    __slots__ = ("connection", "dressed", "exchange", "failed", "started")

    exchange: Exchange

    def __init__(self) -> None:
        self.dressed = self.failed = self.started = False
        self.connection: _Connection | None = None

    def is_open(self) -> bool:
        """Say whether the connection was not cut."""
        return self.connection is None or self.connection.error is None


class _Connection(OpenConnection):
    """A WebSocket or a stream."""

    def __init__(self, task: asyncio.Task[Any], request: web.Request, response: web.StreamResponse) -> None:
        self._task = task
        self._request = request
        self._response = response

    async def cut(self, error: CoatcheckError) -> None:
        """See OpenConnection; whoever writes is told by aiohttp that nobody is there any more."""
        self.error = error
        transport, response = self._request.transport, cast("Any", self._response)
        if isinstance(response, web.WebSocketResponse):
            try:
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await response.close(code=close_code(error), message=error.code.encode())
            except (TimeoutError, RuntimeError):
                _log.debug("a WebSocket that was cut could not be closed", exc_info=True)
        elif isinstance(response, web.FileResponse):
            self._task.cancel()  # nothing of the application's is in it, and asyncio's sendfile ends in no other way
        elif transport is not None:
            transport.abort()

    def end(self) -> None:
        """See OpenConnection."""
        self._task.cancel()


_CARRIED: Final = web.RequestKey("coatcheck", _Carried)


def _head(request: web.Request) -> RequestHead:
    headers: Headers = [(name.lower(), value) for name, value in request.raw_headers]
    websocket = request.headers.get("Upgrade", "").strip().lower() == "websocket"  # as aiohttp asks
    return RequestHead(
        method="CONNECT" if websocket else request.method,
        scheme=request.scheme,
        headers=headers,
        address=request.remote or "",
    )


def _answered(error: CoatcheckError) -> web.Response:
    said = answer(error)
    headers = [(name.decode(), value.decode()) for name, value in said.headers]
    return web.Response(status=said.status, headers=headers, body=said.body)
