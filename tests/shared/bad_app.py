"""An application with faults: each is planted by its name in FAULTS, and without any it is a good one.

Plain ASGI, so that nothing stands between a fault and the wire.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import string
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from coatcheck import Key
from coatcheck.core.cookies import find_cookie, parse_cookies
from coatcheck.core.csrf import judge
from coatcheck.core.redirects import local_path
from coatcheck.errors import CrossSite, Malformed

NAME, PASSWORD = "ann", "a lantern under the stairs"

Scope = MutableMapping[str, Any]
Headers = list[tuple[str, str]]
Reply = tuple[int, Headers, str]

_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
_TRACE = 'Traceback (most recent call last):\n  File "app.py", line 7, in answer\nKeyError'
_WARNING = "<b>Warning</b>: Undefined variable $page in /var/www/index.php on line <b>12</b>"
_KEY = Key.generate("ES256")


class BadApp:
    """One application.

    Args:
        faults: what is wrong with it.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = frozenset(faults)
        self.sessions: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.signed_in = 0
        self.issued: set[str] = set()
        self.counter = 4711

    def has(self, fault: str) -> bool:
        return fault in self.faults

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.requests.append((scope["method"], scope["path"]))
        status, headers, text = self.answer(Request(scope, body), scope["method"], scope["path"])
        if self.has("repeats the address") and text.startswith("<!doctype html>"):
            text += f'<a href="{scope["path"]}?{scope["query_string"].decode("latin-1")}">here</a>'
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (*headers, *self.guard(text))]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": text.encode()})

    # -- routes

    def answer(self, request: Request, method: str, path: str) -> Reply:
        if self.has("breaks on odd cookies") and any(b"\xff" in value for _, value in request.cookies):
            return 500, [("Content-Type", "text/plain")], _TRACE if self.has("traceback") else "oh"
        if method == "POST" and self.forged(request):
            return 403, [("Content-Type", "text/plain")], "no"
        route = {
            ("GET", "/"): self.page,
            ("GET", "/sign-in"): self.form,
            ("POST", "/sign-in"): self.sign_in,
            ("GET", "/me"): self.me,
            ("GET", "/goodbye"): self.goodbye,
            ("POST", "/sign-out"): self.sign_out,
            ("GET", "/.well-known/jwks.json"): self.jwks,
        }
        if self.has("sign-out by GET"):
            route["GET", "/sign-out"] = self.sign_out
        if self.has("sign-in by GET") and "password" in request.query:
            request.fields = request.query
            route["GET", "/sign-in"] = self.sign_in
        if self.has("takes ids from ;jsessionid="):
            path = path.partition(";")[0]
        found = route.get((method, path))
        if found is None and self.has("one page for every path"):
            found = self.page
        return self.html("nothing here", status=404) if found is None else found(request)

    def page(self, request: Request) -> Reply:
        headers: Headers = []
        if self.has("session for visitors") and self.session_of(request) is None:
            headers = self.give(self.new_id(""))
        if self.has("two applications"):
            headers += [
                ("Set-Cookie", f"{name}={secrets.token_hex(32)}; Secure; HttpOnly; SameSite=Lax")
                for name in ("PHPSESSID", "sessionid")
            ]
        text = _TRACE if self.has("a page about stack traces") else "hello"
        return self.html(text + '<a href="https://elsewhere.example/?sid=0123456789">a link</a>', headers)

    def form(self, request: Request) -> Reply:
        onward = request.query.get("next", "")
        if self.has("redirects who is signed in") and self.session_of(request):
            return 303, [("Location", onward)], ""
        headers = []
        if self.has("same id after sign-in") or self.has("old id stays alive"):
            headers = self.give(self.new_id(""))
        escaped = onward.replace("&", "&amp;").replace('"', "&quot;")
        return self.html(
            f'<form method="post" action="/sign-in"><input type="hidden" name="next" value="{escaped}">'
            '<input name="name"><input type="password" name="password"></form>',
            headers,
        )

    def sign_in(self, request: Request) -> Reply:
        refused = self.refused(request)
        if refused is not None:
            return refused
        self.signed_in += 1
        if self.has("one session each"):
            self.sessions = {id: name for id, name in self.sessions.items() if not name}
        id = self.begin(self.session_id(request))
        headers = self.give(id)
        if request.is_json:
            headers = [("Cache-Control", "no-store")] if self.has("token only") else headers
            return 200, [*headers, ("Content-Type", "application/json")], json.dumps(self.tokens(id))
        return 303, [*headers, ("Location", self.onward(request, id))], ""

    def refused(self, request: Request) -> Reply | None:
        is_json = request.header("content-type") == "application/json" or self.has("any content type")
        if request.is_json and not is_json:
            return 415, [("Content-Type", "text/plain")], "JSON, please"
        if request.fields.get("name") == NAME and request.fields.get("password") == PASSWORD:
            return None
        if self.has("shows the form again"):
            return self.html("wrong", [("Set-Cookie", f"csrftoken={secrets.token_hex(32)}; Secure; SameSite=Lax")])
        return self.html("wrong", status=403)

    def begin(self, old: str | None) -> str:
        """Return the id of the session that begins, for a browser that came with another one."""
        if old is not None and (
            self.has("adopts any id") or (self.has("same id after sign-in") and old in self.sessions)
        ):
            self.sessions[old] = NAME
            return old
        if self.has("old id stays alive") and old in self.sessions:
            self.sessions[old] = NAME
        else:
            self.sessions.pop(old or "", None)
        return self.new_id(NAME)

    def onward(self, request: Request, id: str) -> str:
        if self.has("asks for a url"):
            return str(request.query.get("url", "/me"))
        asked = request.fields.get("next", "")
        onward = asked if self.has("open redirect") and asked else local_path(asked, "/me")
        if self.has("redirect checks for // only") and not asked.startswith(("//", "http")):
            onward = asked or "/me"
        if self.has("id in the address"):
            onward += f"?sid={id}"
        return f"http://{request.header('host')}{onward}" if self.has("leads to http") else onward

    def me(self, request: Request) -> Reply:
        id = self.session_id(request)
        name = self.sessions.get(id or "") or self.name_of_token(request)
        headers: Headers = [] if self.has("shared answers") else [("Vary", "Cookie"), ("Cache-Control", "no-store")]
        if self.lets_read(request):
            headers += [("Access-Control-Allow-Origin", request.header("origin") or "")]
            headers += [("Access-Control-Allow-Credentials", "true")]
        if not name and not self.has("open to visitors"):
            challenge = "" if self.has("no challenge") else self.challenge(request)
            return self.html("who are you?", [*headers, *([("WWW-Authenticate", challenge)] if challenge else [])], 401)
        return self.html(f"hello {name} {id if self.has('id in the body') else ''}", headers)

    def lets_read(self, request: Request) -> bool:
        """Whether scripts of the request's origin may read what is protected."""
        origin, host = request.header("origin") or "", request.header("host") or ""
        return bool(origin) and (
            self.has("any origin reads")
            or (self.has("origins that begin like ours read") and origin.startswith("http://localhost"))
            or (self.has("origins that end like ours read") and origin.endswith(host))
        )

    def sign_out(self, request: Request) -> Reply:
        token = (request.header("authorization") or "").removeprefix("Bearer ")
        id = self.id_of(token) if token in self.issued else self.session_id(request)
        if id is not None and not self.has("alive after sign-out"):
            self.sessions.pop(id, None)
        path = "/app" if self.has("taken back elsewhere") else "/"
        headers: Headers = []
        if not self.has("cookie left behind"):
            headers = [("Set-Cookie", f"{self.name}=; Max-Age=0; Path={path}{self.attributes}")]
        if self.has("taken back a page later"):
            return 303, [("Location", "goodbye")], ""
        return 303, [*headers, ("Location", "/sign-in")], ""

    def goodbye(self, _: Request) -> Reply:
        return self.html("goodbye", [("Set-Cookie", f"{self.name}=; Max-Age=0; Path=/{self.attributes}")])

    def jwks(self, _: Request) -> Reply:
        key = {**_KEY.public().jwk()}
        if self.has("private key published"):
            key["d"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        keys: list[Any] = [key]
        if self.has("short RSA key published"):
            number = base64.urlsafe_b64encode((secrets.randbits(1024) | 1 | 1 << 1023).to_bytes(128, "big")).rstrip(
                b"="
            )
            keys.append({"kty": "RSA", "n": number.decode(), "e": "AQAB", "alg": "RS256", "kid": "short"})
        return 200, [("Content-Type", "application/jwk-set+json")], json.dumps({"keys": keys})

    # -- sessions

    @property
    def name(self) -> str:
        return "sid" if self.has("no prefix") else "__Host-sid"

    @property
    def attributes(self) -> str:
        parts = (
            "" if self.has("no Secure") else "; Secure",
            "" if self.has("no HttpOnly") else "; HttpOnly",
            "; Domain=localhost" if self.has("domain") else "",
            "" if self.has("no SameSite") else "; SameSite=None" if self.has("SameSite=None") else "; SameSite=Lax",
        )
        return "".join(parts)

    def give(self, id: str) -> Headers:
        age = "; Max-Age=31536000" if self.has("a year") else ""
        value = self.tokens(id)["access_token"] if self.has("sessions are tokens") else id
        line = f"{self.name}={value}; Path=/{age}{self.attributes}"
        headers: Headers = [] if self.has("stored sign-in") else [("Cache-Control", "no-store")]
        headers += [("Set-Cookie", line)] * (2 if self.has("set twice") else 1)
        if self.has("fat cookies"):
            headers += [
                ("Set-Cookie", f"__Host-fat{number}={'x' * 3500}; Path=/{self.attributes}") for number in (1, 2)
            ]
        if self.has("name in a cookie"):
            who = base64.urlsafe_b64encode(json.dumps({"who": NAME, "theme": "dark"}).encode()).decode().rstrip("=")
            headers += [("Set-Cookie", f"__Host-prefs={who}.c2ln; Path=/{self.attributes}")]
        if self.has("token for scripts"):
            headers += [
                ("Set-Cookie", f"__Host-access={self.tokens(id)['access_token']}; Path=/; Secure; SameSite=Lax")
            ]
        return headers

    def new_id(self, name: str) -> str:
        if self.has("counted ids"):
            self.counter += 7
            id = f"session-of-this-application-{self.counter:012}"
        elif self.has("short ids"):
            id = "f" + secrets.token_hex(4)[1:]  # of digits alone, it would be another fault
        else:
            id = secrets.token_urlsafe(32)
        self.sessions[id] = name
        return id

    def session_id(self, request: Request) -> str | None:
        value = self.session_value(request)
        if value is not None and self.has("half of the id counts"):
            return next((id for id in self.sessions if id[:20] == value[:20]), None)
        if value is None or not self.has("sessions are tokens"):
            return value
        is_good = value in self.issued or (self.has("takes alg none") and value.endswith("."))
        return self.id_of(value) if is_good else None

    def session_value(self, request: Request) -> str | None:
        for fault, value in (
            ("takes ids from its own parameter", request.query.get(self.name)),
            ("takes ids from ?sid=", request.query.get("sid")),
            ("takes ids from ;jsessionid=", request.path.partition(";jsessionid=")[2]),
        ):
            if self.has(fault) and value:
                return value
        wanted = self.name.encode()
        if self.has("loose names"):
            for name, value in request.cookies:
                if name.decode("latin-1").strip(string.whitespace + '\xa0"').lower() == self.name.lower():
                    return value.decode("latin-1")
        if self.has("first of two"):
            return next((value.decode("latin-1") for name, value in request.cookies if name == wanted), None)
        try:
            found = find_cookie(request.every(b"cookie"), wanted)
        except Malformed:
            return None
        return None if found is None else found.decode("latin-1")

    def session_of(self, request: Request) -> str | None:
        return self.sessions.get(self.session_id(request) or "")

    def name_of_token(self, request: Request) -> str | None:
        token = (request.header("authorization") or "").removeprefix("Bearer ")
        if self.has("takes tokens from ?access_token="):
            token = token or request.query.get("access_token", "")
        if token.count(".") != 2:
            return None
        if self.has("unsigned tokens") and token not in self.issued:
            return "whoever it says"
        if token not in self.issued:
            return None
        return NAME if self.has("token alive after sign-out") else self.sessions.get(self.id_of(token))

    def id_of(self, token: str) -> str:
        payload = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])

    def tokens(self, id: str) -> dict[str, Any]:
        now = int(time.time())
        age = 90 * 86400 if self.has("token for months") else 900
        claims: dict[str, Any] = {
            "iss": "https://a.example",
            "aud": "a",
            "sub": "7",
            "client_id": "c",
            "iat": now,
            "jti": id,
        }
        claims |= {} if self.has("token without end") else {"exp": now + age}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": _KEY.kid}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
        signed = b".".join(parts)
        signature = base64.urlsafe_b64encode(_KEY.sign(signed)).rstrip(b"=")
        token = (signed + b"." + signature).decode()
        self.issued.add(token)
        return {"access_token": token, "token_type": "Bearer"}

    def challenge(self, request: Request) -> str:
        presented = request.header("authorization") is not None
        return 'Bearer error="invalid_token"' if presented else "Bearer"

    # -- the edge

    def forged(self, request: Request) -> bool:
        if self.has("no defence against other sites"):
            return False
        site, origin = request.header("sec-fetch-site"), request.header("origin")
        if self.has("takes same-site"):
            site = "same-origin" if site == "same-site" else site
        if self.has("takes Origin: null"):
            origin = None if origin == "null" else origin
        if self.has("knows Sec-Fetch-Site only"):
            origin = None
        if self.has("compares how an Origin begins"):
            origin = None if origin and re.match(r"http://localhost\b", origin) else origin
        if self.has("compares how an Origin ends"):
            origin = None if origin and re.search(r"localhost:\d+$", origin) else origin
        if self.has("knows Origin only"):
            site = None
        try:
            judge(
                "POST",
                sec_fetch_site=None if site is None else site.encode(),
                origin=None if origin is None else origin.encode(),
                referer=None,
                target=f"{request.scheme}://{request.header('host')}",
                trusted=frozenset(),
            )
        except CrossSite:
            return True
        return False

    def guard(self, text: str) -> Headers:
        policy = _POLICY
        if self.has("weak policy"):
            policy = "script-src * 'unsafe-inline'; frame-ancestors 'none'"
        if self.has("framed"):
            policy = policy.replace("; frame-ancestors 'none'", "")
        headers = [
            ("Content-Security-Policy", "" if self.has("no policy") else policy),
            ("X-Frame-Options", "DENY" if self.has("no policy") else ""),
            ("X-Content-Type-Options", "" if self.has("sniffed") else "nosniff"),
            ("Referrer-Policy", "" if self.has("referrer") else "same-origin"),
            ("Strict-Transport-Security", self.hsts),
            ("X-Powered-By", "Something/1.2.3" if self.has("versions") else ""),
        ]
        return [(name, value) for name, value in headers if value] + [("Content-Length", str(len(text.encode())))]

    @property
    def hsts(self) -> str:
        if self.has("no HSTS"):
            return ""
        return "max-age=3600" if self.has("short HSTS") else "max-age=31536000; includeSubDomains"

    def html(self, text: str, headers: Headers | None = None, status: int = 200) -> Reply:
        if status == 404:
            text = _TRACE if self.has("traceback") else _WARNING if self.has("warnings") else text
        if self.has("repeats the password"):
            text += f'<input value="{PASSWORD}">'
        return status, [*(headers or []), ("Content-Type", "text/html; charset=utf-8")], f"<!doctype html>{text}"


class Request:
    """What the application reads of a request."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.scheme: str = scope["scheme"]
        self.path: str = scope["path"]
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        self.is_json = body.startswith(b"{")
        self.fields: dict[str, str] = json.loads(body) if self.is_json else dict(parse_qsl(body.decode("latin-1")))
        self.cookies = parse_cookies(self.every(b"cookie"))

    def every(self, name: bytes) -> list[bytes]:
        return [value for each, value in self._headers if each == name]

    def header(self, name: str) -> str | None:
        found = self.every(name.encode())
        return found[0].decode("latin-1") if found else None
