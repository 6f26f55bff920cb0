"""The application: guard, then sessions, then pages and API.

    Guard( by path:   /livez, /readyz, /openapi.json, /.well-known/jwks.json, /static/,
                      /compare/check                                                     -> Starlette
                      /ssf/..., if there are receivers; /status-lists/, if there are any -> Starlette
                      /feed, /feed/snapshot, if there is a feed token                    -> FeedEndpoint
                      everything else -> errors as pages( sessions and CSRF( alarm( Starlette ) ) ) )

What needs no credential goes past the sessions: it answers whatever the store does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from coatcheck import Exchange
from coatcheck.core import challenge
from coatcheck.errors import CoatcheckError, CredentialError
from coatcheck.server import api, feed_endpoint, pages
from coatcheck.server.attempts import Alarm
from coatcheck.server.compare_page import CHECK, ComparePage
from coatcheck.server.feed_endpoint import FeedEndpoint
from coatcheck.server.guard import Guard
from coatcheck.server.messages import Problem
from coatcheck.server.server import Server
from coatcheck.server.ssf_endpoint import CONFIGURATION, SsfEndpoint
from coatcheck.server.status_endpoint import StatusEndpoint
from coatcheck.server.status_lists import PATH as STATUS_LISTS
from coatcheck.web.asgi import App, CoatcheckMiddleware, Message, Receive, Scope, Send

_log = logging.getLogger("coatcheck.server")

_OPEN: Final = frozenset({CHECK, CONFIGURATION, *(route.path for route in api.open_routes if isinstance(route, Route))})
_OPEN_FOLDERS: Final = ("/static/", "/ssf/", STATUS_LISTS)
_FOR_PROGRAMS: Final = ("/api/", "/ssf/", STATUS_LISTS)
_CODES: Final[Mapping[int, str]] = {404: "not_found", 405: "method_not_allowed"}
# What an error's answer keeps when it becomes a page.
_KEPT: Final = frozenset({b"vary", b"cache-control", b"retry-after", b"www-authenticate"})


def create_app(server: Server) -> App:
    """Return the ASGI application of a server, which its caller opens and closes."""
    routes = [*api.routes, *api.open_routes, *pages.routes, *ComparePage(server).routes]
    if server.settings.receivers:
        routes += SsfEndpoint(server).routes
    if server.status_lists is not None:
        routes += StatusEndpoint(server.status_lists).routes
    starlette = Starlette(routes=routes, exception_handlers=_HANDLERS)
    # "/account/" is nothing here. Starlette's redirect would name the Host header's origin, under the scheme that the
    # proxy speaks (F12, S18), and have a password sent there once more.
    starlette.router.redirect_slashes = False
    starlette.state.server = server
    alarmed = _Alarmed(starlette, server.alarm)
    with_sessions = _ErrorPages(CoatcheckMiddleware(alarmed, coatcheck=server.coat), starlette)
    tokens = server.settings.feed_tokens
    raw: Mapping[str, App] = dict.fromkeys(feed_endpoint.PATHS, FeedEndpoint(server.feed_hub, tokens)) if tokens else {}

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if server.settings.secure:
            # Whatever the proxy speaks to us: a page of http://our-host is another site's (F2).
            scope = {**scope, "scheme": "https"}
        needs_none = path in _OPEN or path.startswith(_OPEN_FOLDERS)
        await raw.get(path, starlette if needs_none else with_sessions)(scope, receive, send)

    def page(scope: Scope, status: int) -> App | None:
        return None if _is_api(scope["path"]) else pages.error_page(Request({**scope, "app": starlette}), status)

    return Guard(by_path, secure=server.settings.secure, page=page)


class _Alarmed:
    """Counts refused credentials for the alarm (S23)."""

    def __init__(self, app: App, alarm: Alarm) -> None:
        self.app = app
        self._alarm = alarm

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found: Exchange = scope["coatcheck"]
        self._alarm.note(found.refusal, found.head.address)
        await self.app(scope, receive, send)


class _ErrorPages:
    """Turns the errors that the middleware answers in JSON into pages, where a person is looking."""

    def __init__(self, app: App, starlette: Starlette) -> None:
        self.app = app
        self._starlette = starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_api(scope["path"]):
            await self.app(scope, receive, send)
            return
        replaced = False

        async def send_page(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and _is_json_error(message):
                replaced = True
                request = Request({**scope, "app": self._starlette})
                page = pages.error_page(request, message["status"])
                page.raw_headers += [header for header in message["headers"] if header[0] in _KEPT]
                await page(scope, receive, send)
            elif not replaced:
                await send(message)

        await self.app(scope, receive, send_page)


def _is_api(path: str) -> bool:
    return path.startswith(_FOR_PROGRAMS) or path in _OPEN or path in feed_endpoint.PATHS


def _is_json_error(message: Message) -> bool:
    return message["status"] >= 400 and (b"content-type", b"application/json") in message["headers"]


def _on_our_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, CoatcheckError) or challenge.status(error) == 500:
        raise error
    current: Exchange | None = request.scope.get("coatcheck")
    if current is not None and isinstance(error, CredentialError) and error is not current.refusal:
        api.server_of(request).alarm.note(error, current.head.address)
    refused = api.refusal(error)
    if _is_api(request.url.path):
        return refused
    page = pages.error_page(request, refused.status_code)
    page.raw_headers += [header for header in refused.raw_headers if header[0] in _KEPT]
    return page


def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if _is_api(request.url.path):
        code = _CODES.get(error.status_code, "bad_request")
        problem = Problem("invalid_request", code, str(error.detail))
        response = Response(msgspec.json.encode(problem), error.status_code, media_type="application/json")
    else:
        response = pages.error_page(request, error.status_code)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _on_defect(request: Request, _: Exception) -> Response:
    # Starlette raises the exception again after this answer, and uvicorn logs it.
    if _is_api(request.url.path):
        problem = Problem("server_error", "error", "something broke on our side")
        return Response(msgspec.json.encode(problem), 500, media_type="application/json")
    return pages.error_page(request, 500)


_HANDLERS: Final[Mapping[int | type[Exception], ExceptionHandler]] = {
    CoatcheckError: _on_our_error,
    HTTPException: _on_http_error,
    Exception: _on_defect,
}
