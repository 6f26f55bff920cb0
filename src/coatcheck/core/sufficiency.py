"""Sufficiency: whether what is known of a principal is enough for what it wants to do (RFC 6750, 3.1; RFC 9470)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from coatcheck.core.claims import Principal
from coatcheck.core.policy import seconds
from coatcheck.core.record import words
from coatcheck.errors import Insufficient


def judge(
    principal: Principal, *, scopes: Collection[str], max_age: timedelta | None, amr: Collection[str], now: int
) -> None:
    """Refuse a principal that is genuine but not enough.

    Args:
        principal: whom the request acts as.
        scopes: all of these must have been granted at the sign-in.
        max_age: how long ago the sign-in may have been (S15).
        amr: one of these must be among the ways in which the subject signed in.
        now: seconds since the epoch.

    Raises:
        Insufficient: it is not.
    """
    scopes, amr = words(scopes), words(amr)
    if not set(scopes) <= set(principal.scopes):
        raise Insufficient("insufficient_scope", "the token's scope does not suffice", scope=" ".join(scopes))
    too_old = max_age is not None and (principal.auth_time is None or now - principal.auth_time > seconds(max_age))
    if too_old or (amr and not set(amr) & set(principal.amr)):
        raise Insufficient(
            "insufficient_user_authentication",
            "sign in again to do this",
            max_age=None if max_age is None else seconds(max_age),
        )
