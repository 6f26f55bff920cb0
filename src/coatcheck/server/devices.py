"""A user agent in words, "Firefox on Linux": for people to recognise their devices, never for decisions."""

from __future__ import annotations

from functools import lru_cache

UNKNOWN = "an unknown browser"
_LONGEST = 64

# Programs, told by how their user agent begins; the table is complete enough to name our own clients without
# loading the parser.
_PROGRAMS = (
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("HTTPie/", "HTTPie"),
    ("python-requests/", "Python (requests)"),
    ("python-httpx/", "Python (httpx)"),
    ("python-httpx2/", "Python (httpx)"),
    ("Python-urllib/", "Python (urllib)"),
    ("Python/", "Python (aiohttp)"),
    ("Go-http-client/", "Go"),
)

# The parser's families that people know under another name.
_BROWSERS = {
    "Chrome Mobile": "Chrome",
    "Chrome Mobile iOS": "Chrome",
    "Chrome Mobile WebView": "an Android app",
    "Edge Mobile": "Edge",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "HeadlessChrome": "Headless Chrome",
    "IE": "Internet Explorer",
    "Mobile Safari": "Safari",
    "Mobile Safari UI/WKWebView": "an iOS app",
    "Opera Mobile": "Opera",
}
_SYSTEMS = {"Mac OS X": "macOS", "Chrome OS": "ChromeOS"}
# Where the device says more than its system.
_DEVICES = frozenset({"iPad", "iPhone"})


@lru_cache(maxsize=1024)
def describe(user_agent: str) -> str:
    """Return browser and system in words, or the program's name; `UNKNOWN` where nothing is recognised.

    The first call loads the parser and compiles its patterns, which takes about a tenth of a second: call it in
    a thread. The answers of 1024 user agents are kept.

    Args:
        user_agent: as sent; at most 256 characters, as the library keeps it.

    Not checked: whether it is true. A user agent is what the client says of itself.
    """
    for start, program in _PROGRAMS:
        if user_agent.startswith(start):
            return program
    if not user_agent:
        return UNKNOWN
    # Imported late: nothing else needs it, and `coatcheck --help` must not wait for it.
    from ua_parser import parse

    found = parse(user_agent)
    browser = found.user_agent.family if found.user_agent else None
    system = found.os.family if found.os else None
    if found.device is not None and found.device.family in _DEVICES:
        system = found.device.family
    return _words(browser, system)


def _words(browser: str | None, system: str | None) -> str:
    words = UNKNOWN if browser is None else _BROWSERS.get(browser, browser)
    if system is not None:
        words = f"{words} on {_SYSTEMS.get(system, system)}"
    # Some of the parser's patterns take a name from the user agent itself, whatever its length.
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
