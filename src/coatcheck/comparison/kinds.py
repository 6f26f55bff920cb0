"""What is compared: four ways in which a request says on whose behalf it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Kind = Literal["session", "sealed", "token_cookie", "bearer"]

KINDS: Final[Mapping[Kind, str]] = {
    "session": "session (server-side)",
    "sealed": "sealed cookie",
    "token_cookie": "access token in cookie",
    "bearer": "bearer token",
}
