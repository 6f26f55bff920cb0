"""What every adapter answers with an error of ours, and what it says about plain http: the same words everywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import NamedTuple

from coatcheck.core import challenge, csrf
from coatcheck.errors import CoatcheckError
from coatcheck.request_head import Headers, RequestHead

SERVER_ERROR = 500
# What a refusal depends on: the credential, and where the request comes from (F9).
_VARY = ", ".join(("Cookie", "Authorization", *csrf.VARY)).encode("ascii")
# Hosts at which browsers keep a Secure cookie that came over http.
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_log = logging.getLogger("coatcheck")


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: Headers
    body: bytes


def answer(error: CoatcheckError) -> Answer:
    """Return the response to a request that one of our errors ended: its status, challenge and words in JSON."""
    body = json.dumps({"error": error.oauth_error, "code": error.code, "error_description": str(error)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"vary", _VARY),
        *challenge.headers(error),
    ]
    return Answer(challenge.status(error), headers, body)


def is_ours_to_answer(error: CoatcheckError) -> bool:
    """Say whether an error is about the request; those of 500 are about the program, and are the framework's."""
    return error.status != SERVER_ERROR


class PlainHTTP:
    """Says once why a sign-in that worked has no effect: over http a Secure cookie is dropped without a word."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told = False

    def notice(self, head: RequestHead, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Look at the headers of a response, and warn if it sends such a cookie."""
        if self._told or head.scheme != "http":
            return
        for name, value in headers:
            if name == b"set-cookie" and b"; Secure" in value:
                break
        else:
            return
        host = (head.value(b"host") or b"").decode("latin-1")
        here = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if here in _LOCAL or here.endswith(".localhost"):
            return
        self._told = True
        _log.warning(
            "a Secure cookie goes out over http to %.99r, and will be dropped: use https or localhost (a test client: "
            'base_url="https://..."); behind a proxy, let the server believe its X-Forwarded-Proto',
            host,
        )
