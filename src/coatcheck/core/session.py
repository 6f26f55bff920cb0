"""Session: what a handler holds: a mapping over a Record's data that remembers what was changed."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

from coatcheck.core.claims import Principal
from coatcheck.core.credentials import Ticket
from coatcheck.core.record import Changes, Device, Record, pack, require_key, unpack
from coatcheck.errors import Missing, SessionGone

_MUTABLE = (dict, list)


class Session(MutableMapping[str, Any]):
    """One sign-in on one device, or an anonymous visit, as a mapping of plain data.

    Reading decodes a value, writing records an edit; `Sessions.save` replays the edits onto whatever is stored by
    then. A list or dictionary that was read and changed in place counts as written. Nothing here does I/O.

    `accessed` tells whether anybody looked: the answer then depends on the cookie (C18).
    """

    __slots__ = ("_changes", "_detached", "_held", "_record", "accessed", "cookie", "note")

    def __init__(self, record: Record | None = None, cookie: Ticket | None = None) -> None:
        self._record = record
        self._changes: Changes | None = None  # most requests write nothing
        # Values that the handler holds, each with its encoding when it was last in step with the edits.
        self._held: dict[str, tuple[Any, bytes]] = {}
        self._detached = False
        self.accessed = False
        self.cookie = cookie
        """What its cookie is to carry: known only to the request that made or rotated it, or changed a sealed one."""
        self.note = ""
        """When a sealed session was last seen, to be handed out in a cookie of its own; "" if that is not due."""

    @classmethod
    def detached(cls) -> Session:
        """Return the session of a request that came with an access token: nothing was looked up, so nothing is here.

        Reading finds nothing and writing raises Missing; `Exchange.load_session` fetches the real one.
        """
        session = cls()
        session._detached = True
        return session

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def record(self) -> Record | None:
        """The stored form that this session was last seen in, or None if nothing is stored."""
        return self._record

    @property
    def id(self) -> str | None:
        """The public id, safe to log and to show, or None if nothing is stored."""
        self.accessed = True
        return self._record.id if self._record else None

    @property
    def subject(self) -> str | None:
        """Who is signed in, or None."""
        self.accessed = True
        return self._record.subject if self._record else None

    @property
    def device(self) -> Device:
        """Where the sign-in came from."""
        self.accessed = True
        return self._record.device if self._record else Device()

    @property
    def signed_in_at(self) -> int:
        """When the subject last proved who they are, in milliseconds since the epoch; 0 for nobody."""
        self.accessed = True
        return self._record.signed_in_at if self._record else 0

    @property
    def seen_at(self) -> int:
        """When the session was last seen, to within the policy's `touch_every`, in milliseconds since the epoch."""
        self.accessed = True
        return self._record.seen_at if self._record else 0

    @property
    def principal(self) -> Principal | None:
        """Whom a request with this session's cookie acts as, or None."""
        self.accessed = True
        record = self._record
        if record is None or record.subject is None:
            return None
        return Principal(
            subject=record.subject,
            session_id=record.id,
            scopes=record.scopes,
            auth_time=record.signed_in_at // 1000,
            amr=record.amr,
        )

    def __repr__(self) -> str:
        return f"<Session id={self.id} subject={self.subject!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Session cannot be pickled or copied: it may hold its cookie's secret; pass on its id")

    # -- the mapping -------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        held = self._held.get(key)
        if held is not None:
            return held[0]
        packed = self._data()[key]
        value = unpack(packed)
        if type(value) in _MUTABLE:
            self._held[key] = (value, packed)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or `default`; what a Mapping has costs an exception where there is none."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that `get`

    def __setitem__(self, key: str, value: Any) -> None:
        self._require_attached()
        require_key(key)
        packed = pack(value)
        self._edits().write(key, packed)
        if isinstance(value, _MUTABLE):
            self._held[key] = (value, packed)
        else:
            self._held.pop(key, None)

    def __delitem__(self, key: str) -> None:
        self._require_attached()
        if key not in self._data():
            raise KeyError(key)
        self._edits().delete(key)
        self._held.pop(key, None)

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return iter(self._data())

    def __len__(self) -> int:
        self.accessed = True
        return len(self._data())

    def __contains__(self, key: object) -> bool:
        self.accessed = True
        return key in self._data()

    def clear(self) -> None:
        """Remove everything, also what others write before this is saved."""
        self._require_attached()
        self._edits().clear()
        self._held.clear()

    def _data(self) -> dict[str, bytes]:
        stored = self._record.data if self._record is not None else {}
        return stored if self._changes is None else self._changes.apply(stored)

    def _edits(self) -> Changes:
        if self._changes is None:
            self._changes = Changes()
        return self._changes

    def _require_attached(self) -> None:
        self.accessed = True
        if self._detached:
            raise Missing("this request came with an access token: `await exchange.load_session()` before writing")

    # -- what the desks do with it -----------------------------------------------------------------------------

    def is_edited(self) -> bool:
        """Say whether there are edits that are not saved yet, those made in place included."""
        for key, (value, before) in self._held.items():
            packed = pack(value)
            if packed != before:
                self._edits().write(key, packed)
                self._held[key] = (value, packed)
        return self._changes is not None and bool(self._changes)

    def pending(self) -> Changes:
        """Return the edits that are not saved yet, as they are now: more may be made while these are being saved."""
        return self._edits().copy() if self.is_edited() else Changes()

    def used(self, before: Record, record: Record, note: str = "") -> None:
        """Take over the times of a touch, unless the session has gone on meanwhile; pending edits stay so."""
        if self._record is before:
            self._record, self.note = record, note

    def saved(self, before: Record, record: Record, changes: Changes) -> None:
        """Take over what a save has made of `before`, unless another task has signed out or gone further meanwhile."""
        held = self._record
        if held is not None:
            goes_on = held is before or (held.id == record.id and held.version < record.version)
            self.become(record if goes_on else held, saved=changes)

    def become(self, record: Record | None, cookie: Ticket | None = None, *, saved: Changes | None = None) -> None:
        """Take over a new stored form, after the session was saved, rotated, signed in or ended.

        `saved` are the edits that are in it; those made since stay pending. Without it, none stay.
        Values already handed out stay the same objects, so that a list which the handler holds keeps counting.
        """
        self._record = record
        self._changes = None if saved is None or self._changes is None else self._changes.since(saved)
        self._detached = False
        if record is None:
            self._held.clear()
            self.cookie = None
        elif cookie is not None:
            self.cookie = cookie


def require_record(session: Session) -> Record:
    """Return what is stored of a session.

    Raises:
        SessionGone: it has ended, or never was.
    """
    if session.record is None:
        raise SessionGone("there is no session")
    return session.record


def id_of(session: Session | str | None) -> str | None:
    """Return the id of a session, of which perhaps only that is at hand."""
    return session.id if isinstance(session, Session) else session
