"""Every error that coatcheck raises: who is at fault, and what the caller does.

CoatcheckError
├── CredentialError         what the client presented is no good: 401 and a challenge
│   ├── Missing             nothing was presented where something is required
│   ├── Malformed           it cannot be read at all
│   ├── BadSignature        it was not made by us, or was altered
│   ├── Expired             it was good once
│   ├── WrongClaim          it is genuine, but not for this use (`.claim` says which claim)
│   ├── Revoked             its session was ended, or never existed
│   │   └── Superseded      its browser has been given a newer cookie since
│   ├── Reused              a spent refresh token: its session has been ended
│   └── Insufficient        genuine and alive, but not enough: scope, or too long ago
├── CrossSite               a browser sent it for another site: 403
├── TooManySessions         the subject has as many sessions as the policy allows: 403
├── SessionGone             the session ended while the request ran
├── Conflict                somebody else wrote first, and the caller asked to be told
├── StoreUnavailable        503: nothing can be said, so nobody is signed in or out
├── InvalidValue            what was handed in cannot be sent or stored; also a ValueError
└── ConfigurationError      what was set up cannot work, or would not be safe; also a ValueError

No message ever contains a secret, a credential, or a part of one.
"""

from __future__ import annotations

from typing import ClassVar


class CoatcheckError(Exception):
    """The root of everything that coatcheck raises.

    `code` is stable and safe to show; `oauth_error` is the word that RFC 6749, 6750 or 9470 has for it.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    oauth_error: str = "server_error"


class CredentialError(CoatcheckError):
    """The client's credential is no good: answer 401 with a challenge (RFC 6750, section 3)."""

    status = 401
    code = "invalid_credential"
    oauth_error = "invalid_token"


class Missing(CredentialError):
    """No credential was presented; the challenge then carries no error word (RFC 6750, section 3.1)."""

    code = "missing"


class Malformed(CredentialError):
    """The credential cannot be read: wrong shape, alphabet, size or encoding."""

    code = "malformed"


class BadSignature(CredentialError):
    """The credential was not made with one of our keys, or was altered."""

    code = "bad_signature"


class Expired(CredentialError):
    """The credential is past its time, or not yet valid."""

    code = "expired"


class WrongClaim(CredentialError):
    """The token is genuine but not for this use; `claim` names the claim that says so."""

    code = "wrong_claim"

    def __init__(self, claim: str, message: str) -> None:
        super().__init__(message)
        self.claim = claim


class Revoked(CredentialError):
    """The session behind the credential was ended, or there never was one."""

    code = "revoked"


class Superseded(Revoked):
    """The session's browser has been given another cookie: by a rotation, or a sign-in. This one came late."""


class Reused(CredentialError):
    """A spent refresh token was presented again; the session it belongs to has been ended (RFC 9700, 4.14.2)."""

    code = "reused"
    oauth_error = "invalid_grant"


class Insufficient(CredentialError):
    """The principal is genuine, but its scope or the age or kind of its sign-in is not enough.

    `oauth_error` is "insufficient_scope" (RFC 6750: 403, see `coatcheck.core.challenge.status`) or
    "insufficient_user_authentication" (RFC 9470: 401).
    """

    code = "insufficient"

    def __init__(self, oauth_error: str, message: str, *, max_age: int | None = None, scope: str = "") -> None:
        super().__init__(message)
        self.oauth_error = oauth_error
        self.max_age = max_age
        self.scope = scope


class CrossSite(CoatcheckError):
    """A browser sent the request on behalf of another site (CSRF): answer 403."""

    status = 403
    code = "cross_site"
    oauth_error = "access_denied"


class TooManySessions(CoatcheckError):
    """The subject has as many sessions as the policy's `max_sessions` allows, and it says `refuse` (S9): 403."""

    status = 403
    code = "too_many_sessions"
    oauth_error = "access_denied"


class SessionGone(CoatcheckError):
    """The session ended while the request ran; what it wanted to write is dropped, for dead is final."""

    status = 401
    code = "session_gone"
    oauth_error = "invalid_token"


class Conflict(CoatcheckError):
    """Somebody else wrote first, and the caller asked to be told instead of merged."""

    status = 409
    code = "conflict"
    oauth_error = "invalid_request"


class StoreUnavailable(CoatcheckError):
    """The store or the feed cannot answer: 503, and cookies are left alone."""

    status = 503
    code = "unavailable"
    oauth_error = "temporarily_unavailable"


class InvalidValue(CoatcheckError, ValueError):
    """What was handed in cannot be sent or stored: a cookie over its limit, data that is not plain."""

    code = "invalid_value"


class ConfigurationError(CoatcheckError, ValueError):
    """What was set up cannot work, or would not be safe: an argument, a key file, a database of a newer version."""

    code = "configuration"
