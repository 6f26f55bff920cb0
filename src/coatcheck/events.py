"""Event: what happened to a session, for the audit trail (S22). Never holds a secret."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

Kind = Literal["created", "signed_in", "rotated", "refreshed", "reused", "revoked", "expired"]
"""A visit began; somebody signed in; a session got a new id; a refresh token was spent; one was spent twice; a session
was ended; somebody came with the cookie of one that has expired, each time they do."""

_log = logging.getLogger("coatcheck.events")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a session's life.

    Args:
        kind: what happened.
        at: when, in milliseconds since the epoch.
        session_id: the public id of the session; safe to log. Where all sealed sessions of a subject were ended, "".
        subject: whose session it is, or None for an anonymous one.
        reason: why, in a few fixed words.
        address: where the request came from, if it is known.
    """

    kind: Kind
    at: int
    session_id: str
    subject: str | None = None
    reason: str = ""
    address: str = ""


OnEvent = Callable[[Event], None]
"""Called for each event, after it is durable; it must be quick, and must not raise."""


def log_event(event: Event) -> None:
    """Write an event to the logger `coatcheck.events`: what happens when nobody asked for anything else.

    The log record carries the event's fields as `coatcheck`, a dictionary, for formatters that write JSON.
    """
    _log.info(
        "session %s: id=%s subject=%r reason=%s address=%s",
        event.kind,
        event.session_id,
        event.subject,
        event.reason or "-",
        event.address or "-",
        extra={"coatcheck": msgspec.to_builtins(event)},
    )


def all_of(*sinks: OnEvent) -> OnEvent:
    """Return what tells each of several of an event; one that raises does not keep the others from hearing it.

    Args:
        sinks: told in this order.
    """

    def tell(event: Event) -> None:
        for sink in sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001 - an audit sink may fail in any way
                _log.exception("a sink failed for a %s session", event.kind)

    return tell
