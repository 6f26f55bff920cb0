"""Policy: lifetimes, cookie attributes and grace, checked once, at construction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, Self

from coatcheck.core.cookies import SESSION_COOKIE, Cookie
from coatcheck.core.credentials import MAX_PARTS, CookieNames
from coatcheck.core.csrf import trusted_origins
from coatcheck.core.own_cookies import ProtectedCookie, SealedCookie, SignedCookie
from coatcheck.errors import ConfigurationError

WhenStale = Literal["refuse", "ask", "accept"]
WhenFull = Literal["end_oldest", "refuse"]

# An access token cannot outlive this, so neither can the memory of a revocation.
MAX_ACCESS_LIFETIME = timedelta(hours=1)
# Revocations are remembered this much longer than anything they concern could live.
SLACK = timedelta(minutes=1)
MAX_LEEWAY = timedelta(seconds=60)
MAX_GRACE = timedelta(minutes=5)
MOST_SESSIONS = 1000  # they are all read at each sign-in

FLASH_LIFETIME = timedelta(hours=1)  # a message that nobody has seen by then is stale
CSRF_LIFETIME = timedelta(days=1)  # for so long a form may stand open that nobody is signed in to


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long things live, what the cookie looks like, and what is forgiven.

    Args:
        issuer: the `iss` of our access tokens: the URL of the server that makes them.
        audience: the `aud` of our access tokens; the issuer itself when left out.
        client_id: the `client_id` of first-party tokens (RFC 9068, 2.2); no subject may be called so (J22).
        idle: a session dies this long after it was last seen; None: it has no idle limit.
        absolute: a session dies this long after its sign-in, whatever its use.
        touch_every: how often, at most, use of a session is written down.
        cookie: the session cookie's name and attributes; the cookies of access and refresh tokens follow it
            (`__Host-access`, `__Host-refresh`), the latter always SameSite=Strict; and so do those of flash messages
            and CSRF tokens (`__Host-flash-...`, `__Host-csrf`), and what a sealed session takes besides
            (`__Host-session-2`, `__Host-seen`).
        access_lifetime: of an access token; an hour at most.
        refresh_grace: how long a spent refresh token still yields its own successor (racing tabs, lost answers).
        leeway: forgiven to the clocks of other machines; 60 s at most.
        trusted_origins: other origins whose browsers may send unsafe requests ("https://shop.example").
        max_data: bytes that the data of one session may take.
        max_sessions: how many sessions a subject may have at once (S9); None: as many as they like.
        when_full: what becomes of one more: `end_oldest` ends the one whose sign-in is the longest ago, `refuse` raises
            TooManySessions.
        stale_after: a verifier that has heard nothing from the feed for this long is stale.
        when_stale: what a stale verifier does: `refuse` (503), `ask` (look the session up), or `accept`.

    Raises:
        ConfigurationError: a value that cannot work, or would not be safe.
    """

    issuer: str = "http://localhost:8000"
    audience: str = ""
    client_id: str = "first-party"
    idle: timedelta | None = timedelta(days=7)
    absolute: timedelta = timedelta(days=30)
    touch_every: timedelta = timedelta(minutes=1)
    cookie: Cookie = field(default_factory=lambda: Cookie(SESSION_COOKIE))
    access_lifetime: timedelta = timedelta(minutes=15)
    refresh_grace: timedelta = timedelta(seconds=30)
    leeway: timedelta = timedelta(seconds=10)
    trusted_origins: frozenset[str] = frozenset()
    max_data: int = 64 * 1024
    max_sessions: int | None = None
    when_full: WhenFull = "end_oldest"
    stale_after: timedelta = timedelta(seconds=5)
    when_stale: WhenStale = "refuse"
    access_cookie: Cookie = field(init=False, repr=False)
    refresh_cookie: Cookie = field(init=False, repr=False)
    flash_cookie: SealedCookie = field(init=False, repr=False)
    csrf_cookie: SignedCookie = field(init=False, repr=False)
    session_cookies: tuple[Cookie, ...] = field(init=False, repr=False)
    seen_cookie: Cookie = field(init=False, repr=False)
    cookie_names: CookieNames = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._require_kinds()
        access, refresh = (_beside(self.cookie, "access"), replace(_beside(self.cookie, "refresh"), same_site="Strict"))
        derived = {
            "audience": self.audience or self.issuer,
            "trusted_origins": trusted_origins(self.trusted_origins),
            "access_cookie": access,
            "refresh_cookie": refresh,
            "flash_cookie": SealedCookie.like(_beside(self.cookie, "flash"), max_age=FLASH_LIFETIME),
            "csrf_cookie": SignedCookie.like(_beside(self.cookie, "csrf"), max_age=CSRF_LIFETIME),
            "session_cookies": (
                self.cookie,
                *(replace(self.cookie, name=f"{self.cookie.name}-{part}") for part in range(2, MAX_PARTS + 1)),
            ),
            "seen_cookie": _beside(self.cookie, "seen"),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "cookie_names", self._names())
        for problem, wrong in self._problems():
            if wrong:
                raise ConfigurationError(problem)

    def _require_kinds(self) -> None:
        # For whoever does not check types: `idle=30` would otherwise be told that "<" is not supported.
        for name, kind in _KINDS.items():
            value: object = getattr(self, name)
            if not isinstance(value, kind) and not (name in ("idle", "max_sessions") and value is None):
                raise ConfigurationError(f"{name} must be of the type {kind.__name__}, not {type(value).__name__}")

    def _problems(self) -> list[tuple[str, bool]]:
        zero, second = timedelta(0), timedelta(seconds=1)
        return [
            ("issuer must not be empty", not self.issuer),
            ("client_id must not be empty", not self.client_id),
            ("idle must be at least one second, or None", self.idle is not None and self.idle < second),
            ("absolute must be at least one second", self.absolute < second),
            ("idle must not exceed absolute", self.idle is not None and self.idle > self.absolute),
            ("touch_every must not be negative", self.touch_every < zero),
            (
                "touch_every must be shorter than idle, or a session in use would die",
                self.idle is not None and self.touch_every >= self.idle,
            ),
            ("access_lifetime must be between 1 s and 1 h", not _within(self.access_lifetime, MAX_ACCESS_LIFETIME)),
            ("refresh_grace must be at most 5 min", not zero <= self.refresh_grace <= MAX_GRACE),
            ("leeway must be at most 60 s", not zero <= self.leeway <= MAX_LEEWAY),
            ("max_data must be positive", self.max_data <= 0),
            (
                "cookie is a plain Cookie: a session's needs no further protection",
                isinstance(self.cookie, ProtectedCookie),
            ),
            (
                f"max_sessions must be 1 to {MOST_SESSIONS}, or None",
                self.max_sessions is not None and not 1 <= self.max_sessions <= MOST_SESSIONS,
            ),
            ("when_full must be end_oldest or refuse", self.when_full not in ("end_oldest", "refuse")),
            ("stale_after must be longer than zero", self.stale_after <= zero),
            ("when_stale must be refuse, ask or accept", self.when_stale not in ("refuse", "ask", "accept")),
        ]

    @property
    def remembered(self) -> timedelta:
        """How long it is remembered that a session was revoked: longer than any of its tokens lives."""
        return self.access_lifetime + self.leeway + SLACK

    def _names(self) -> CookieNames:
        session, *more = (cookie.name.encode("ascii") for cookie in self.session_cookies)
        others = (self.access_cookie, self.refresh_cookie, self.seen_cookie)
        access, refresh, seen = (cookie.name.encode("ascii") for cookie in others)
        return CookieNames(session, access, refresh, tuple(more), seen)

    def owns(self, name: str) -> bool:
        """Say whether a cookie of this name is one of ours, and no application's."""
        ours = (*self.session_cookies, self.seen_cookie, self.access_cookie, self.refresh_cookie, self.csrf_cookie)
        return name in [cookie.name for cookie in ours] or name.startswith(f"{self.flash_cookie.name}-")

    # NIST SP 800-63B-4, 2.1.3, 2.2.3, 2.3.3 (S8).
    @classmethod
    def aal1(cls, **changes: Any) -> Self:
        """The limits of NIST's first assurance level: 30 days overall, no idle limit (S8)."""
        limits: dict[str, Any] = {"idle": None, "absolute": timedelta(days=30)}
        return cls(**(limits | changes))

    @classmethod
    def aal2(cls, **changes: Any) -> Self:
        """The limits of NIST's second assurance level: 24 hours overall, 1 hour idle (S8)."""
        limits: dict[str, Any] = {"idle": timedelta(hours=1), "absolute": timedelta(hours=24)}
        return cls(**(limits | changes))

    @classmethod
    def aal3(cls, **changes: Any) -> Self:
        """The limits of NIST's third assurance level: 12 hours overall, 15 minutes idle (S8)."""
        limits: dict[str, Any] = {"idle": timedelta(minutes=15), "absolute": timedelta(hours=12)}
        return cls(**(limits | changes))


_KINDS: dict[str, type] = {
    **dict.fromkeys(("issuer", "audience", "client_id"), str),
    **dict.fromkeys(("idle", "absolute", "touch_every", "access_lifetime", "refresh_grace", "leeway"), timedelta),
    "stale_after": timedelta,
    "cookie": Cookie,
    "max_data": int,
    "max_sessions": int,
}


@lru_cache  # asked for at every request, for the few durations that the policies have
def milliseconds(duration: timedelta | None) -> int:
    """Return a duration in whole milliseconds; None, "no limit", is 0."""
    return 0 if duration is None else duration // timedelta(milliseconds=1)


def seconds(duration: timedelta) -> int:
    """Return a duration in whole seconds."""
    return duration // timedelta(seconds=1)


def _beside(cookie: Cookie, use: str) -> Cookie:
    """Return the cookie of another use of the same sessions: `__Host-session` gives `__Host-access`."""
    prefix = next(
        (known for known in ("__Host-Http-", "__Host-", "__Http-", "__Secure-") if cookie.name.startswith(known)), ""
    )
    own = cookie.name.removeprefix(prefix)
    return replace(cookie, name=prefix + (use if own == "session" else f"{own}-{use}"))


def _within(value: timedelta, most: timedelta) -> bool:
    return timedelta(seconds=1) <= value <= most
