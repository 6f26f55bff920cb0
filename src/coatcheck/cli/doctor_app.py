"""What `coatcheck doctor --url` looks at: the answers of a running app, as a browser would take them."""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
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
_DELETED: Final = ("", "deleted")  # what PHP writes
_YEAR_MS: Final = 31_536_000_000  # an Expires of 1970 is meant to be over
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
        second = _get(parts, [line for line in first.lines if _comes_back(line, parts)])
    except (OSError, http.client.HTTPException) as error:
        yield _no_answer(parts, error)
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
    # Of one name and place, the last one counts.
    kept = {(each.name, each.domain, each.path): each for line in cookies if (each := line.stored)}
    if kept:
        headers["Cookie"] = b"; ".join(each.name + b"=" + each.value for each in kept.values()).decode("latin-1")
    start = time()
    try:
        connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""), headers=headers)
        response = connection.getresponse()
        fields = [(name.lower(), value) for name, value in response.getheaders()]
    finally:
        connection.close()
    return Answer(url, response.status, fields, int((start + time()) * 500))


def _no_answer(url: SplitResult, error: Exception) -> Diagnosis:
    if isinstance(error, http.client.LineTooLong) or type(error) is http.client.HTTPException:
        words = "its answer has more than 100 headers, or one of more than 65536 octets: no proxy takes that"
        return Diagnosis("size of headers", "broken", words, "keep data on the server and an id in the cookie")
    fix = "start it; or let its certificate name the host" if isinstance(error, ssl.SSLError) else "start it"
    return Diagnosis("app", "broken", f"{url.hostname} does not answer: {reason_of(error)}", fix)


def _comes_back(line: Line, url: SplitResult) -> bool:
    """Say whether a browser sends a cookie back to the address that has set it."""
    stored = line.stored
    if stored is None or line.deletes or _is_foreign(line, url) or not _covers(line, url):
        return False
    return not stored.secure or url.scheme == "https" or _is_local(url)


def _covers(line: Line, url: SplitResult) -> bool:
    """Say whether a cookie's Path is the address's or above it: /app covers /app/x, and not /apple (6265bis, 5.1.4)."""
    path = line.stored.path if line.stored else None
    return path is None or f"{url.path or '/'}/".startswith(f"{path.decode('latin-1').removesuffix('/')}/")


def _is_foreign(line: Line, url: SplitResult) -> bool:
    """Say whether a Domain covers another host than the one that has set it: browsers drop such a cookie."""
    domain, host = line.stored.domain if line.stored else None, url.hostname or ""
    return bool(domain) and host != domain and (_is_address(host) or not host.endswith(f".{domain}"))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


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
    wrong += _never_kept(answer)
    kept = sum(not line.deletes for line in answer.lines)
    words = f"it sets {kept}, and browsers keep them" if kept else "it takes back some, and sets none"
    yield from wrong or [Diagnosis("cookies", "fine", words)]


def _never_kept(answer: Answer) -> Iterator[Diagnosis]:
    """Say which cookies a browser drops because of the address that they come from, or the time."""
    for line in answer.lines:
        if line.stored is None:
            continue
        if _is_foreign(line, answer.url):
            words = f"{line.name}: Domain={line.stored.domain} does not cover {answer.url.hostname}: browsers drop it"
            yield Diagnosis("cookies", "broken", words, "leave Domain out, or serve it from that domain")
        elif line.deletes and line.value not in _DELETED and (line.stored.expires_at or 0) > _YEAR_MS:
            words = f"{line.name} has a value, and a lifetime that is over: browsers forget it at once"
            yield Diagnosis("cookies", "broken", words, "compare the clocks; Expires is in GMT, whatever the time zone")
        elif not line.deletes and role_of(line.name) == "credential" and not _covers(line, answer.url):
            words = (
                f"{line.name}: Path={line.counts.get('path', '')} does not cover this page: it does not come back here"
            )
            yield Diagnosis("cookies", "attention", words, "set it with Path=/, or ask for a page below its Path")


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
    if second.status >= 400 > first.status:
        words = f"with its own cookies it answers {second.status}, and {first.status} without any"
        yield Diagnosis("recognised", "broken", words, "paste its headers into `coatcheck inspect`; see its log")
        return
    anew = {line.name: line.value for line in second.lines if _comes_back(line, second.url)}
    back = {line.name: line for line in first.lines if _comes_back(line, first.url)}
    for line in back.values():
        if role_of(line.name) != "credential":
            continue
        if anew.get(line.name, line.value) == line.value:
            yield Diagnosis("recognised", "fine", f"{line.name} was sent back, and is known again")
            continue
        kind = inspect(line.value.encode("latin-1", "replace"), now=system_clock()).kind
        if kind in _LASTING:
            yield Diagnosis(
                "recognised",
                "broken",
                f"{line.name} was sent back, and it gave another one: each request is a new visitor to it",
                "let all processes share one store and one secret; see that the store answers, and that nothing "
                "before the app removes the Cookie header",
            )
        else:
            words = (
                f"{line.name} was sent back, and it gave another one: what a {kind} holds may be the same for all that"
            )
            yield Diagnosis("recognised", "not looked at", words)
