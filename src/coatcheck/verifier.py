"""Verifier: access token to Principal, synchronously and without a store: all that most processes need."""

from __future__ import annotations

from coatcheck.clock import Clock, monotonic_clock, system_clock
from coatcheck.core import claims, jws
from coatcheck.core.claims import Principal
from coatcheck.core.keys import Keyring
from coatcheck.core.policy import Policy, milliseconds, seconds
from coatcheck.core.revocation import NEVER, Revocations
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
            StoreUnavailable: this process has not heard of revocations for longer than the policy allows; also where
                the policy says `ask`, for nobody is asked here.
        """
        if self.policy.when_stale != "accept" and self.is_stale():
            never = " (is it open? `async with coatcheck`)" if self.revocations.heard_at == NEVER else ""
            raise StoreUnavailable(f"no word of revocations for too long: no token is trusted{never}")
        return self.judge(token)

    def judge(self, token: str) -> Principal:
        """Return whom an access token speaks for, for callers that then look the session up.

        Not checked: what `verify` does not check; and whether this process has heard of revocations lately.

        Raises:
            Malformed, BadSignature, Expired, WrongClaim, Revoked: as `verify`.
        """
        found = claims.judge(
            jws.verify(token, self.keyring, typ="at+jwt"),
            issuer=self.policy.issuer,
            audience=self.policy.audience,
            now=self.clock() / 1000,
            leeway=self._leeway,
        )
        self.revocations.judge(found.sid, found.sub, found.iat)
        return found.principal()

    def silence(self) -> int:
        """Return for how many milliseconds nothing was heard from the feed; 0 where there is no other process.

        Measured by the monotonic clock: setting the machine's time makes nothing look fresher, or older, than it is.
        """
        heard_at = self.revocations.heard_at
        return 0 if heard_at is None else monotonic_clock() - heard_at

    def is_stale(self) -> bool:
        """Say whether the feed has been silent for longer than the policy's `stale_after`."""
        return self.silence() > self._stale_after
