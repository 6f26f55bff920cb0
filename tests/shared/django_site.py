"""A Django project in this process, and browsers that speak WSGI and ASGI to it.

Django has one set of settings in a process: whatever a test wants otherwise, it overrides.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import django
import msgspec
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.test import override_settings
from django.urls import URLPattern, clear_url_caches, path

from coatcheck import Coatcheck
from coatcheck.core.set_cookie import parse_set_cookie

DIRECTORY: Final = tempfile.TemporaryDirectory(prefix="coatcheck-django-")
MIDDLEWARE: Final = [
    "coatcheck.web.django.CoatcheckMiddleware",
    "coatcheck.web.django.auth.AuthenticationMiddleware",
]
urlpatterns: Final[list[URLPattern]] = []


def set_up() -> None:
    """Configure Django, once, with the tables of its users."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="of these tests alone",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "coatcheck.web.django"],
        MIDDLEWARE=MIDDLEWARE,
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="coatcheck.web.django",
        SESSION_COOKIE_NAME="__Host-session",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{DIRECTORY.name}/users.sqlite",
                "OPTIONS": {"timeout": 20},
            }
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection

    with connection.schema_editor() as editor:
        for model in (ContentType, Permission, Group, User):
            editor.create_model(model)
    connection.close()


class Answer(msgspec.Struct):
    """A response as it came over the wire."""

    status: int = 0
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    whole: bool = False

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name]

    def header(self, name: str) -> str:
        return ", ".join(self.all(name))

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Send = Callable[[str, str, list[tuple[str, str]]], Answer]


class Browser:
    """One browser with a jar, at the site."""

    def __init__(self, send: Send, jar: Mapping[str, str] | None = None) -> None:
        self._send = send
        self.jar = dict(jar or {})

    def copy(self) -> Browser:
        return Browser(self._send, self.jar)

    def __call__(self, method: str, target: str, *, bearer: str = "", **headers: str) -> Answer:
        sent = [("host", "app.example"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        if self.jar:
            sent.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.jar.items())))
        if bearer:
            sent.append(("authorization", f"Bearer {bearer}"))
        answer = self._send(method, target, sent)
        for line in answer.all("set-cookie"):
            stored = parse_set_cookie(line.encode(), now=0)
            assert stored is not None
            if stored.expires_at is not None and stored.expires_at <= 0:
                self.jar.pop(stored.name.decode(), None)
            else:
                self.jar[stored.name.decode()] = stored.value.decode()
        return answer


class Site:
    """The project, served by one of the two protocols."""

    def __init__(self, protocol: str, coat: Coatcheck) -> None:
        self.protocol = protocol
        self.coat = coat

    def browser(self) -> Browser:
        return Browser(
            over_asgi(get_asgi_application()) if self.protocol == "asgi" else over_wsgi(get_wsgi_application())
        )

    def show(self, **views: Callable[..., object]) -> Browser:
        """Put views at paths of their names, and return a browser.

        A view returns a response, or what becomes JSON. Where Django serves ASGI, one called `a...` of the same name
        is taken in its place.
        """
        names = [name for name in views if not (name.startswith("a_") and name[2:] in views)]
        chosen = {
            name: views.get(f"a_{name}", views[name]) if self.protocol == "asgi" else views[name] for name in names
        }
        urlpatterns[:] = [path(name, in_json(view)) for name, view in chosen.items()]
        clear_url_caches()
        return self.browser()


@contextmanager
def site(protocol: str, coat: Coatcheck, **changes: Any) -> Iterator[Site]:
    """Serve the project over a Coatcheck."""
    set_up()
    from coatcheck.web.django import project

    with override_settings(COATCHECK=coat, **changes):
        try:
            yield Site(protocol, coat)
        finally:
            project.background().close()


def in_json(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return a view of what returns a response or plain data; a coroutine of a coroutine."""

    def wrapped(request: HttpRequest) -> HttpResponseBase:
        return _response(view(request))

    async def awrapped(request: HttpRequest) -> HttpResponseBase:
        return _response(await view(request))

    chosen: Any = awrapped if asyncio.iscoroutinefunction(view) else wrapped
    chosen.csrf_exempt = getattr(view, "csrf_exempt", False)
    return chosen  # type: ignore[no-any-return]


def _response(found: object) -> HttpResponseBase:
    return found if isinstance(found, HttpResponseBase) else JsonResponse(found, safe=False)


def over_wsgi(app: Any) -> Send:
    def send(method: str, target: str, headers: list[tuple[str, str]]) -> Answer:
        url = urlsplit(target)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "SERVER_NAME": "app.example",
            "SERVER_PORT": "443",
            "REMOTE_ADDR": "192.0.2.7",
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
        }
        for name, value in headers:
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        answer = Answer()

        def start_response(status: str, found: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answer.status, answer.headers = int(status[:3]), found

        chunks = app(environ, start_response)
        try:
            for chunk in chunks:
                answer.body += chunk
            answer.whole = True
        except BrokenPipeError:  # as servers do, which take it for a client that has left
            pass
        finally:
            chunks.close()
        return answer

    return send


def over_asgi(app: Any) -> Send:
    async def request(method: str, target: str, headers: list[tuple[str, str]]) -> Answer:
        url, answer = urlsplit(target), Answer()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": url.path,
            "query_string": url.query.encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "client": ("192.0.2.7", 4711),
            "server": ("app.example", 443),
        }
        received = iter([{"type": "http.request"}])

        async def receive() -> Any:
            for message in received:
                return message
            return await asyncio.Event().wait()  # nobody goes away

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]
                ]
            else:
                answer.body += message.get("body", b"")
                answer.whole = not message.get("more_body")

        await app(scope, receive, send)
        return answer

    return lambda *arguments: asyncio.run(request(*arguments))
