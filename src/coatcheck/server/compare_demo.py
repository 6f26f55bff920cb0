"""The demonstration's session and token: of a Coatcheck of its own, with which nobody can do anything else.

Its keys, its issuer and its cookie's name are its own, and its records are in this process's memory: what is handed
out here is refused everywhere else, by the server itself and by whoever verifies its tokens.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple, cast

from coatcheck import Coatcheck, Cookie, Exchange, Keyring, Policy, Session
from coatcheck.clock import Clock
from coatcheck.server.attempts import TooMany, network
from coatcheck.server.rendering import absolute
from coatcheck.web.asgi import Scope, request_head

LIFETIME: Final = timedelta(minutes=10)
MOST_LIVE: Final = 500
PER_ADDRESS: Final = 20
WINDOW: Final = 10 * 60 * 1000  # milliseconds
_MAX_ADDRESSES: Final = 10_000

_TIMES: Final = frozenset({"exp", "iat", "nbf", "auth_time"})
# What the parts of a token mean, for people.
MEANINGS: Final[Mapping[str, str]] = {
    "alg": "how it is signed; whoever has the public key can check it, and nobody can make one with that",
    "kid": "which key signed it: the thumbprint of that key",
    "typ": "what it is: an access token (RFC 9068), which nothing else is taken for",
    "iss": "who made it; this is the demonstration, so nobody else accepts it",
    "sub": "for whom it speaks: an account that exists for some minutes, and that nobody has",
    "aud": "who may accept it",
    "exp": "when it expires: from then on it is refused, whatever else is true",
    "iat": "when it was made",
    "jti": "its own number",
    "client_id": "for which client it was made",
    "sid": "the session that it hangs on: when that ends, it is refused",
    "scope": "what may be done with it",
    "auth_time": "when its owner last proved who they are",
    "amr": "how they proved it; here by pressing a button",
}


class Fact(NamedTuple):
    """A line of what a record or a token says: a name, what stands there, and what it means."""

    name: str
    value: str
    means: str


class Demo:
    """The session of whoever asks for one, and its token.

    Args:
        url: the server's own origin.
        clock: milliseconds since the epoch.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        policy = Policy(
            issuer=f"{url}/compare",
            cookie=Cookie("__Host-compare-session"),
            idle=None,
            absolute=LIFETIME,
            access_lifetime=LIFETIME,
            trusted_origins=frozenset({url}),
        )
        self.coatcheck = Coatcheck(None, Keyring.generate("ES256"), policy, clock=clock, on_event=lambda _: None)
        self._clock = clock
        self._live: dict[str, None] = {}
        self._starts: dict[str, tuple[int, ...]] = {}

    async def visit(self, scope: Scope) -> Exchange:
        """Return what the demonstration makes of a request: of its own cookie, or of a token in a header."""
        return await Exchange.begin(request_head(scope), self.coatcheck.sessions, self.coatcheck.verifier)

    async def start(self, found: Exchange) -> None:
        """Begin a session for this browser; one that it has is ended.

        Raises:
            TooMany: its address has begun many lately.
        """
        self._count(network(found.head.address))
        await self.coatcheck.sessions.sweep()
        session = await found.sign_in(f"demo-{secrets.token_hex(4)}", amr=("user",), scopes=("look", "revoke"))
        self._live[session.id or ""] = None
        while len(self._live) > MOST_LIVE:
            oldest = next(iter(self._live))
            del self._live[oldest]
            await self.coatcheck.sessions.revoke(oldest)

    async def end(self, found: Exchange) -> bool:
        """End the browser's session and with it its token, and leave it the cookie, to be refused by."""
        principal = found.principal
        if principal is None:
            return False
        self._live.pop(principal.session_id, None)
        return await self.coatcheck.sessions.revoke(principal.session_id)

    def _count(self, source: str) -> None:
        now = self._clock()
        began = tuple(at for at in self._starts.pop(source, ()) if now - WINDOW < at <= now)
        if len(began) >= PER_ADDRESS:
            self._starts[source] = began
            raise TooMany("many demonstrations were begun from this address", max(1, (began[0] + WINDOW - now) // 1000))
        # Popped and put back: the first is the one that was quiet for longest.
        self._starts[source] = (*began, now)
        if len(self._starts) > _MAX_ADDRESSES:
            del self._starts[next(iter(self._starts))]


def record_facts(session: Session) -> list[Fact]:
    """Return what is stored of a session, without its secret's hash."""
    record = session.record
    if record is None:
        return []
    return [
        Fact("id", record.id, "the half of the cookie that is no secret"),
        Fact("digest", "not shown", "the SHA-256 of the other half; the secret itself is stored nowhere"),
        Fact("subject", record.subject or "", "whose session it is"),
        Fact("signed_in_at", absolute(record.signed_in_at).words, "when they proved who they are"),
        Fact("seen_at", absolute(record.seen_at).words, "when it was last used, to within a minute"),
        Fact("ends_at", absolute(record.ends_at).words, "when it ends, whatever its use"),
        Fact("amr", " ".join(record.amr), "how they proved it; here by pressing a button"),
        Fact("scopes", " ".join(record.scopes), "what its tokens may be used for"),
        Fact("persistent", "yes" if record.persistent else "no", "whether its cookie survives the end of the browser"),
        Fact("generation", str(record.generation), "how often its refresh token was exchanged"),
        Fact("version", str(record.version), "how often it was written: who writes names the version that they read"),
        Fact("device", record.device.user_agent, "what the browser called itself at the sign-in"),
        Fact("address", record.device.address, "where the sign-in came from"),
    ]


def token_facts(token: str) -> list[Fact]:
    """Return what stands in a token of ours, as anybody can read it who has it."""
    header, payload, _ = token.split(".")
    members = {**_decoded(header), **_decoded(payload)}
    return [Fact(name, _value(name, value), MEANINGS.get(name, "")) for name, value in members.items()]


def _decoded(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _value(name: str, value: Any) -> str:
    if name in _TIMES:
        return f"{value}: {absolute(int(value) * 1000).words}"
    return " ".join(cast("list[str]", value)) if isinstance(value, list) else str(value)
