"""Somebody who signs in and out, as a browser does it, or as another site has a browser do it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Final, cast
from urllib.parse import urlencode, urljoin, urlsplit

from coatcheck.audit.evidence import Evidence, SignedIn, after, cookie_header
from coatcheck.audit.fetch import Answer, Client
from coatcheck.audit.target import SignIn
from coatcheck.audit.visit import AGENT, OWN_PAGE, STRANGER, follow

# Names that applications give to the address to go on to.
_ONWARD: Final = (
    "next", "rd", "return", "return_to", "returnTo", "returnUrl", "redirect", "redirect_to", "redirect_url", "continue",
    "goto", "url", "to", "dest", "target", "came_from",
)  # fmt: skip
_TAG: Final = re.compile(
    r"""<(?:form|input)\b(?:[^<>"']|"[^"]{0,65536}"|'[^']{0,65536}'){0,4096}>""", re.IGNORECASE | re.ASCII
)
_TOKENS: Final = ("access_token", "token", "accessToken", "jwt")
_KINDS: Final = {"form": "application/x-www-form-urlencoded", "json": "application/json"}


class Browser:
    """Carries out the steps of a sign-in; what they mean is for others to say."""

    def __init__(self, client: Client, evidence: Evidence, sign_in: SignIn) -> None:
        self.client = client
        self._evidence = evidence
        self._sign_in = sign_in
        own = str(evidence.target.origin)
        self.same_origin: Mapping[str, str] = {
            "Origin": own,
            "Referer": f"{own}{sign_in.path.partition('?')[0]}",
            "Sec-Fetch-Site": "same-origin",
        }

    def sign_in(self, jar: Mapping[str, str], onward: str) -> SignedIn:
        """Sign in as a user does, asking to be sent on to `onward` afterwards."""
        path = with_query(self._sign_in.path, dict.fromkeys(_ONWARD, onward))
        hidden: dict[str, str] = {}
        now_jar = dict(jar)
        if self._sign_in.body == "form":
            page = self.client.ask("GET", path, {**OWN_PAGE, **cookie_header(jar)})
            self._evidence.sign_in_page = self._evidence.sign_in_page or page
            now_jar = after(jar, page, self._evidence.now)
            hidden = hidden_fields(page, self._sign_in.path)
        answer = self.post(path, {**hidden, **self._sign_in.fields}, now_jar, self.same_origin)
        answers, later = follow(self.client, self._evidence, answer, after(now_jar, answer, self._evidence.now))
        return SignedIn((answer, *answers), now_jar, later, token_of(answer))

    def sign_in_as_told(self, by: Mapping[str, str]) -> SignedIn:
        """Sign in as another site's form would have it done: with no cookie and no token of ours."""
        kind = "text/plain" if self._sign_in.body == "json" else _KINDS["form"]  # what needs no preflight
        answer = self.post(self._sign_in.path, self._sign_in.fields, {}, {**by, "Content-Type": kind})
        return SignedIn((answer,), {}, after({}, answer, self._evidence.now), token_of(answer))

    def sign_out(self, path: str, signed: SignedIn, bearer: Mapping[str, str]) -> tuple[Answer, ...]:
        """Sign out as a user does; `bearer` is the Authorization header, if there is one."""
        hidden: dict[str, str] = {}
        if self._sign_in.body == "form":
            page = self._evidence.target.protected_path or self._evidence.target.path
            hidden = hidden_fields(self.client.ask("GET", page, {**OWN_PAGE, **cookie_header(signed.jar)}), path)
        answer = self.post(path, hidden, signed.jar, {**self.same_origin, **bearer})
        answers, _ = follow(self.client, self._evidence, answer, after(signed.jar, answer, self._evidence.now))
        return (answer, *answers)

    def sign_out_as_told(self, path: str, signed: SignedIn, by: Mapping[str, str]) -> Answer:
        """Sign out as another site's form would have it done: with the cookies, and no token of ours."""
        kind = "text/plain" if self._sign_in.body == "json" else _KINDS["form"]
        return self.post(path, {}, signed.jar, {**by, "Content-Type": kind})

    def get(self, path: str, jar: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """Fetch a page with some cookies."""
        return self.client.ask("GET", path, {**OWN_PAGE, **cookie_header(jar), **(headers or {})})

    def onward_when_signed_in(self, signed: SignedIn) -> Answer:
        """Ask for the sign-in page again, and to be sent on to a stranger."""
        return self.get(with_query(self._sign_in.path, dict.fromkeys(_ONWARD, f"{STRANGER}/")), signed.jar)

    def post(self, path: str, fields: Mapping[str, str], jar: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Send fields in the way that the application takes them."""
        kind = self._sign_in.body
        body = json.dumps(fields) if kind == "json" else urlencode(fields)
        sent = {**AGENT, "Content-Type": _KINDS[kind], **cookie_header(jar), **headers}
        return self.client.ask("POST", path, sent, body.encode("utf-8"))


def hidden_fields(page: Answer, action: str) -> dict[str, str]:
    """Return the hidden fields of the form that is sent to `action`, or of the only one with a password."""
    reader = _Forms()
    # The tags that count, and no others: HTMLParser takes time by the square for what a hostile page could be made of.
    for tag in _TAG.finditer(page.body if page.is_html else ""):
        reader.feed(tag[0])
    wanted = urlsplit(action).path
    for form in reader.forms:
        if _path_of(form.action, page) == wanted:
            return form.hidden
    with_password = [form for form in reader.forms if form.has_password]
    return with_password[0].hidden if len(with_password) == 1 else {}


def _path_of(action: str, page: Answer) -> str | None:
    try:
        return urlsplit(urljoin(page.path, action)).path
    except ValueError:  # such as "http://["
        return None


class _Form:
    def __init__(self, action: str) -> None:
        self.action = action
        self.hidden: dict[str, str] = {}
        self.has_password = False


class _Forms(HTMLParser):
    """Reads the forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(_Form(found.get("action", "")))
        elif tag == "input" and self.forms:
            kind = found.get("type", "").lower()
            if kind == "hidden" and found.get("name"):
                self.forms[-1].hidden[found["name"]] = found.get("value", "")
            self.forms[-1].has_password |= kind == "password"


def with_query(path: str, more: Mapping[str, str]) -> str:
    """Return a path with more in its query."""
    return f"{path}{'&' if '?' in path else '?'}{urlencode(more, errors='surrogateescape')}"


def token_of(answer: Answer) -> str | None:
    """Return the access token of a sign-in's answer, as OAuth and everybody's APIs call it."""
    try:
        body: object = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    members = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    found = [members.get(name) for name in _TOKENS]
    texts = [text for text in found if isinstance(text, str) and text.isascii() and text.isprintable() and text]
    return texts[0] if texts else None
