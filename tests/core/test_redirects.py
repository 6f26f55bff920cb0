"""Redirect targets: a path on our own origin, whoever reads it, or the default."""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.redirects import MAX_TARGET, local_path

DEFAULT = "/home"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/account",
        "/a/b/?q=1&r=//x#top",
        "/caf%C3%A9",
        "/a%20b",
        "/?next=https://evil.test/",
        "/#//evil.test",
        "/search?q=%2f%2f%5c%0d",
        "/a?b=\\c",
        "/~me/@you:8/;v=1",
        "/" + "a" * (MAX_TARGET - 1),
    ],
)
def test_f12_a_path_of_our_own_is_followed(target: str) -> None:
    """Path, query and fragment on our own origin pass unchanged (F12)."""
    assert local_path(target, DEFAULT) == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "account",
        "?next=1",
        "#top",
        "//evil.test",
        "///evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "\\/evil.test",
        "/a\\..\\b",
        "https:evil.test",
        "https:/evil.test",
        "https://evil.test/",
        "HTTPS://evil.test/",
        "javascript:alert(1)",
        "data:text/html,x",
        "mailto:a@evil.test",
        "%2f%2fevil.test",
        "/%2fevil.test",
        "/%2Fevil.test",
        "/%5cevil.test",
        "/%5Cevil.test",
        "/%252fevil.test",
        "/a//evil.test",
        "/..//evil.test",
        "/.//evil.test",
        " //evil.test",
        " /a",
        "/a b",
        "\t//evil.test",
        "/\t/evil.test",
        "/\n/evil.test",
        "/a\r\nSet-Cookie: a=b",
        "/a\n",
        "/%0d%0aSet-Cookie:a=b",
        "/%00",
        "/%7f",
        "/\x00",
        "/\x7f",
        "/\u2044evil.test",
        "/\uff0fevil.test",
        "/é",
        "\u2028/a",
        "/" + "a" * MAX_TARGET,
    ],
)
def test_f12_everything_else_gives_the_default(target: str) -> None:
    """Other hosts, schemes, and whatever some reader might take for one (F12)."""
    assert local_path(target, DEFAULT) == DEFAULT


@given(st.one_of(st.text(), st.text(alphabet="/\\:@.%25fFcC?#ae \t\r\n").map("/".__add__)))
def test_f12_what_is_followed_stays_on_our_origin(target: str) -> None:
    """Read as a browser does, and once more after a needless decoding, the host is still ours (F12)."""
    followed = local_path(target, DEFAULT)
    assert followed in (target, DEFAULT)
    path = re.split("[?#]", followed)[0]
    for reading in (followed, path, unquote(path)):
        resolved = urlsplit(urljoin("https://own.test/sign-in", reading.replace("\\", "/")))
        assert (resolved.scheme, resolved.netloc) == ("https", "own.test")
