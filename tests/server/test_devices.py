"""User agents in words: people recognise their devices by them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.server.devices import UNKNOWN, _words, describe

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
PHONE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
TABLE = [
    ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
    ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Ubuntu"),
    ("Mozilla/5.0 (Android 14; Mobile; rv:132.0) Gecko/132.0 Firefox/132.0", "Firefox on Android"),
    (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/142.0.0.0 Safari/537.36", "Chrome on Windows"),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
        "Edge on Windows",
    ),
    (f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT} Chrome/142.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
    (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/142.0.0.0 Safari/537.36", "Chrome on ChromeOS"),
    (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/156.0.0.0 Safari/537.36", "Headless Chrome on Linux"),
    (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {PHONE} Version/18.1 Safari/605.1.15", "Safari on macOS"),
    (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) {PHONE} Version/18.2 Mobile/15E148 Safari/604.1",
        "Safari on iPhone",
    ),
    (
        f"Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) {PHONE} CriOS/120.0 Mobile/15E148 Safari/604.1",
        "Chrome on iPad",
    ),
    ("curl/7.88.1", "curl"),
    ("Wget/1.21.3", "Wget"),
    ("HTTPie/3.2.2", "HTTPie"),
    ("python-requests/2.32.3", "Python (requests)"),
    ("python-httpx/0.28.1", "Python (httpx)"),
    ("Python-urllib/3.11", "Python (urllib)"),
    ("Python/3.11 aiohttp/3.9.1", "Python (aiohttp)"),
    ("Go-http-client/1.1", "Go"),
    ("", UNKNOWN),
    ("my own client", UNKNOWN),
    ("x" * 256, UNKNOWN),
    ("(X11; Linux x86_64)", f"{UNKNOWN} on Linux"),
]


@pytest.mark.parametrize(("user_agent", "words"), TABLE)
def test_what_a_user_agent_is_called(user_agent: str, words: str) -> None:
    """Browsers by browser and system, programs by their name, the rest is unknown."""
    assert describe(user_agent) == words


@given(st.text(max_size=256))
def test_any_user_agent_has_words_and_few_of_them(user_agent: str) -> None:
    """Whatever a client says of itself, the page stays a page."""
    assert 0 < len(describe(user_agent)) <= 64


def test_a_long_name_from_the_user_agent_itself_is_cut() -> None:
    """Some of the parser's patterns take the name as it comes; the words end in an ellipsis then."""
    words = _words("B" * 80, "Linux")
    assert len(words) == 64
    assert words.endswith("B…")


def test_the_parser_is_loaded_by_the_first_browser_only() -> None:
    """Importing the module, and naming a program, loads no parser."""
    code = (
        "import sys; from coatcheck.server.devices import describe; describe('curl/8'); describe('');"
        "assert 'ua_parser' not in sys.modules; describe('x'); assert 'ua_parser' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
