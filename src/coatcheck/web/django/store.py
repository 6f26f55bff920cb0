"""SessionStore: `request.session`, as Django's applications know it, over the session of an Exchange.

Reading and writing are Django's own methods, on our mapping in place of its dictionary; what does I/O is here, each
once as a coroutine and once driven by `run`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import SynchronousOnlyOperation
from django.utils import timezone

from coatcheck.core.credentials import valid_session_id
from coatcheck.core.session import Session
from coatcheck.errors import CredentialError, InvalidValue, Revoked, SessionGone, Superseded
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead
from coatcheck.run import run, running_loop
from coatcheck.web.django import project

T = TypeVar("T")


class SessionStore(SessionBase):
    """A session, with the methods of Django's sessions.

    `request.session` is one over the request's Exchange: its `session_key` is the session's public id, which signs
    nobody in. One that is made by itself, as by Django's test client, stands for a browser: its key is the cookie's
    value.

    Values are plain data, and what was changed in place is saved; `modified` means nothing.

    Args:
        session_key: the cookie's value; None begins a new session.
    """

    def __init__(self, session_key: str | None = None) -> None:
        # Django's would import a serializer and hold a dictionary.
        self.modified = False
        self._key = session_key
        self._exchange: Exchange | None = None
        self._of_a_request = False
        self._lasting: bool | None = None
        self._cycle_due = False

    @classmethod
    def of(cls, exchange: Exchange) -> Self:
        """Return the session of a request."""
        store = cls()
        store._exchange = exchange
        store._of_a_request = True
        return store

    # -- the mapping -------------------------------------------------------------------------------------------

    def _get_session(self, no_load: bool = False) -> Session:
        return self._reach().session

    async def _aget_session(self, no_load: bool = False) -> Session:
        return (await self._areach()).session

    _session = property(_get_session)

    def __setitem__(self, key: str, value: Any) -> None:
        session = self._get_session()
        _begin_anew_if_signing_in(session, key)
        session[key] = value

    async def aset(self, key: str, value: Any) -> None:
        """Set a value."""
        session = await self._aget_session()
        _begin_anew_if_signing_in(session, key)
        session[key] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._get_session())

    def clear(self) -> None:
        """Remove everything, also what others write before this is saved, and who is signed in with it."""
        self._get_session().clear()

    @property
    def accessed(self) -> bool:  # type: ignore[override] # Django sets it, and we know it
        """Whether anybody looked."""
        return self._exchange is not None and self._exchange.session.accessed

    @property
    def session_key(self) -> str | None:
        """The public id of a request's session; else the cookie's value. None if nothing is stored."""
        if self._exchange is None:
            return self._key
        session = self._exchange.session
        if self._of_a_request:
            return session.id
        if session.cookie is not None:
            return session.cookie.value
        return self._key if session.record is not None else None

    def is_empty(self) -> bool:
        """Say whether nothing is stored, and nothing will be."""
        if self._exchange is None:
            return not self._key
        session = self._exchange.session
        return session.record is None and not session.pending().apply({})

    # -- what is stored ----------------------------------------------------------------------------------------

    async def aload(self) -> dict[str, Any]:
        """Return the session's data as a dictionary of its own."""
        return dict(await self._aget_session())

    async def asave(self, must_create: bool = False) -> None:
        """Save what was changed; a session without any data is stored as well, so that it has a key.

        Raises:
            InvalidValue: the data cannot be stored.
            StoreUnavailable
        """
        exchange = await self._areach()
        is_new = exchange.session.record is None
        await self.conclude()
        # Whose session ended meanwhile, or whose browser has another by now, gets no new one.
        if is_new and exchange.session.record is None and not isinstance(exchange.refusal, Superseded):
            made = await project.coatcheck().sessions.create(device=exchange.head.device)
            exchange.session.become(made.record, made.cookie)

    async def acreate(self) -> None:
        """Store the session under a new key, with the data that it has."""
        if (await self._areach()).session.record is None:
            await self.asave()
        else:
            await self.acycle_key()

    async def acycle_key(self) -> None:
        """Give the session another id and cookie, with the same data; that of a visit gets them when it is saved.

        Raises:
            SessionGone: it ended meanwhile.
            StoreUnavailable
        """
        exchange = await self._areach()
        record = exchange.session.record
        if record is not None and record.subject is not None:
            await exchange.rotate()
        else:
            # Django cycles a visit's key before each login, which makes another session anyway, or is refused.
            self._cycle_due = record is not None

    async def aflush(self) -> None:
        """End the session, for good, by whichever credential the request came with, and take its cookies back.

        Raises:
            StoreUnavailable: it may not be durable; this process refuses the session nevertheless.
        """
        await (await self._areach()).sign_out()

    async def adelete(self, session_key: str | None = None) -> None:
        """End this session, or another one.

        Args:
            session_key: its public id, or its cookie's value.
        """
        key = self._key if session_key is None else session_key
        if key is not None and valid_session_id(key):
            await (await project.opened()).sessions.revoke(key)
        elif session_key is not None:
            await type(self)(session_key).aflush()
        else:
            await self.aflush()

    async def aexists(self, session_key: str) -> bool:
        """Say whether a session lives.

        Args:
            session_key: its public id, or its cookie's value.
        """
        if not valid_session_id(session_key):
            return (await type(self)(session_key)._areach()).session.record is not None  # noqa: SLF001 - our own class
        try:
            await (await project.opened()).sessions.find(session_key)
        except CredentialError:
            return False
        return True

    @classmethod
    async def aclear_expired(cls) -> None:
        """Remove expired sessions, as it happens every minute anyway."""
        await (await project.opened()).sessions.sweep()

    def load(self) -> dict[str, Any]:
        """Return the session's data as a dictionary of its own."""
        return _now(self.aload())

    def save(self, must_create: bool = False) -> None:
        """Save what was changed; see `asave`."""
        _now(self.asave(must_create))

    def create(self) -> None:
        """Store the session under a new key, with the data that it has."""
        _now(self.acreate())

    def cycle_key(self) -> None:
        """Give the session another id and cookie; see `acycle_key`."""
        _now(self.acycle_key())

    def flush(self) -> None:
        """End the session for good; see `aflush`."""
        _now(self.aflush())

    def delete(self, session_key: str | None = None) -> None:
        """End this session, or another one; see `adelete`."""
        _now(self.adelete(session_key))

    def exists(self, session_key: str) -> bool:
        """Say whether a session lives; see `aexists`."""
        return _now(self.aexists(session_key))

    @classmethod
    def clear_expired(cls) -> None:
        """Remove expired sessions: `manage.py clearsessions`."""
        _now(cls.aclear_expired())

    # -- how long it lives -------------------------------------------------------------------------------------

    def get_session_cookie_age(self) -> int:
        """Return after how many seconds a session that is not used ends: the policy's `idle`, or else `absolute`."""
        policy = project.coatcheck().policy
        return int((policy.idle or policy.absolute).total_seconds())

    def get_expiry_age(self, **_: Any) -> int:
        """Return in how many seconds the session ends unless it is used before."""
        return self._age(self._get_session())

    async def aget_expiry_age(self, **_: Any) -> int:
        """Return in how many seconds the session ends unless it is used before."""
        return self._age(await self._aget_session())

    def get_expiry_date(self, **_: Any) -> datetime:
        """Return when the session ends unless it is used before."""
        return timezone.now() + timedelta(seconds=self.get_expiry_age())

    async def aget_expiry_date(self, **_: Any) -> datetime:
        """Return when the session ends unless it is used before."""
        return timezone.now() + timedelta(seconds=await self.aget_expiry_age())

    def get_expire_at_browser_close(self) -> bool:
        """Say whether the cookie ends with the browser."""
        return not self._lasts(self._get_session())

    async def aget_expire_at_browser_close(self) -> bool:
        """Say whether the cookie ends with the browser."""
        return not self._lasts(await self._aget_session())

    def set_expiry(self, value: datetime | timedelta | int | None) -> None:
        """Say whether the cookie survives the end of the browser; how long a session lives, the policy says.

        Args:
            value: 0: it ends with the browser. Seconds, a timedelta or a datetime: it stays, and the session ends when
                the policy says, which must not be later. None: as `SESSION_EXPIRE_AT_BROWSER_CLOSE` says.

        Raises:
            InvalidValue: the session would live longer than that.
        """
        if value is None:
            self._lasting = None
            return
        until = value - timezone.now() if isinstance(value, datetime) else value
        seconds = until.total_seconds() if isinstance(until, timedelta) else until
        # Half a minute: a datetime was counted from a moment ago.
        if seconds and seconds + 30 < self.get_session_cookie_age():
            raise InvalidValue("one session cannot end sooner than the policy's idle and absolute say: set those")
        self._lasting = bool(seconds)

    async def aset_expiry(self, value: datetime | timedelta | int | None) -> None:
        """Say whether the cookie survives the end of the browser; see `set_expiry`."""
        self.set_expiry(value)

    def _age(self, session: Session) -> int:
        coat, record = project.coatcheck(), session.record
        return self.get_session_cookie_age() if record is None else (record.expires_at - coat.clock()) // 1000

    def _lasts(self, session: Session) -> bool:
        if self._lasting is not None:
            return self._lasting
        if session.record is not None:
            return session.record.persistent
        return not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE

    # -- signing in, and what the middleware calls -------------------------------------------------------------

    async def sign_in(self) -> None:
        """Make the session that of the user whose key Django has put into it, under a new id.

        Raises:
            Revoked: the user was signed out everywhere meanwhile.
            StoreUnavailable
        """
        exchange = await self._areach()
        session = exchange.session
        subject = str(session[SESSION_KEY])
        written = {key: session[key] for key in session.pending().written}
        is_another = session.subject not in (None, subject)
        lasting = not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE if self._lasting is None else self._lasting
        await exchange.sign_in(subject, persistent=lasting)
        self._cycle_due = False
        if is_another:
            session.update(written)  # of the other user's session nothing else comes along

    async def conclude(self) -> None:
        """Save, before the response leaves.

        Raises:
            InvalidValue: the data cannot be stored.
            StoreUnavailable
        """
        exchange = await self._areach()
        await self._follow_django(exchange)
        if self._lasting is not None:
            await self._make_lasting(exchange, lasting=self._lasting)
        if self._cycle_due and exchange.session.record is not None:
            self._cycle_due = False
            with suppress(SessionGone):  # which `finish` finds out as well
                await exchange.rotate()
        await exchange.finish()

    async def _follow_django(self, exchange: Exchange) -> None:
        """Let who puts Django's key into a session without `login` sign in as well, and out without `logout`."""
        session = exchange.session
        changes = session.pending()
        if SESSION_KEY in changes.written:
            if str(session[SESSION_KEY]) != session.subject:
                await self.sign_in()
        elif (changes.cleared or SESSION_KEY in changes.deleted) and session.subject is not None:
            written = {key: session[key] for key in changes.written}
            await exchange.sign_out()
            session.update(written)

    async def _make_lasting(self, exchange: Exchange, *, lasting: bool) -> None:
        record = exchange.session.record
        if record is None or record.subject is None or record.persistent == lasting:
            return
        proof = {"amr": record.amr, "scopes": record.scopes}
        with suppress(SessionGone, Revoked):  # which `finish` finds out as well
            # Both timeouts stay where they are: nobody has proved anything.
            began_at = record.signed_in_at
            await project.coatcheck().sessions.rotate(exchange.session, began_at=began_at, **proof, persistent=lasting)

    # -- inside ------------------------------------------------------------------------------------------------

    def _reach(self) -> Exchange:
        return self._exchange or _now(self._begin())

    async def _areach(self) -> Exchange:
        return self._exchange or await self._begin()

    async def _begin(self) -> Exchange:
        """Come with this key as a browser does."""
        coat = await project.opened()
        cookie = f"{coat.policy.cookie.name}={self._key}".encode("ascii", "replace")
        head = RequestHead("GET", "https", [(b"cookie", cookie)] if self._key else [])
        self._exchange = await Exchange.begin(head, coat.sessions, coat.verifier)
        return self._exchange


def follow_login(request: Any = None, **_: Any) -> None:
    """Let the session follow `django.contrib.auth.login`: the receiver of its signal."""
    store = getattr(request, "session", None)
    if isinstance(store, SessionStore):
        _now(store.sign_in())


def _begin_anew_if_signing_in(session: Session, key: str) -> None:
    # Of a request that comes with an access token, the session is not at hand; who signs in gets another anyway.
    if key == SESSION_KEY and session.record is None and not session.is_edited():
        session.become(None)


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, where no event loop runs."""
    if running_loop() is not None:
        coroutine.close()
        raise SynchronousOnlyOperation("in a coroutine, await the method that begins with an a: aflush, asave, alogin")
    return run(coroutine)
