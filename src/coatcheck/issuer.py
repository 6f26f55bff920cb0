"""Issuer: makes the credentials of a session: its cookie, and the Grant of an access and a refresh token."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from coatcheck.clock import Clock
from coatcheck.core import base64url
from coatcheck.core.claims import build_access_token
from coatcheck.core.credentials import RefreshToken, SessionCookie
from coatcheck.core.jws import sign
from coatcheck.core.keys import Keyring
from coatcheck.core.policy import Policy, seconds
from coatcheck.core.record import Record
from coatcheck.core.session import Session
from coatcheck.errors import InvalidValue


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a client gets to act for a session: the members of RFC 6749, section 5.1.

    Args:
        access_token: a JWT (RFC 9068), good for `expires_in` seconds.
        refresh_token: good once, for the next grant.
        expires_in: seconds.
        scope: space-separated.
        token_type: always Bearer (RFC 6750).
        lasts: seconds that cookies which carry the tokens may last; 0 for cookies that end with the browser.
    """

    access_token: str
    refresh_token: str
    expires_in: int
    scope: str = ""
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme
    lasts: int = 0

    def __repr__(self) -> str:
        return f"<Grant expires_in={self.expires_in} scope={self.scope!r}>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("expires_in", self.expires_in), ("scope", self.scope)]


MoreClaims = Callable[[Session], Awaitable[Mapping[str, object]]]
"""Returns what a session's next access token says besides; whatever it raises, no token is made."""


async def no_more_claims(_: Session) -> Mapping[str, object]:
    """Return nothing: access tokens say what RFC 9068 lists, and `sid`."""
    return {}


class Issuer:
    """Makes grants. Not checked: that the session is alive; its caller has just loaded or written it.

    Attributes: `more_claims`, which whoever puts a service together may set before it begins.
    """

    def __init__(self, keyring: Keyring, policy: Policy, clock: Clock) -> None:
        self.more_claims: MoreClaims = no_more_claims
        self._keyring = keyring
        self._policy = policy
        self._clock = clock

    async def grant(self, record: Record) -> Grant:
        """Return a new access token, and the refresh token of the record's generation.

        Raises:
            InvalidValue: nobody is signed in to the session.
            ConfigurationError: the key ring can only verify.
            CoatcheckError: what `more_claims` raises.
        """
        if record.subject is None:
            raise InvalidValue("an anonymous session has no tokens")
        extra = await self.more_claims(Session(record))
        now = self._clock() // 1000
        lifetime = min(seconds(self._policy.access_lifetime), max(1, record.ends_at // 1000 - now))
        scope = " ".join(record.scopes)
        claims = build_access_token(
            issuer=self._policy.issuer,
            audience=self._policy.audience,
            client_id=self._policy.client_id,
            subject=record.subject,
            session_id=record.id,
            token_id=secrets.token_urlsafe(16),
            issued_at=now,
            lifetime=lifetime,
            scope=scope,
            auth_time=record.signed_in_at // 1000,
            amr=record.amr,
            extra=extra,
        )
        return Grant(
            access_token=sign(claims, self._keyring.signing_key(), typ="at+jwt"),
            refresh_token=RefreshToken(record.id, record.generation).seal(self._keyring.derive("refresh")[0]),
            expires_in=lifetime,
            scope=scope,
            lasts=max(1, record.ends_at // 1000 - now) if record.persistent else 0,
        )


def mint_cookie() -> SessionCookie:
    """Return the cookie of a new session: 128 random bits of id and 256 of secret (S1)."""
    return SessionCookie(base64url.encode(secrets.token_bytes(16)), secrets.token_bytes(32))
