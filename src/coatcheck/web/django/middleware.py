"""The middleware: `request.coatcheck` is the request's Exchange, `request.session` its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from http.cookies import CookieError, Morsel
from typing import Any, cast

import msgspec
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import RequestAborted
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import patch_vary_headers
from django.views.debug import SafeExceptionReporterFilter, get_default_exception_reporter_filter

from coatcheck.core.policy import Policy
from coatcheck.errors import CoatcheckError, ConfigurationError, CrossSite
from coatcheck.exchange import Exchange
from coatcheck.request_head import Headers, RequestHead
from coatcheck.run import offload, run
from coatcheck.web import wsgi
from coatcheck.web.answer import SERVER_ERROR, PlainHTTP, answer, is_ours_to_answer
from coatcheck.web.django import project
from coatcheck.web.django.store import SessionStore
from coatcheck.web.stream import Stream

# Django's test client keeps Secure cookies, whatever the scheme.
_TEST_CLIENT = b"testserver"


class CoatcheckMiddleware(SessionMiddleware):
    """Gives every request its Exchange and its session, under WSGI and ASGI; in place of Django's SessionMiddleware.

    What a view has changed is saved before its response leaves, and again at its end for what a streamed body
    changed; if the view raises, or answers 5xx, it is dropped.

    A view that other sites may send unsafe requests to is marked with Django's `@csrf_exempt`. Django's own
    CsrfViewMiddleware works beside this one.

    An error of coatcheck's that a view lets pass becomes its answer: 401, 403, 409 or 503, in JSON.

    Args:
        get_response: what comes next.

    Raises:
        ConfigurationError: the settings do not go together; `manage.py check` says more.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        engine = self.SessionStore
        if not issubclass(engine, SessionStore):
            raise ConfigurationError('SESSION_ENGINE must be "coatcheck.web.django"')
        self._engine = engine
        self.coatcheck = project.coatcheck()
        self.background = project.background()
        self._plain_http = PlainHTTP()
        self._reports = _ReporterFilter(self.coatcheck.policy)
        # Of the kind of this chain: Django would change threads for the other one, at every request.
        self.process_view = self._aview if self.async_mode else self._view

    def process_request(self, request: HttpRequest) -> HttpResponse | None:  # type: ignore[override] # or refuse it
        """Begin."""
        return run(self._begin(request))

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Finish."""
        return run(self._finish(request, response))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer an error of ours that a view has let pass."""
        if isinstance(exception, CoatcheckError) and is_ours_to_answer(exception):
            return _answered(exception)
        return None

    async def __acall__(self, request: HttpRequest) -> Any:
        """Serve a request of an ASGI application."""
        refusal = await self._begin(request)
        return refusal or await self._finish(request, await cast("Any", self.get_response(request)))

    def _view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if getattr(view, "csrf_exempt", False):
            return None
        try:
            exchange(request).require_same_site()
        except CrossSite as error:
            return _answered(error)
        return None

    async def _aview(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        return self._view(request, view, args, kwargs)

    async def _begin(self, request: HttpRequest) -> HttpResponse | None:
        head = self._head(request)
        try:
            if not self.background.is_open:
                await offload(lambda: self.background.open_for(head))
            found = await Exchange.begin(head, self.coatcheck.sessions, self.coatcheck.verifier)
        except CoatcheckError as error:
            return _answered(error)
        if type(get_default_exception_reporter_filter()) is SafeExceptionReporterFilter:  # else it is the project's own
            request.exception_reporter_filter = self._reports
        request.coatcheck = found  # type: ignore[attr-defined] # as Django's middleware does
        request.session = self._engine.of(found)
        return None

    async def _finish(self, request: HttpRequest, response: Any) -> Any:
        found: Exchange | None = getattr(request, "coatcheck", None)
        if found is None or isinstance(response, _Answered):
            return response
        store = request.session if isinstance(request.session, SessionStore) else SessionStore.of(found)
        if response.status_code < SERVER_ERROR:
            try:
                await store.conclude()
            except CoatcheckError as error:
                return _answered(error)
            if response.streaming:
                self._watch(request, response, found)
        lines = found.dress(())
        if lines:
            _add(lines, response)
            if found.head.value(b"host") not in (None, _TEST_CLIENT):
                self._plain_http.notice(found.head, lines)
        return response

    def _watch(self, request: HttpRequest, response: StreamingHttpResponse, found: Exchange) -> None:
        """Save what a stream changes, at its end, and cut it once what it was let in by has ended."""
        if isinstance(response, FileResponse):
            return  # a server may send the file by itself; nothing of ours runs then
        content, judge = response.streaming_content, _Judge(request, Stream(found, self.coatcheck))
        if response.is_async:
            response.streaming_content = _athen(content, found, judge)
        else:
            response.streaming_content = _then(cast("Any", content), found, judge)

    def _head(self, request: HttpRequest) -> RequestHead:
        meta, scope = request.META, getattr(request, "scope", None)
        scheme = request.scheme or "http"  # as SECURE_PROXY_SSL_HEADER has it
        host = meta.get("HTTP_X_FORWARDED_HOST") if settings.USE_X_FORWARDED_HOST else None
        if scope is None:
            environ = meta if host is None else {**meta, "HTTP_HOST": host}
            head = wsgi.request_head(environ, self.coatcheck.policy.cookie_names)
            return head if head.scheme == scheme else msgspec.structs.replace(head, scheme=scheme)
        headers = list(scope["headers"])  # not META, in which headers of one name are joined
        if host is not None:
            headers = [header for header in headers if header[0] != b"host"]
            headers.append((b"host", host.encode("latin-1")))
        return RequestHead(scope["method"], scheme, headers, meta.get("REMOTE_ADDR") or "")


def exchange(request: HttpRequest) -> Exchange:
    """Return the Exchange of a request.

    Raises:
        ConfigurationError: the middleware is not installed, or comes after what asks.
    """
    found: Exchange | None = getattr(request, "coatcheck", None)
    if found is None:
        raise ConfigurationError(
            'no exchange: MIDDLEWARE must have "coatcheck.web.django.CoatcheckMiddleware", before what asks for it'
        )
    return found


class _Answered(HttpResponse):
    """The answer to an error of ours, after which nothing is saved."""


class _ReporterFilter(SafeExceptionReporterFilter):
    """Hides our cookies on Django's error pages and in its mails to the admins; Django knows of the session's alone."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        if isinstance(key, str) and self._policy.owns(key):
            return self.cleansed_substitute
        return super().cleanse_setting(key, value)


class _Line(Morsel[str]):
    """A Set-Cookie line of ours among the cookies of a response, sent as it is.

    Django keeps one cookie for each name, and a Morsel of the standard library does not know all attributes.
    """

    def __init__(self, line: str) -> None:
        super().__init__()
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        self.set(name, value, value)
        for attribute in attributes:  # for those who look at the cookies of a response
            word, _, of_it = attribute.partition("=")
            try:
                self[word.lower()] = of_it or True
            except CookieError:  # Partitioned, before Python 3.14
                continue
        self.line = line

    def __reduce__(self) -> tuple[type[_Line], tuple[str]]:
        return _Line, (self.line,)  # a Morsel would lose it where a cache pickles the response

    def OutputString(self, attrs: Any = None) -> str:  # noqa: N802 - the standard library's
        return self.line

    def output(self, attrs: Any = None, header: str = "Set-Cookie:") -> str:
        return f"{header} {self.OutputString()}".lstrip()  # Django 5 asks for it without a header


def _answered(error: CoatcheckError) -> _Answered:
    if not is_ours_to_answer(error):
        raise error
    said = answer(error)
    response = _Answered(said.body, status=said.status)
    for name, value in said.headers:
        response.headers[name.decode("ascii").title()] = value.decode("latin-1")
    return response


def _add(lines: Headers, response: HttpResponseBase) -> None:
    for name, value in lines:
        text = value.decode("latin-1")
        if name == b"set-cookie":
            line = _Line(text)
            response.cookies[line.key] = line
        elif name == b"vary" and "Vary" in response.headers:
            patch_vary_headers(response, text.split(", "))
        else:
            response.headers[name.decode("ascii").title()] = text


class _Left(asyncio.CancelledError, RequestAborted):
    """What Django takes for a client that has left: under ASGI in 5.2 it is the first of these, in 6.1 the second."""


class _Judge:
    """Cuts a stream such that whoever serves it cleans up: an iterator of either kind comes under both protocols."""

    def __init__(self, request: HttpRequest, stream: Stream) -> None:
        self._cut = _Left if hasattr(request, "scope") else BrokenPipeError
        self._stream = stream

    async def __call__(self) -> None:
        try:
            await self._stream.judge()
        except BrokenPipeError as error:
            raise self._cut(*error.args) from None


def _then(content: Iterable[bytes], found: Exchange, judge: _Judge) -> Iterator[bytes]:
    for part in content:
        run(judge())
        yield part
    run(found.finish())


async def _athen(content: Any, found: Exchange, judge: _Judge) -> AsyncIterator[bytes]:
    async for part in content:
        await judge()
        yield part
    await found.finish()
