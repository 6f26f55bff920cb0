"""The demonstration's cookies: one of every kind, under names of their own, and what a visit tells about them.

They carry one random marker each time they are set, so that it shows whether those that end with the browser are still
of the same browser session as the one that lasts.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from coatcheck.core.cookies import parse_cookies

_HERE: Final = "Path=/compare"
_DAY: Final = 86_400  # seconds


class DemoCookie(NamedTuple):
    """A kind of cookie.

    Args:
        name: as it is set.
        attributes: the rest of its line.
        travels: when browsers add it to a request that another site had them send, in words.
    """

    name: str
    attributes: str
    travels: str

    @property
    def script(self) -> bool:
        """Whether a script in the page can read it."""
        return "HttpOnly" not in self.attributes

    @property
    def survives(self) -> bool:
        """Whether it survives the end of the browser."""
        return "Max-Age" in self.attributes

    def line(self, marker: str) -> str:
        """Return the value of the Set-Cookie header that sets it."""
        return f"{self.name}={marker}; {self.attributes}"

    @property
    def deletion(self) -> str:
        """The value of the Set-Cookie header that takes it back; Max-Age=0 counts, since it comes last."""
        return f"{self.name}=; {self.attributes}; Max-Age=0"


_ON_LINKS: Final = "when somebody follows a link to us"
_NEVER: Final = "never"
_ALWAYS: Final = "always, unless the browser blocks third-party cookies"

COOKIES: Final[Sequence[DemoCookie]] = (
    DemoCookie("compare-plain", _HERE, "as the browser likes; Chromium: as Lax"),
    DemoCookie("compare-httponly", f"{_HERE}; HttpOnly", "as the browser likes; Chromium: as Lax"),
    DemoCookie("compare-secure", f"{_HERE}; Secure", "as the browser likes; Chromium: as Lax"),
    DemoCookie("compare-lax", f"{_HERE}; SameSite=Lax", _ON_LINKS),
    DemoCookie("compare-strict", f"{_HERE}; SameSite=Strict", _NEVER),
    DemoCookie("compare-none", f"{_HERE}; Secure; SameSite=None", _ALWAYS),
    DemoCookie(
        "compare-partitioned",
        f"{_HERE}; Secure; SameSite=None; Partitioned",
        "when somebody follows a link to us; within other sites’ pages there is another jar",
    ),
    DemoCookie("compare-lasting", f"{_HERE}; SameSite=Lax; Max-Age={_DAY}", _ON_LINKS),
    DemoCookie("__Host-compare", "Path=/; Secure; SameSite=Lax", _ON_LINKS),
    DemoCookie("__Host-compare-ours", "Path=/; Secure; HttpOnly; SameSite=Lax", _ON_LINKS),
)

# What is said of them and cannot be seen on the page itself, and the tests in a browser that prove it.
_BROWSER: Final = "tests/browser/test_compare.py"
PROOFS: Final = (
    f"{_BROWSER}::test_c5_after_a_restart_the_page_knows_that_it_is_another_browser_session",
    f"{_BROWSER}::test_what_travels_from_another_site_is_what_the_table_says",
)

_SESSION: Final = "compare-plain"
_LASTING: Final = "compare-lasting"

# What a visit tells about the browser's end, by what came: the one that ends with it, the one that lasts, one marker.
_TOLD: Final = {
    (False, False, False): "none",
    (True, True, True): "same",
    (False, True, False): "another",
    (True, False, False): "no-lasting",
    (True, True, False): "mixed",
}


def new_lines() -> list[str]:
    """Return the Set-Cookie lines of all of them, with a new marker."""
    marker = secrets.token_urlsafe(6)
    return [cookie.line(marker) for cookie in COOKIES]


def received(headers: Sequence[bytes]) -> dict[str, str]:
    """Return those that came with a request, by name, and nothing else of its Cookie headers."""
    names = {cookie.name.encode("ascii") for cookie in COOKIES}
    return {name.decode("ascii"): value.decode("latin-1") for name, value in parse_cookies(headers) if name in names}


def browser_session(came: dict[str, str]) -> str:
    """Return what a visit tells about the end of the browser: a word for which the page has sentences."""
    session, lasting = came.get(_SESSION), came.get(_LASTING)
    return _TOLD[session is not None, lasting is not None, session is not None and session == lasting]
