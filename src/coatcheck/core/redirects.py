"""Redirect targets that a request names (`next`, `rd`): only a path on our own origin is followed (F12).

Sources: ASVS 3.7.2; the WHATWG URL Standard for what browsers make of a Location.
"""

from __future__ import annotations

import re
from typing import Final

MAX_TARGET: Final = 2048

# Visible ASCII only: a browser drops TAB, CR and LF from a URL first, so "/<TAB>/evil" is "//evil".
_SHAPE = re.compile(r"/[!-~]*")
# "//evil" names a host, a backslash counts as a slash, and whoever decodes once more on the way makes either
# out of an escape. `%25` is refused because it hides the others from the first decoding.
_DOUBTFUL = re.compile(r"//|\\|%(?:2f|5c|25|7f|[01][0-9a-f])", re.IGNORECASE)
_END_OF_PATH = re.compile(r"[?#]")


def local_path(target: str, default: str) -> str:
    """Return `target` if following it stays on our own origin whoever reads it, else `default`.

    Args:
        target: what the request asks for, decoded once, as frameworks hand out a query value.
        default: where to go otherwise; it is ours and not judged.

    Accepted is a path of visible ASCII with an optional query and fragment, of at most 2048 characters.
    Refused are URLs with a scheme or a host, `//` and backslashes anywhere in the path, and escapes that
    hide them.

    Not checked: that the path exists, or that the user may see it. For a target on another, listed origin
    compare `csrf.origin_of(target)` with the list.
    """
    if len(target) > MAX_TARGET or not _SHAPE.fullmatch(target):
        return default
    path = _END_OF_PATH.split(target, maxsplit=1)[0]
    return default if _DOUBTFUL.search(path) else target
