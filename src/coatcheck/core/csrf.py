"""Cross-site request forgery: did our own pages send this request?

The browser says so itself, in Sec-Fetch-Site, and where it does not, in Origin or Referer. Nothing here
relies on SameSite: sibling subdomains are same-site, so it is a second line only (F8). A signed token is
offered besides, for deployments whose policy asks for one.

Sources: the OWASP CSRF Prevention Cheat Sheet; Fetch Metadata Request Headers; RFC 6454, sections 6 and 7.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from coatcheck.core import base64url
from coatcheck.errors import ConfigurationError, CrossSite, InvalidValue, Malformed

VARY: Final = ("Sec-Fetch-Site", "Origin")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
TOKEN_NONCE: Final = 16  # octets

_SENT_BY: Final[Mapping[bytes, Literal["ourselves", "somebody"]]] = MappingProxyType(
    # Somebody else's page may send it only if its origin is listed. A value that is not here is refused.
    {
        b"same-origin": "ourselves",
        b"none": "ourselves",  # typed, bookmarked or dropped by the user: no page was involved
        b"same-site": "somebody",
        b"cross-site": "somebody",
    }
)
_DEFAULT_PORTS: Final[Mapping[str, str]] = MappingProxyType({"http": "80", "https": "443"})
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>0|[1-9][0-9]{0,4}))?(?:[/?#][!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_TOKEN_VERSION = b"\x01"
_TOKEN_SIZE = 1 + TOKEN_NONCE + 32


def judge(
    method: str,
    *,
    sec_fetch_site: bytes | None,
    origin: bytes | None,
    referer: bytes | None,
    target: str,
    trusted: frozenset[str],
) -> None:
    """Return if the request may act with the browser's cookies; raise if another site had it sent.

    GET, HEAD and OPTIONS pass, which is safe because nothing may change state on them (F4); prefetch and
    prerender are GETs, so `Sec-Purpose` makes no difference (F9). For every other method Sec-Fetch-Site
    decides (F1); without it, as from old browsers and over plain http (F3), Origin must be ours or listed,
    and without that Referer's origin (F2). A request with none of the three does not come from a browser,
    and passes: there is no victim whose cookies somebody else could use. Sign-in and sign-out are to be
    judged like everything else (F6).

    Args:
        method: as sent; methods are case-sensitive. Judge a WebSocket handshake, which is a GET, as
            "CONNECT" (F11).
        sec_fetch_site: the header's value, or None where there is none. If a header came several times, hand
            in its values joined by a comma: that equals nothing and is refused.
        origin: likewise.
        referer: likewise.
        target: our own origin, "https://host[:port]"; its host may come from a proxy's header only if that
            is trusted.
        trusted: the other origins that may send requests here, as `trusted_origins` returns them.

    Raises:
        CrossSite: another site sent it, or it cannot be told.

    Not checked: the credential itself. And a browser from before Origin was sent with every POST (about
    2020), whose Referer was stripped on the way, is taken for something that is not a browser.
    """
    if method in SAFE_METHODS:
        return
    if sec_fetch_site is not None:
        sender = _SENT_BY.get(sec_fetch_site)
        listed = origin is not None and origin.decode("latin-1") in trusted
        if sender != "ourselves" and not (sender == "somebody" and listed):
            raise CrossSite("another site sent this request (Sec-Fetch-Site)")
    elif origin is not None:
        if not _is_ours(origin.decode("latin-1"), target, trusted):
            raise CrossSite("another site sent this request (Origin)")
    elif referer is not None and not _is_ours(origin_of(referer.decode("latin-1")), target, trusted):
        raise CrossSite("another site sent this request (Referer)")


def origin_of(url: str) -> str | None:
    """Return the serialized origin of an absolute http or https URL, or None where it is in doubt.

    Host and scheme come back in lower case and a default port is dropped (RFC 6454, 6.2). User information,
    an empty port, white space, backslashes before the path and non-ASCII give None, for parsers disagree on
    them.

    Args:
        url: a URL, or an origin.

    Not checked: that the host exists, or is spelled as the DNS would have it. "null" is no origin.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
    if port is None or port == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}" if int(port) <= 65535 else None


def trusted_origins(origins: Iterable[str]) -> frozenset[str]:
    """Return the set of listed origins for `judge`.

    Args:
        origins: each spelled as a browser sends it: "https://host", or with a port other than the default.

    Raises:
        ConfigurationError: one is not spelled so and would never match: a trailing slash, upper case, "*".
    """
    if isinstance(origins, str):
        raise ConfigurationError("trusted_origins is a collection of origins; a single one is [origin]")
    listed = frozenset(origins)
    for origin in listed:
        if origin_of(origin) != origin:
            raise ConfigurationError(f"not an origin as browsers send it: {origin!r}")
    return listed


def issue_token(key: bytes, session_id: str, nonce: bytes) -> str:
    """Return a token for a form or a header that only requests of this session can use (F5).

    Args:
        key: 32 secret octets, for this purpose only.
        session_id: the id of the session, which is another one after every sign-in.
        nonce: 16 fresh random octets: a token that differs on each page gives nothing to BREACH.

    Raises:
        InvalidValue: the nonce has another length.
    """
    if len(nonce) != TOKEN_NONCE:
        raise InvalidValue(f"the nonce has {TOKEN_NONCE} octets")
    return base64url.encode(_TOKEN_VERSION + nonce + _mac(key, session_id, nonce))


def judge_token(key: bytes, session_id: str, token: str, *, retired: Sequence[bytes] = ()) -> None:
    """Return if `token` was issued for this session.

    It is the signed form of double submit: bound to the session, it needs no second copy in a cookie, and a
    cookie that another site plants is of no use. The naive pattern, which compares two copies, falls to that.

    Args:
        key: the key that issues now.
        session_id: the id of the session that the request's own credential names.
        token: what the form or the header carried.
        retired: keys that issued before.

    Raises:
        CrossSite: it is not a token, or one of another session or key.

    Not checked: the token's age; it lives as long as the session and the keys.
    """
    try:
        raw = _decoded(token)
    except Malformed:
        raise CrossSite("the CSRF token cannot be read") from None
    if len(raw) != _TOKEN_SIZE or not raw.startswith(_TOKEN_VERSION):
        raise CrossSite("the CSRF token cannot be read")
    nonce, mac = raw[1 : 1 + TOKEN_NONCE], raw[1 + TOKEN_NONCE :]
    matches = [hmac.compare_digest(_mac(candidate, session_id, nonce), mac) for candidate in (key, *retired)]
    if not any(matches):
        raise CrossSite("the CSRF token is not of this session")


def _decoded(token: object) -> bytes:
    # An object, for whoever does not check types: in a form's field there may be a file.
    if not isinstance(token, str):
        raise Malformed("a token is a str")
    return base64url.decode(token)


def _is_ours(origin: str | None, target: str, trusted: frozenset[str]) -> bool:
    return origin is not None and (origin == origin_of(target) or origin in trusted)


def _mac(key: bytes, session_id: str, nonce: bytes) -> bytes:
    # Each part under its length, so that no two pairs of parts are one string of octets.
    parts = (_TOKEN_VERSION, session_id.encode("utf-8"), nonce)
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, message, "sha256")
