"""What a response sends of its session: the cookies of one that was made, rotated or changed, and how they go away."""

from __future__ import annotations

from datetime import timedelta

from coatcheck.cookie_jar import CookieJar
from coatcheck.core.policy import Policy
from coatcheck.core.record import Record
from coatcheck.core.session import Session


def send(jar: CookieJar, session: Session, policy: Policy, now: int) -> bool:
    """Send what a session's cookies are to carry, if this request made or rotated it, or changed a sealed one.

    Args:
        jar: of the request.
        session: as its handler left it.
        policy: which cookies these are.
        now: milliseconds since the epoch.

    Returns whether anything was sent.
    """
    if session.record is None:
        return False
    lasting, kinds = _lasting(session.record, now), policy.session_cookies
    if session.cookie is None:
        jar.send(policy.seen_cookie, session.note, max_age=lasting)
        return True
    values = session.cookie.values
    for kind, value in zip(kinds, values, strict=False):
        jar.send(kind, value, max_age=lasting)
    jar.take_back(*kinds[len(values) :], policy.seen_cookie)
    return True


def take_back(jar: CookieJar, policy: Policy) -> None:
    """Take back whatever the browser has of a session, its tokens included."""
    jar.take_back(*policy.session_cookies, policy.seen_cookie, policy.access_cookie, policy.refresh_cookie)


def _lasting(record: Record, now: int) -> timedelta | None:
    """Return how long the browser is to keep a session's cookies; None: until it is closed."""
    left = timedelta(milliseconds=record.ends_at - now)
    return max(left, timedelta(seconds=1)) if record.persistent else None
