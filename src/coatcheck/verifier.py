"""Verifier: access token to Principal, synchronously and without a store: all that most processes need."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Final, NamedTuple, Self

from coatcheck.clock import Clock, monotonic_clock, system_clock
from coatcheck.core import claims, jws
from coatcheck.core.claims import Claims, Principal
from coatcheck.core.keys import Keyring, Roles
from coatcheck.core.policy import Policy, milliseconds, seconds
from coatcheck.core.revocation import NEVER, Revocations
from coatcheck.errors import BadSignature, StoreUnavailable
from coatcheck.remote.listener import Listener
from coatcheck.remote.origin import Origin
from coatcheck.run import offload, settle

# Bounds of what is remembered (P9): 8 MiB at most, and much less with tokens of the usual length.
_MOST_KEPT: Final = 4096
_LONGEST_KEPT: Final = 2048  # characters


class _Kept(NamedTuple):
    """A token that was found genuine and for us, under these keys: only time and revocations can still undo that."""

    roles: Roles
    since: int
    until: int
    session_id: str
    subject: str
    issued_at: float
    principal: Principal


class Verifier:
    """Judges access tokens: signature, type, claims, revocations.

    A client sends the same token with each request: one that was verified is known again, for as long as it lives and
    the keys stay as they are. Revocations are judged each time.

    Args:
        keyring: the keys that tokens may be signed with; one made by `Keyring.from_jwks` is enough.
        policy: whose `issuer`, `audience`, `leeway`, `stale_after` and `when_stale` count here.
        revocations: what this process knows to be revoked.
        clock: milliseconds since the epoch.
    """

    def __init__(
        self, keyring: Keyring, policy: Policy, revocations: Revocations, *, clock: Clock = system_clock
    ) -> None:
        self.keyring = keyring
        self.policy = policy
        self.revocations = revocations
        self.clock = clock
        self._leeway = seconds(policy.leeway)
        self._stale_after = milliseconds(policy.stale_after)
        self._kept: dict[str, _Kept] = {}

    @classmethod
    def from_issuer(
        cls,
        issuer: str,
        *,
        feed_token: str,
        audience: str = "",
        policy: Policy | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        clock: Clock = system_clock,
    ) -> RemoteVerifier:
        """Return a verifier for the tokens of an auth server elsewhere, which needs no store; see RemoteVerifier.

        Args:
            issuer: the auth server's origin, "https://host[:port]"; "http://" for one on this machine.
            feed_token: one of the server's feed tokens (COATCHECK_FEED_TOKEN).
            audience: the `aud` of the tokens; the issuer itself, if left out.
            policy: whose `leeway`, `stale_after` and `when_stale` count here.
            ca_file: certificates of authorities to trust, in PEM, instead of the machine's own.
            clock: milliseconds since the epoch.

        Raises:
            ConfigurationError: one of them cannot be what it should be.
        """
        own = replace(policy if policy is not None else Policy(), issuer=issuer, audience=audience)
        return RemoteVerifier(Origin(issuer, ca_file=ca_file), feed_token, own, clock=clock)

    def verify(self, token: str) -> Principal:
        """Return whom an access token speaks for (RFC 9068, section 4).

        Not checked: that the session is still stored, which its revocation tells; that the scopes suffice, and
        how long ago the sign-in was: `Exchange.require` does.

        Raises:
            Malformed, BadSignature, Expired, WrongClaim: the token is no good.
            Revoked: its session has ended, or its subject was signed out everywhere.
            StoreUnavailable: this process has not heard of revocations for longer than the policy allows; also where
                the policy says `ask`, for nobody is asked here.
        """
        if self.is_stale():
            self._bear_silence()
        return self.judge(token)

    def judge(self, token: str) -> Principal:
        """Return whom an access token speaks for, for callers that then look the session up.

        Not checked: what `verify` does not check; and whether this process has heard of revocations lately.

        Raises:
            Malformed, BadSignature, Expired, WrongClaim, Revoked: as `verify`.
        """
        now = self.clock()
        kept = self._kept.get(token)
        # A clock that was set back to before it was verified may make it a token from the future: judged anew.
        if kept is None or kept.roles is not self.keyring.roles or not kept.since <= now < kept.until:
            kept = self._judge(token, now)
        self.revocations.judge(kept.session_id, kept.subject, kept.issued_at)
        return kept.principal

    async def verify_or_find(self, token: str, find: Callable[[str], Awaitable[object]]) -> Principal:
        """Return whom an access token speaks for; where the feed is silent and the policy says `ask`, find its session.

        Args:
            token: the access token.
            find: looks up a session by its id, and raises if there is no live one.

        Raises:
            as `verify`, and as `find`.
        """
        if self.policy.when_stale != "ask" or not self.is_stale():
            return self.verify(token)
        principal = self.judge(token)
        await find(principal.session_id)
        return principal

    def ends_at(self, token: str) -> int:
        """Return when a token that was verified will have expired, leeway included, in milliseconds since the epoch.

        Not checked: revocations.

        Raises:
            Malformed, BadSignature, Expired, WrongClaim: the token is no good, or not any more.
        """
        kept = self._kept.get(token)
        return (kept if kept is not None else self._judge(token, self.clock())).until

    def _judge(self, token: str, now: int) -> _Kept:
        roles = self.keyring.roles  # before it is verified: keys that change meanwhile end what is kept
        try:
            payload = jws.verify(token, self.keyring, typ="at+jwt")
        except BadSignature:
            self._look_for_its_key(token)
            raise
        found = claims.judge(
            payload,
            issuer=self.policy.issuer,
            audience=self.policy.audience,
            now=now / 1000,
            leeway=self._leeway,
        )
        until = int((found.exp + self._leeway) * 1000)
        kept = _Kept(roles, now, until, found.sid, found.sub, found.iat, found.principal())
        self._keep(token, found, kept)
        return kept

    def _keep(self, token: str, found: Claims, kept: _Kept) -> None:
        # A token that is bound to a key comes with a proof of its own each time, and its principal has a mapping in it
        # that could be changed.
        if found.cnf is not None or len(token) > _LONGEST_KEPT:
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()  # whatever of it is still in use is back with its next request
        self._kept[token] = kept

    def silence(self) -> int:
        """Return for how many milliseconds nothing was heard from the feed; 0 where there is no other process.

        Measured by the monotonic clock: setting the machine's time makes nothing look fresher, or older, than it is.
        """
        heard_at = self.revocations.heard_at
        return 0 if heard_at is None else monotonic_clock() - heard_at

    def is_stale(self) -> bool:
        """Say whether the feed has been silent for longer than the policy's `stale_after`."""
        return self.silence() > self._stale_after

    def _look_for_its_key(self, token: str) -> None:
        """A token was not signed with a key of the ring: where keys come from elsewhere, it may be a new one."""

    def _bear_silence(self) -> None:
        """Refuse, unless the policy accepts that the feed is silent; what it never said is accepted by no policy."""
        if self.revocations.heard_at == NEVER:
            raise StoreUnavailable("no word of revocations yet: no token is trusted (`async with coatcheck` opens it)")
        if self.policy.when_stale != "accept":
            raise StoreUnavailable("no word of revocations for too long: no token is trusted")


class RemoteVerifier(Verifier):
    """A Verifier that needs no store: a thread keeps the issuer's keys and revocations up to date in this process.

    Made by `Verifier.from_issuer`. `verify` does no I/O, and verifies nothing before keys and a snapshot of the
    revocations are here. `with` and `async with` open and close it. Without that it begins with the first token; so it
    does in the child of a fork, and those that come in the first moments are answered StoreUnavailable.

    Keys are fetched again in time, so that one published as long ahead as the issuer's `max-age` says is known before
    it signs. A token of another key is refused (BadSignature), and the keys are fetched at once, every 5 s at most.
    """

    def __init__(self, origin: Origin, feed_token: str, policy: Policy, *, clock: Clock = system_clock) -> None:
        # No key yet; a ring without any has a secret, and nothing here is made with it.
        super().__init__(Keyring(None, secret=os.urandom(32)), policy, Revocations(), clock=clock)
        self._listener = Listener(origin, feed_token, self.keyring, self.revocations, clock)

    def __repr__(self) -> str:
        return f"<RemoteVerifier of {self.policy.issuer}>"

    def open(self, *, wait: timedelta = timedelta(seconds=5)) -> None:
        """Begin, and wait until tokens can be verified; calling it again only waits.

        Where the issuer does not answer it is tried again in the background for as long as it takes: this returns,
        and `verify` raises StoreUnavailable until then.

        Args:
            wait: for how long at most.
        """
        self._listener.open(wait.total_seconds())

    def close(self) -> None:
        """End the thread; no token is trusted any more. Calling it again does nothing."""
        self._listener.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await offload(self.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await offload(self.close)

    async def verify_asking(self, token: str) -> Principal:
        """Return whom an access token speaks for; where the feed is silent and the policy says `ask`, ask the issuer.

        It is asked `GET /api/session` with the token itself, for a second at most. The answer is as good as if its own
        API had been called. Without an event loop: `coatcheck.run.run(verifier.verify_asking(token))`.

        Raises:
            as `verify`; StoreUnavailable also where the issuer does not answer.
        """
        if self.policy.when_stale != "ask" or self.revocations.heard_at == NEVER or not self.is_stale():
            return self.verify(token)
        principal = self.judge(token)
        await settle(self._listener.ask(token, principal))
        return principal

    def _look_for_its_key(self, token: str) -> None:
        self._listener.missed(token)

    def _bear_silence(self) -> None:
        if self.revocations.heard_at == NEVER:
            self._listener.wake()
            raise StoreUnavailable("nothing was heard from the issuer yet: no token is trusted")
        super()._bear_silence()
