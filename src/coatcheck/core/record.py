"""Record, the stored form of a session, and Changes, the edits that can be replayed onto it.

A session's life, judged in this order (`judge`):

    the secret is not the stored one       -> BadSignature
    another id has replaced this one       -> Superseded
    now >= ends_at   (absolute timeout)    -> Expired
    now >= expires_at (idle timeout)       -> Expired
    otherwise                              -> alive
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import msgspec

from coatcheck.core.credentials import SessionCookie
from coatcheck.errors import BadSignature, Expired, InvalidValue, StoreUnavailable, Superseded

FORMAT = b"\x01"
MAX_SUBJECT = 255
_MAX_DEPTH = 32
_WORD = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_LEAST_INT, _MOST_INT = -(2**63), 2**64 - 1


class Device(msgspec.Struct, frozen=True, array_like=True):
    """Where a sign-in came from, as the request told it: for people to recognise, never for decisions."""

    user_agent: str = ""
    address: str = ""


class Record(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The stored form of a session. All times are milliseconds since the epoch.

    Of the cookie's secret only the SHA-256 is kept, so that a dump of the store signs nobody in (S2).
    `expires_at` is the moment at which the session dies unless it is seen again: stores need no policy to sweep.
    Each value of `data` is encoded on its own, so that edits of different keys merge without being decoded.
    """

    id: str
    digest: bytes
    subject: str | None
    created_at: int
    signed_in_at: int
    seen_at: int
    expires_at: int
    ends_at: int
    idle: int = 0
    amr: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    persistent: bool = False
    generation: int = 0
    refreshed_at: int = 0
    version: int = 1
    successor: str | None = None
    device: Device = Device()
    data: dict[str, bytes] = {}

    @staticmethod
    def begin(
        cookie: SessionCookie,
        subject: str | None,
        *,
        now: int,
        began_at: int,
        idle: int,
        absolute: int,
        amr: tuple[str, ...],
        scopes: tuple[str, ...],
        persistent: bool,
        device: Device,
        data: dict[str, bytes],
    ) -> Record:
        """Return the first record of a session whose sign-in began at `began_at`; durations are milliseconds."""
        _require_kinds(began_at, persistent)
        ends_at = began_at + absolute
        return Record(
            id=cookie.id,
            digest=digest(cookie.secret),
            subject=subject,
            created_at=began_at,
            signed_in_at=began_at if subject is not None else 0,
            seen_at=now,
            expires_at=expiry(now, idle, ends_at),
            ends_at=ends_at,
            idle=idle,
            amr=amr,
            scopes=scopes,
            persistent=persistent,
            device=device,
            data=data,
        )

    def continued(self, cookie: SessionCookie, now: int, data: dict[str, bytes]) -> Record:
        """Return the same session under a new id and secret; its absolute timeout stays where it was (S7)."""
        return msgspec.structs.replace(
            self,
            id=cookie.id,
            digest=digest(cookie.secret),
            created_at=now,
            seen_at=now,
            expires_at=expiry(now, self.idle, self.ends_at),
            generation=0,
            refreshed_at=0,
            version=self.version + 1,
            data=data,
        )

    def reauthenticated(
        self, began_at: int, absolute: int, *, amr: tuple[str, ...], scopes: tuple[str, ...], persistent: bool
    ) -> Record:
        """Return the record after its subject has proved again who they are: both timeouts start anew (S7)."""
        _require_kinds(began_at, persistent)
        ends_at = began_at + absolute
        return msgspec.structs.replace(
            self,
            created_at=began_at,
            signed_in_at=began_at,
            ends_at=ends_at,
            expires_at=expiry(self.seen_at, self.idle, ends_at),
            amr=amr,
            scopes=scopes,
            persistent=persistent,
        )

    def encode(self) -> bytes:
        """Return the record as bytes, led by the format's version byte."""
        return FORMAT + _encode(self)

    @staticmethod
    def decode(stored: bytes) -> Record:
        """Return the record that `encode` wrote.

        Raises:
            StoreUnavailable: the bytes are damaged, or of a newer format; nobody is signed in on a guess.
        """
        if stored[:1] != FORMAT:
            raise StoreUnavailable("store damaged: a record of unknown format")
        try:
            return _decode_record(memoryview(stored)[1:])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise StoreUnavailable("store damaged: a record cannot be read") from None

    def alive(self, now: int) -> bool:
        """Say whether the session is neither replaced nor past one of its timeouts."""
        return self.successor is None and now < self.expires_at and now < self.ends_at

    def judge(self, secret: bytes, now: int) -> None:
        """Accept the bearer of `secret` as the holder of this session, or raise.

        Not checked here: the revocations of other processes, and whether the store still has the record.

        Raises:
            Superseded: another id has replaced this one.
            BadSignature: the secret is not this session's.
            Expired: an idle or absolute timeout has passed (S6, S7).
        """
        if not hmac.compare_digest(digest(secret), self.digest):
            raise BadSignature("the session cookie's secret is wrong")
        if self.successor is not None:
            raise Superseded("the browser has been given another session cookie since")
        if now >= self.expires_at or now >= self.ends_at:
            raise Expired("the session has expired")

    def seen(self, now: int) -> Record:
        """Return the record as used at `now`: the idle timeout starts anew, the absolute one does not (S7)."""
        seen_at = max(now, self.seen_at)
        return msgspec.structs.replace(
            self, seen_at=seen_at, expires_at=max(self.expires_at, expiry(seen_at, self.idle, self.ends_at))
        )

    def edited(self, data: dict[str, bytes], now: int) -> Record:
        """Return the record with other data, and used: the next version, which replaces this one and no other."""
        seen_at = max(now, self.seen_at)
        return msgspec.structs.replace(
            self,
            seen_at=seen_at,
            expires_at=max(self.expires_at, expiry(seen_at, self.idle, self.ends_at)),
            version=self.version + 1,
            data=data,
        )

    def refreshed(self, now: int) -> Record:
        """Return the record after its refresh token was spent: of the next generation, and used."""
        return msgspec.structs.replace(
            self.seen(now), generation=self.generation + 1, refreshed_at=now, version=self.version + 1
        )

    def superseded(self, successor: str, until: int) -> Record:
        """Return the stump that points requests in flight at the session's new id, and holds no data.

        With an empty `successor` it leads nowhere: another subject has signed in, or the visitor has.
        """
        return msgspec.structs.replace(
            self, successor=successor, data={}, expires_at=min(until, self.expires_at), version=self.version + 1
        )


_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(Record).decode
_decode_value = msgspec.msgpack.Decoder().decode


def digest(secret: bytes) -> bytes:
    """Return what is stored of a cookie's secret. It has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(secret).digest()


def expiry(seen_at: int, idle: int, ends_at: int) -> int:
    """Return when a session last seen at `seen_at` dies; an `idle` of 0 ms is no idle limit."""
    return min(seen_at + idle, ends_at) if idle else ends_at


def pack(value: Any) -> bytes:
    """Return plain data as bytes.

    Plain is what comes back as it went in: None, bool, int of 64 bits, float, str, bytes, and lists and
    string-keyed dictionaries of these; a tuple comes back as a list.

    Raises:
        InvalidValue: anything else.
    """
    _require_plain(value, _MAX_DEPTH)
    try:
        return _encode(value)
    except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError):
        raise InvalidValue("session data must be plain data; this value cannot be encoded") from None


def unpack(packed: bytes) -> Any:
    """Return the value that `pack` wrote.

    Raises:
        StoreUnavailable: the bytes are damaged.
    """
    try:
        return _decode_value(packed)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StoreUnavailable("store damaged: a value cannot be read") from None


def _require_plain(value: Any, depth: int) -> None:
    kind = cast("type[object]", type(value))
    if kind is int:
        if not _LEAST_INT <= value <= _MOST_INT:
            raise InvalidValue("session data: an int of more than 64 bits")
    elif kind is dict or kind is list or kind is tuple:
        if depth == 0:
            raise InvalidValue(f"session data is nested deeper than {_MAX_DEPTH} levels")
        if kind is dict and not all(type(key) is str for key in value):
            raise InvalidValue("session data: a dictionary key that is not a str")
        for inner in value.values() if kind is dict else value:
            _require_plain(inner, depth - 1)
    elif value is not None and kind not in (bool, float, str, bytes):
        raise InvalidValue(
            f"session data must be plain data (None, bool, int, float, str, bytes; lists and dictionaries of these), "
            f"not {kind.__name__}"
        )


def editing(function: Callable[[dict[str, Any]], None]) -> Callable[[Mapping[str, bytes]], dict[str, bytes]]:
    """Return `function`, which changes a dictionary of values in place, as an edit of packed data."""

    def edit(data: Mapping[str, bytes]) -> dict[str, bytes]:
        values = {key: unpack(value) for key, value in data.items()}
        function(values)
        for key in values:
            require_key(key)
        return {key: pack(value) for key, value in values.items()}

    return edit


class Changes:
    """Edits of a session's data, recorded so that they can be replayed onto whatever is stored by then.

    Two requests that write different keys both win; of the same key the later save wins; what was deleted
    stays deleted (P3).
    """

    __slots__ = ("cleared", "deleted", "written")

    def __init__(self) -> None:
        self.written: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.cleared = False

    def __bool__(self) -> bool:
        return bool(self.written or self.deleted or self.cleared)

    def write(self, key: str, packed: bytes) -> None:
        """Record that `key` was set."""
        self.written[key] = packed
        self.deleted.discard(key)

    def delete(self, key: str) -> None:
        """Record that `key` was removed."""
        self.written.pop(key, None)
        self.deleted.add(key)

    def clear(self) -> None:
        """Record that everything was removed, also what others have written meanwhile."""
        self.written.clear()
        self.deleted.clear()
        self.cleared = True

    def copy(self) -> Changes:
        """Return the edits as they are now: what is being saved while more may be made."""
        same = Changes()
        same.written, same.deleted, same.cleared = dict(self.written), set(self.deleted), self.cleared
        return same

    def since(self, saved: Changes) -> Changes:
        """Return the edits that were made after `saved` was copied from these."""
        if self.cleared and not saved.cleared:
            return self
        later = Changes()
        if self.written == saved.written and self.deleted == saved.deleted:  # nearly always
            return later
        later.written = {key: value for key, value in self.written.items() if saved.written.get(key) != value}
        later.deleted = self.deleted - saved.deleted
        if self.cleared:  # anew, so what was saved goes; else what is here no longer was saved by another task as well
            later.deleted |= saved.written.keys() - self.written.keys()
        return later

    def apply(self, data: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return `data` with the edits made."""
        kept = {} if self.cleared else {key: value for key, value in data.items() if key not in self.deleted}
        return {**kept, **self.written}


def words(values: Collection[str]) -> tuple[str, ...]:
    """Return scopes or authentication methods as a tuple.

    Raises:
        InvalidValue: it is one string, whose letters would be taken for words, or one of them is no word (RFC 6749,
            appendix A.4).
    """
    if isinstance(values, str) or not all(type(word) is str and _WORD.fullmatch(word) for word in values):
        raise InvalidValue("scopes and amr are collections of words, without spaces; a single one is (word,)")
    return tuple(values)


def require_key(key: object) -> None:
    """Refuse what cannot be the key of a value.

    Raises:
        InvalidValue: it is not a str, or holds half of a surrogate pair.
    """
    if type(key) is not str or not key.isascii():
        try:
            cast("str", key).encode("utf-8")
        except (AttributeError, UnicodeEncodeError):
            raise InvalidValue("session data: a key that is not a str of whole characters") from None


def require_subject(subject: object, client_id: str) -> None:
    """Refuse a subject that cannot be one.

    Raises:
        InvalidValue: it is no str, empty, too long, not printable, or called like the client (J22).
    """
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise InvalidValue(f"a subject is a printable str of 1 to {MAX_SUBJECT} characters; str() makes one of an id")
    if subject == client_id:
        raise InvalidValue("a subject must not be called like the client")


def require_size(data: Mapping[str, bytes], most: int) -> None:
    """Refuse data that takes more than `most` bytes (P9), or is not encoded: it could never be read again.

    Raises:
        InvalidValue: it does, or is not.
    """
    size = 0
    for key, value in data.items():
        require_key(key)
        if type(value) is not bytes:
            raise InvalidValue("first data is encoded: {key: coatcheck.core.record.pack(value)}")
        size += len(value) + (len(key) if key.isascii() else len(key.encode()))
    if size > most:
        raise InvalidValue(f"the session's data takes {size} bytes; the policy's max_data is {most}")


def _require_kinds(began_at: object, persistent: object) -> None:
    # For whoever does not check types: what is of another kind would be stored, and could never be read again.
    if type(began_at) is not int or type(persistent) is not bool:
        raise InvalidValue("began_at is in whole milliseconds, and persistent is True or False")
