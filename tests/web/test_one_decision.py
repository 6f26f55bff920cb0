"""ASGI and WSGI read the same headers and come to the same decision, whatever is in them (C12, C13, J7)."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import Coatcheck, Exchange
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.web import asgi, wsgi

COAT = Coatcheck()
SESSION = run(COAT.sessions.create("ann", amr=("pwd",)))
assert SESSION.cookie is not None
COOKIE = SESSION.cookie.value.encode()
TOKEN = run(COAT.sessions.issue(SESSION)).access_token.encode()
NAMES = [b"__Host-session", b"__Host-access", b"__Host-refresh", b"__host-session", b"a", b""]

# What is in the headers of attackers: our names and values, whole and in pieces, and what stands between them.
VALUES = st.sampled_from([COOKIE, TOKEN, COOKIE[:-1], COOKIE + b"=", TOKEN[:-2], b"", b"x", b'"' + COOKIE + b'"'])
SEPARATORS = st.sampled_from([b"; ", b";", b" ", b", ", b",", b"\t", b"\xa0", b"="])
PAIRS = st.tuples(st.sampled_from(NAMES), st.sampled_from([b"=", b"", b" = ", b"=="]), VALUES).map(b"".join)
NOISE = st.binary(max_size=12).filter(lambda octets: not set(octets) & {0x00, 0x0A, 0x0D})
COOKIES = st.lists(st.one_of(PAIRS, SEPARATORS, NOISE), max_size=7).map(b"".join)
SCHEMES = st.sampled_from([b"Bearer", b"bearer", b"BEARER", b"Basic", b"", b"Bearer Bearer"])
AUTHORIZATIONS = st.tuples(SCHEMES, SEPARATORS, st.one_of(VALUES, NOISE)).map(b"".join)


def decision(head: RequestHead) -> tuple[str | None, str | None]:
    """Return whom a request acts as, and why it was refused."""
    exchange = run(Exchange.begin(head, COAT.sessions, COAT.verifier))
    principal, refusal = exchange.principal, exchange.refusal
    return principal.subject if principal else None, refusal.code if refusal else None


def by_asgi(headers: Sequence[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    scope = {"type": "http", "method": "GET", "scheme": "https", "path": "/", "headers": list(headers)}
    return decision(asgi.request_head(scope))


def by_wsgi(headers: Sequence[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    environ: wsgi.Environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "PATH_INFO": "/"}
    for name, value in headers:  # as servers do: several of one name are joined by a comma
        key = "HTTP_" + name.decode().upper()
        environ[key] = f"{environ[key]},{value.decode('latin-1')}" if key in environ else value.decode("latin-1")
    return decision(wsgi.request_head(environ, COAT.policy.cookie_names))


@settings(max_examples=800, deadline=None)
@given(st.one_of(st.none(), COOKIES), st.one_of(st.none(), AUTHORIZATIONS))
def test_one_header_of_each_name_is_read_alike(cookie: bytes | None, authorization: bytes | None) -> None:
    """But for what looks like two headers that were joined: there WSGI refuses, for it cannot tell."""
    headers = [(b"cookie", cookie)] if cookie is not None else []
    headers += [(b"authorization", authorization)] if authorization is not None else []
    asgi_says, wsgi_says = by_asgi(headers), by_wsgi(headers)
    if asgi_says != wsgi_says:
        assert wsgi_says == (None, "malformed")
        assert b"," in (cookie or b"") + (authorization or b"")


@settings(max_examples=300, deadline=None)
@given(st.lists(COOKIES, min_size=2, max_size=3), st.lists(AUTHORIZATIONS, max_size=2))
def test_several_headers_of_a_name_never_let_anybody_in_by_wsgi_alone(
    cookies: list[bytes], authorizations: list[bytes]
) -> None:
    headers = [(b"cookie", each) for each in cookies] + [(b"authorization", each) for each in authorizations]
    asgi_says, wsgi_says = by_asgi(headers), by_wsgi(headers)
    assert wsgi_says == asgi_says or wsgi_says[0] is None
