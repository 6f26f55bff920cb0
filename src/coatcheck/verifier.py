"""Verifier: access token to Principal, synchronously and without a store: all that most processes need."""

from __future__ import annotations

from coatcheck.clock import Clock, system_clock
from coatcheck.core import claims, jws
from coatcheck.core.claims import Principal
from coatcheck.core.keys import Keyring
from coatcheck.core.policy import Policy, milliseconds, seconds
from coatcheck.core.revocation import Revocations
from coatcheck.errors import StoreUnavailable


class Verifier:
    """Judges access tokens: signature, type, claims, revocations.

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

    def verify(self, token: str) -> Principal:
        """Return whom an access token speaks for (RFC 9068, section 4).

        Not checked: that the session is still stored, which its revocation tells; that the scopes suffice, and
        how long ago the sign-in was: `Exchange.require` does.

        Raises:
            Malformed, BadSignature, Expired, WrongClaim: the token is no good.
            Revoked: its session has ended, or its subject was signed out everywhere.
            StoreUnavailable: this process has not heard of revocations for longer than the policy allows.
        """
        now = self.clock()
        if self.policy.when_stale == "refuse" and self.silence(now) > self._stale_after:
            raise StoreUnavailable(f"no word of revocations for {self.silence(now)} ms; refusing tokens until there is")
        found = claims.judge(
            jws.verify(token, self.keyring, typ="at+jwt"),
            issuer=self.policy.issuer,
            audience=self.policy.audience,
            now=now / 1000,
            leeway=self._leeway,
        )
        self.revocations.judge(found.sid, found.sub, found.iat)
        return found.principal()

    def silence(self, now: int) -> int:
        """Return for how many milliseconds nothing was heard from the feed; 0 where there is no other process."""
        heard_at = self.revocations.heard_at
        return 0 if heard_at is None else max(0, now - heard_at)

    def must_ask(self) -> bool:
        """Say whether the policy wants sessions looked up for now, because the feed has been silent too long."""
        return self.policy.when_stale == "ask" and self.silence(self.clock()) > self._stale_after
