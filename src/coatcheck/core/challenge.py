"""Refusals as HTTP has them: the status, and the WWW-Authenticate challenge (RFC 6750, section 3; RFC 9470).

error                                   status   challenge
nothing presented                       401      Bearer
presented and no good                   401      Bearer error="invalid_token"
scope does not suffice                  403      Bearer error="insufficient_scope", scope="..."
sign-in too old or too weak             401      Bearer error="insufficient_user_authentication", max_age=...
another site's request                  403      none
the store cannot answer                 503      none, and Retry-After
"""

from __future__ import annotations

from coatcheck.errors import CoatcheckError, CredentialError, Insufficient, Missing, SessionGone, StoreUnavailable

RETRY_AFTER_SECONDS = 1


def status(error: CoatcheckError) -> int:
    """Return the HTTP status that an error answers with."""
    if isinstance(error, Insufficient) and error.oauth_error == "insufficient_scope":
        return 403
    return error.status


def headers(error: CoatcheckError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with an error's answer; never a part of the credential."""
    found = [(b"cache-control", b"no-store")]
    if isinstance(error, CredentialError | SessionGone):
        found.append((b"www-authenticate", _challenge(error).encode("ascii")))
    if isinstance(error, StoreUnavailable):
        found.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode("ascii")))
    return found


def _challenge(error: CoatcheckError) -> str:
    if isinstance(error, Missing):
        return "Bearer"
    # A bearer token that cannot be used is an invalid token here, whatever the token endpoint would call it.
    word = error.oauth_error if isinstance(error, Insufficient) else "invalid_token"
    parts = [f'error="{word}"']
    if isinstance(error, Insufficient) and error.scope:
        parts.append(f'scope="{error.scope}"')
    if isinstance(error, Insufficient) and error.max_age is not None:
        parts.append(f"max_age={error.max_age}")
    return "Bearer " + ", ".join(parts)
