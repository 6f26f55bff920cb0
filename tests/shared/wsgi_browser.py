"""A client that speaks WSGI itself, with the rules of PEP 3333 checked on both sides of what it calls."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from wsgiref.validate import validator

import msgspec

from coatcheck.web.wsgi import App, Environ


class Answer(msgspec.Struct):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return ", ".join(found) if found else None

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Browser:
    """One client with a jar: it keeps and deletes the cookies that it is told to."""

    def __init__(self, app: App, *, scheme: str = "https", host: str = "app.example") -> None:
        self.app = app
        self.scheme = scheme
        self.host = host
        self.jar: dict[str, str] = {}

    def __call__(
        self,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        cookies: str | None = None,
    ) -> Answer:
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items()) if cookies is None else cookies
        sent = [("host", self.host), *headers, *([("cookie", cookie)] if cookie else [])]
        answer = request(self.app, environ(method, path, sent, self.scheme))
        for line in answer.all("set-cookie"):
            name, _, rest = line.partition("=")
            if "Max-Age=0" in rest:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(";")[0]
        return answer


def environ(
    method: str, path: str, headers: Iterable[tuple[str, str]] = (), scheme: str = "https", join: str = ","
) -> Environ:
    """Return what gunicorn and Werkzeug make of a request: headers of one name are joined by a comma."""
    found: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.partition("?")[0],
        "QUERY_STRING": path.partition("?")[2],
        "SERVER_NAME": "app.example",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        found[key] = f"{found[key]}{join}{value}" if key in found else value
    return found


def request(app: App, environ: Environ) -> Answer:
    """Serve one request as a server does: headers leave with the first octets of the body, or at its end."""
    answer = Answer(0, [], b"")
    left = False

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info and left:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or not answer.status, "start_response was called twice"
        answer.status, answer.headers = int(status[:3]), list(headers)
        return write

    def write(data: bytes) -> None:
        nonlocal left
        assert answer.status, "octets before start_response"
        left = left or bool(data)
        answer.body += data

    checked: Any = validator(app)
    body = checked(environ, start_response)
    try:
        for chunk in body:
            write(chunk)
        assert answer.status, "no start_response"
    finally:
        body.close()
    return answer
