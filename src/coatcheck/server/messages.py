"""Messages: the bodies that the JSON API takes and gives, and those of /ssf/; `openapi.py` describes them.

Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from coatcheck import Grant


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What /api/sign-in takes."""

    account: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=4096)]
    deliver: Literal["cookie", "token"] = "cookie"
    remember: bool = False
    tokens: bool = False


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What /api/refresh takes; without a refresh token in the body, the cookie's counts."""

    refresh_token: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class SignOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What /api/sign-out takes: nothing, or a refresh token whose session is to end."""

    refresh_token: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class SignOutEverywhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What /api/sign-out-everywhere takes."""

    keep_current: bool = False


class CurrentSession(msgspec.Struct, frozen=True):
    """Whom a request acts as."""

    subject: str
    account: str
    admin: bool
    session_id: str
    auth_time: int | None
    amr: tuple[str, ...]
    scopes: tuple[str, ...]


class Device(msgspec.Struct, frozen=True):
    """One of your sessions."""

    id: str
    current: bool
    signed_in_at: int
    last_seen_at: int
    user_agent: str
    address: str


class Devices(msgspec.Struct, frozen=True):
    """Your sessions, last seen first."""

    sessions: list[Device]


class Ended(msgspec.Struct, frozen=True):
    """How many sessions were ended."""

    ended: int


class Problem(msgspec.Struct, frozen=True):
    """An error."""

    error: str
    code: str
    error_description: str


class Health(msgspec.Struct, frozen=True):
    """How the process is."""

    status: Literal["ok", "unavailable"]
    problems: tuple[str, ...] = ()


class Tokens(msgspec.Struct, frozen=True):
    """What a client that keeps no cookies gets: the members of RFC 6749, section 5.1."""

    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str
    scope: str

    @classmethod
    def of(cls, grant: Grant) -> Tokens:
        """Return a grant as the API gives it."""
        return cls(grant.access_token, grant.refresh_token, grant.expires_in, grant.token_type, grant.scope)


class Refreshed(msgspec.Struct, frozen=True):
    """What /api/refresh gives when the tokens are in cookies."""

    expires_in: int


class SetError(msgspec.Struct, frozen=True):
    """Why a receiver will not have a token (RFC 8936, section 2.6)."""

    err: str
    description: str = ""


class Poll(msgspec.Struct, frozen=True):
    """What /ssf/poll takes (RFC 8936, section 2.2); members that are not known are ignored."""

    maxEvents: Annotated[int, Meta(ge=0)] | UnsetType = UNSET  # noqa: N815 - the name in the RFC
    returnImmediately: bool = False  # noqa: N815 - the name in the RFC
    ack: list[str] = []
    setErrs: dict[str, SetError] = {}  # noqa: N815 - the name in the RFC


class Polled(msgspec.Struct, frozen=True):
    """What it gives: tokens by `jti`, and whether there are more of them (RFC 8936, section 2.3)."""

    sets: dict[str, str]
    moreAvailable: bool  # noqa: N815 - the name in the RFC


class Verify(msgspec.Struct, frozen=True):
    """What /ssf/verify takes (Shared Signals Framework 1.0, section 8.1.4.2)."""

    stream_id: str
    state: Annotated[str, Meta(min_length=1, max_length=2_048)] | UnsetType = UNSET
