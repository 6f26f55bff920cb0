"""What `coatcheck doctor --url` looks at: the answers of a running app, as a browser would take them."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Final
from urllib.parse import SplitResult, urlsplit

from coatcheck.cli.diagnosis import Diagnosis, of_clock, reason_of
from coatcheck.clock import system_clock
from coatcheck.errors import ConfigurationError
from coatcheck.inspection import Report, inspect
from coatcheck.inspection.names import role_of
from coatcheck.inspection.set_cookie_line import Line

_URL: Final = re.compile(r"https?://[!-~]+")
_SECONDS: Final = 5.0
_DATE_FORGIVES_MS: Final = 2_000  # it counts in seconds
_MOST_OCTETS: Final = 8_192  # of all headers: nginx, Apache and gunicorn take about as many
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
# Values that say who somebody is by being the same; others are made anew in each answer.
_LASTING: Final = ("opaque value", "UUID", "coatcheck session cookie", "Express signed value", "number")


@dataclass(frozen=True)
class Answer:
    """A response's status and headers; names in small letters."""

    url: SplitResult
    status: int
    fields: list[tuple[str, str]]
    asked_at: int  # milliseconds since the epoch, in the middle of the exchange

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for found, value in self.fields if found == name]

    @property
    def lines(self) -> list[Line]:
        """The Set-Cookie lines."""
        return [Line.read(value, self.asked_at) for value in self.all("set-cookie")]

    def report(self) -> Report:
        """Return what `inspect` says about the headers."""
        flat = [(name, value.replace("\r", " ").replace("\n", " ")) for name, value in self.fields]  # were folded
        lines = [f"HTTP/1.1 {self.status} .", *(f"{name}: {value}" for name, value in flat)]
        return inspect("\n".join(lines).encode("latin-1", "replace"), now=self.asked_at)


def app(url: str) -> Iterator[Diagnosis]:
    """Yield what the answers of a running app say.

    Args:
        url: of a page that visitors see; it is asked twice, with GET, the second time with the cookies of the first.

    Raises:
        ConfigurationError: it is no http or https URL.
    """
    parts = _url(url)
    try:
        first = _get(parts, [])
        second = _get(parts, first.lines)
    except (OSError, http.client.HTTPException) as error:
        fix = "start it; or let its certificate name the host" if isinstance(error, ssl.SSLError) else "start it"
        yield Diagnosis("app", "broken", f"{parts.hostname} does not answer: {reason_of(error)}", fix)
        return
    if first.status >= 500:
        yield Diagnosis("app", "broken", f"it answers {first.status}", "see its log")
    else:
        yield Diagnosis("app", "fine", f"it answers {first.status}")
    yield from _date(first)
    yield _size(first)
    yield from _cookies(first)
    yield from _scheme(first)
    yield from _caching(first)
    yield from _recognised(first, second)


def _url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or not _URL.fullmatch(url):
        raise ConfigurationError("--url: an address is written http://host[:port]/path or https://host[:port]/path")
    return urlsplit(url)


def _get(url: SplitResult, cookies: list[Line]) -> Answer:
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=_SECONDS)
    headers = {"User-Agent": "coatcheck doctor", "Accept": "text/html,*/*"}
    kept = [line.stored for line in cookies if line.stored is not None and not line.deletes]
    if url.scheme == "http" and not _is_local(url):
        kept = [each for each in kept if not each.secure]
    if kept:
        headers["Cookie"] = b"; ".join(each.name + b"=" + each.value for each in kept).decode("latin-1")
    start = time()
    try:
        connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""), headers=headers)
        response = connection.getresponse()
        fields = [(name.lower(), value) for name, value in response.getheaders()]
    finally:
        connection.close()
    return Answer(url, response.status, fields, int((start + time()) * 500))


def _is_local(url: SplitResult) -> bool:
    """Say whether browsers keep Secure cookies of this host without https."""
    host = url.hostname or ""
    return host in _LOOPBACK or host.endswith(".localhost")


def _date(answer: Answer) -> Iterator[Diagnosis]:
    for value in answer.all("date")[:1]:
        try:
            theirs = parsedate_to_datetime(value).timestamp() * 1000
        except (ValueError, OverflowError):
            yield Diagnosis("clock of the app", "attention", "its Date header is no date", "leave it to the server")
            return
        # It was cut off to whole seconds: half a second more is the better guess.
        yield of_clock("clock of the app", theirs + 500 - answer.asked_at, _DATE_FORGIVES_MS)


def _size(answer: Answer) -> Diagnosis:
    octets = sum(len(name) + len(value) + 4 for name, value in answer.fields)
    kept = sum(line.size + 3 for line in answer.lines if line.stored is not None)
    words = f"the answer's headers have {octets} octets; its cookies come back as {kept}"
    if max(octets, kept) > _MOST_OCTETS:
        fix = "keep data on the server and an id in the cookie; proxies answer 400, 431 or 502 beyond some 8 KiB"
        return Diagnosis("size of headers", "broken", words, fix)
    if max(octets, kept) > _MOST_OCTETS // 2:
        fix = "keep less in cookies: nginx takes 4 KiB of a proxied answer's headers on some machines"
        return Diagnosis("size of headers", "attention", words, fix)
    return Diagnosis("size of headers", "fine", words)


def _cookies(answer: Answer) -> Iterator[Diagnosis]:
    """Say which cookies browsers drop, and what `inspect` holds against the others."""
    if not answer.lines:
        yield Diagnosis("cookies", "fine", "it sets none for a visitor who has none")
        return
    report = answer.report()
    found = [(part.name, each) for part in report.parts for each in part.report.findings if part.name[:3] == "Set"]
    dropped = {part.name for part in report.parts if part.report.summary.startswith("A browser ignores")}
    wrong = [
        Diagnosis("cookies", "broken" if name in dropped else "attention", f"{name}: {each.seen}: {each.why}", each.fix)
        for name, each in found
        if each.severity in ("high", "medium")
    ]
    wrong += [
        Diagnosis("cookies", "attention", f"{each.seen}: {each.why}", each.fix)
        for each in report.findings
        if each.id == "set-cookie-twice"
    ]
    yield from wrong or [Diagnosis("cookies", "fine", f"it sets {len(answer.lines)}, and browsers keep them")]


def _scheme(answer: Answer) -> Iterator[Diagnosis]:
    """Say whether the app knows how its visitors come."""
    if answer.url.scheme == "http" and not _is_local(answer.url):
        secure = [line.name for line in answer.lines if line.stored is not None and line.stored.secure]
        if secure:
            words = f"{', '.join(secure)}: Secure, and this address is plain http: browsers drop such a cookie"
            yield Diagnosis(
                "Secure cookies", "broken", words, "serve it over https; on one's own machine, as localhost"
            )
    for target in answer.all("location"):
        if answer.url.scheme == "https" and target.startswith(f"http://{answer.url.hostname}"):
            words = "asked by https, it leads to http: it does not know that it is behind a proxy that speaks https"
            fix = "let the proxy send X-Forwarded-Proto, and have the app's server believe it (FORWARDED_ALLOW_IPS)"
            yield Diagnosis("proxy headers", "broken", words, fix)


def _caching(answer: Answer) -> Iterator[Diagnosis]:
    """Say whether caches keep one visitor's answer from others (C18)."""
    names = [line.name for line in answer.lines if role_of(line.name) == "credential" and not line.deletes]
    if not names:
        return
    control, vary = ",".join(answer.all("cache-control")).lower(), ",".join(answer.all("vary")).lower()
    if "no-store" not in control and "private" not in control:
        words = f"it sets {', '.join(names)}, and caches may keep the answer: others then get the same cookie"
        yield Diagnosis("caching", "attention", words, "send Cache-Control: no-store with a session's cookie")
    elif "cookie" not in vary and "*" not in vary and "no-store" not in control:
        words = "what it answers depends on the cookie, and Vary does not say so"
        yield Diagnosis("caching", "attention", words, "send Vary: Cookie")
    else:
        yield Diagnosis("caching", "fine", "caches keep nothing of it for others")


def _recognised(first: Answer, second: Answer) -> Iterator[Diagnosis]:
    """Say whether the app knows the cookie again that it has just set."""
    anew = {line.name: line.value for line in second.lines if line.value and not line.deletes}
    for line in first.lines:
        if line.deletes or line.stored is None or role_of(line.name) != "credential":
            continue
        if line.stored.secure and first.url.scheme == "http" and not _is_local(first.url):
            continue  # no browser would have sent it back
        kind = inspect(line.value.encode("latin-1", "replace"), now=system_clock()).kind
        if kind in _LASTING and anew.get(line.name, line.value) != line.value:
            yield Diagnosis(
                "recognised",
                "broken",
                f"{line.name} was sent back, and it gave another one: each request is a new visitor to it",
                "let all processes share one store and one secret; see that the store answers, and that nothing "
                "before the app removes the Cookie header",
            )
        else:
            yield Diagnosis("recognised", "fine", f"{line.name} was sent back, and is known again")
