"""How pages come to be: the templates, the files they load, times in words, and the words of errors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STATIC_TYPES = {
    "coatcheck.css": "text/css; charset=utf-8",
    "compare.css": "text/css; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
    "ticket.svg": "image/svg+xml",
}
_FOR_A_YEAR = "public, max-age=31536000, immutable"

# What an error says: heading, sentences, and whether trying the same page again makes sense.
_ERRORS: Final[Mapping[int, tuple[str, tuple[str, ...]]]] = {
    400: ("That could not be read", ("What your browser sent is not what this page’s form sends.",)),
    401: ("Please sign in", ("This page is only for those who are signed in, or your session has ended.",)),
    403: (
        "This came from another site",
        (
            "Another site asked your browser to send this here, so nothing was done.",
            "If you meant to do it, begin on our own pages.",
        ),
    ),
    404: ("There is nothing here", ("The address may be mistyped, or what was here is gone.",)),
    405: ("That is not how this page works", ("Open it by a link or its own button instead of its address.",)),
    408: ("That took too long", ("What your browser sent did not arrive in time. Try again.",)),
    409: ("Somebody was faster", ("What you wanted to change has changed meanwhile. Look again, then try again.",)),
    410: ("This link has been used", ("A set-up link works once. If you made the account, sign in with it.",)),
    413: ("That is too large", ("What your browser sent is larger than any form of ours. Send less.",)),
    415: ("That could not be read", ("What was sent is not a form.",)),
    429: ("Too many attempts", ("There were too many attempts lately. Wait a little, then try again.",)),
    500: (
        "Something broke on our side",
        ("It is not your fault, and it has been written down.", "Try again; if it stays, tell the administrator."),
    ),
    503: (
        "Not available right now",
        (
            "Something this server depends on does not answer. You have not been signed out.",
            "Try again in a few seconds.",
        ),
    ),
}


class Moment(NamedTuple):
    """A time for a page: for machines, and in words."""

    machine: str
    words: str


def absolute(at: int) -> Moment:
    """Return a time, in milliseconds since the epoch, as its date: "26 Nov 2026, 15:04 UTC"."""
    # Not strftime: its names of months follow the process's locale.
    t = datetime.fromtimestamp(at // 1000, UTC)
    words = f"{t.day} {_MONTHS[t.month - 1]} {t.year}, {t.hour:02}:{t.minute:02} UTC"
    return Moment(t.strftime("%Y-%m-%dT%H:%M:%SZ"), words)


def relative(at: int, now: int) -> Moment:
    """Return a time as its distance from now, "5 minutes ago"; as its date, if that is more than 30 days.

    Args:
        at: milliseconds since the epoch.
        now: the same. A time after now, by another process's clock, is just now.
    """
    past = now - at
    if past < 2 * _MINUTE:
        return Moment(absolute(at).machine, "just now")
    if past < 2 * _HOUR:
        words = f"{past // _MINUTE} minutes ago"
    elif past < 2 * _DAY:
        words = f"{past // _HOUR} hours ago"
    elif past <= 30 * _DAY:
        words = f"{past // _DAY} days ago"
    else:
        return absolute(at)
    return Moment(absolute(at).machine, words)


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """Return a page. It is about one person, or leads to what is, so nobody keeps a copy (C18)."""
    values = {"assets": _asset_urls(), "place": _place(request), **context}
    text = _environment().get_template(template).render(values)
    return HTMLResponse(text, status, {"cache-control": "no-store"})


def error_page(request: Request, status: int, words: str = "") -> Response:
    """Return an error as a page that says what happened and what to do.

    Args:
        request: needs no Exchange; it may have been refused before it had one.
        status: of the answer; one that has no words of its own gets those of its class.
        words: instead of the status's own sentences; for people, and ours: never a part of the request.
    """
    known = status if status in _ERRORS else (400 if status < 500 else 500)
    heading, sentences = _ERRORS[known]
    return render(
        request,
        "error.html",
        status=status,
        number=status,
        heading=heading,
        sentences=(words,) if words else sentences,
    )


def static_file(request: Request) -> Response:
    """Answer one of the files that pages load; any other is not there."""
    name = request.path_params["name"]
    if name not in _STATIC_TYPES:
        return error_page(request, 404)
    # Pages name a file together with its hash: whoever asks for another edition gets this one, uncached.
    current = request.url.query == _version(name)
    headers = {"cache-control": _FOR_A_YEAR if current else "no-cache"}
    return Response(_read(name), media_type=_STATIC_TYPES[name], headers=headers)


def _place(request: Request) -> str:
    # The configured origin, not the Host header: it is what tells people where they are.
    app = request.scope.get("app")
    url: str = "" if app is None else app.state.server.settings.url
    return url.partition("://")[2]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("coatcheck.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _asset_urls() -> Mapping[str, str]:
    names = {
        "style": "coatcheck.css",
        "icon": "ticket.svg",
        "compare_style": "compare.css",
        "compare_script": "compare.js",
    }
    return {use: f"/static/{name}?{_version(name)}" for use, name in names.items()}


@cache
def _read(name: str) -> bytes:
    return files("coatcheck.server").joinpath("static", name).read_bytes()


@cache
def _version(name: str) -> str:
    return hashlib.sha256(_read(name)).hexdigest()[:12]
