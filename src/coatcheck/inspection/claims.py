"""Claims: which kind of token has these, when it is good, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from coatcheck.core.claims import MAX_LEEWAY, MAX_TIME
from coatcheck.inspection import names
from coatcheck.inspection.reading import names_within
from coatcheck.inspection.report import Finding, Severity
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import listed, moment, span

_HOUR: Final = 3_600
_DAY: Final = 86_400
_MONTH: Final = 30 * _DAY
_WHOLE: Final = 120  # characters: issuers are addresses, and have to be compared to the letter


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of token.

    Args:
        name, summary: what it is, in words.
        required: the claims that it has.
        unwanted: those that belong to other kinds.
        longest: seconds that it should live at most; 0: it has no end.
        about_people: what it says about a person is what it is for.
    """

    name: str
    summary: str
    required: tuple[str, ...]
    unwanted: tuple[str, ...] = ()
    longest: int = 0
    about_people: bool = False


_ANY: Final = Kind(
    name="JWT",
    summary="A signed token that does not say what it is for.",
    required=("iss", "sub", "iat"),
    longest=_DAY,
)
_ID_TOKEN: Final = Kind(
    name="ID token",
    summary="It tells one client who has signed in (OpenID Connect); it is no key to anything.",
    required=("iss", "sub", "iat"),
    longest=_DAY,
    about_people=True,
)
# Told by their claims: most issuers do not name them by typ, as RFC 9068 wants it.
_ACCESS: Final = Kind(
    name="access token",
    summary="A key to a service, for whoever has it, until it ends. Only its claims say so.",
    required=("iss", "sub", "iat"),
    longest=_HOUR,
)
_REFRESH: Final = Kind(
    name="refresh token",
    summary="It gets new tokens from its issuer, and nobody else has a use for it. Only its claims say so.",
    required=("iss", "sub", "iat"),
    longest=_MONTH,
)
_KINDS: Final[Mapping[str, Kind]] = {
    "at+jwt": Kind(
        name="access token",
        summary="A key to a service, for whoever has it, until it ends (RFC 9068).",
        required=("iss", "sub", "client_id", "iat", "jti"),
        longest=_HOUR,
    ),
    "coatcheck-session+jwt": Kind(
        name="session token", summary="A session, signed.", required=("iss", "sub", "iat", "sid"), longest=_MONTH
    ),
    "secevent+jwt": Kind(
        name="security event token",
        summary="It tells a receiver what has happened to a subject (RFC 8417).",
        required=("iss", "iat", "jti", "events"),
        unwanted=("exp",),
    ),
    "logout+jwt": Kind(
        name="logout token",
        summary="It tells a client that somebody has signed out at the issuer (OpenID Connect Back-Channel Logout).",
        required=("iss", "iat", "jti", "events"),
        unwanted=("nonce",),
        longest=_HOUR,
    ),
    "dpop+jwt": Kind(
        name="DPoP proof",
        summary="It shows that the sender of one request has a key (RFC 9449).",
        required=("jti", "htm", "htu", "iat"),
    ),
    "dbsc+jwt": Kind(
        name="DBSC proof",
        summary="It shows that a browser still has the key that its session is bound to.",
        required=("jti",),
    ),
    "statuslist+jwt": Kind(
        name="status list token",
        summary="It tells which of an issuer's tokens are still good.",
        required=("sub", "iat", "status_list"),
        longest=_MONTH,
    ),
}
# What issuers call their tokens in the claims: Keycloak, Cognito, Simple JWT, Flask-JWT-Extended.
_SAYING: Final = ("typ", "token_use", "token_type", "type")
_SAID: Final[Mapping[str, Kind]] = {
    "bearer": _ACCESS,
    "access": _ACCESS,
    "id": _ID_TOKEN,
    "refresh": _REFRESH,
    "offline": _REFRESH,
}
# What only one kind of token has, the surest first. Not azp: access tokens have that as well.
_MARKS: Final[tuple[tuple[str, Kind], ...]] = (
    ("at_hash", _ID_TOKEN),
    ("c_hash", _ID_TOKEN),
    ("s_hash", _ID_TOKEN),
    ("scope", _ACCESS),
    ("scp", _ACCESS),
    ("nonce", _ID_TOKEN),
)
_BY_CLAIMS: Final = (_ANY, _ACCESS, _REFRESH)
_WITHOUT_END: Final = ("dpop+jwt", "dbsc+jwt", "secevent+jwt")
_FOR_ALL: Final = ("dpop+jwt", "dbsc+jwt", "statuslist+jwt")  # they have no audience

_WHO: Final = ("iss", "sub")
_TIMES: Final = ("exp", "nbf", "iat", "auth_time")
_TEXTS: Final = ("iss", "sub", "jti", "sid", "client_id", "scope", "acr", "azp", "nonce", "htm", "htu", "ath")
_SHOWN: Final = ("iss", "aud", "sub", "client_id", "azp", "scope", "sid", "jti", "amr", "acr", "htm", "htu")


def kind_of(typ: str, members: Mapping[str, Any]) -> Kind:
    """Return the kind of a token by its typ, in lower case and without application/; or else by its claims."""
    if typ in _KINDS:
        return _KINDS[typ]
    for word in (members.get(name) for name in _SAYING):
        if isinstance(word, str) and word.lower() in _SAID:
            return _SAID[word.lower()]
    return next((kind for name, kind in _MARKS if name in members), _ANY)


def judge(kind: Kind, members: Mapping[str, Any], now: int) -> tuple[dict[str, str], list[Finding]]:
    """Return what claims say, in words, and what is wrong with them.

    Args:
        kind: of their token.
        members: the claims.
        now: milliseconds since the epoch.
    """
    mistyped = [name for name in members if not _well_typed(name, members[name])]
    good = {name: value for name, value in members.items() if name not in mistyped}
    found = [finding("typ-generic", "its typ names no kind of token")] if kind in _BY_CLAIMS else []
    found += _missing(kind, members)
    if unwanted := [name for name in kind.unwanted if name in members]:
        found.append(finding("claim-unwanted", f"a {kind.name} has no {listed(unwanted)}"))
    if mistyped:
        found.append(finding("claim-type", f"{listed(mistyped)}: {_in_milliseconds(members, mistyped)}"))
    found += [*_in_time(good, now), *_too_long(kind, good), *secrets_in(members)]
    found += () if kind.about_people else personal_in(members)
    return _facts(good, now), found


def secrets_in(members: Mapping[str, Any]) -> list[Finding]:
    """Return that a readable object holds passwords or keys, if it does (C16)."""
    secrets = [*dict.fromkeys(names.secrets_among(names_within(members)))]
    return [finding("secret-inside", f"it has {listed(secrets)}")] if secrets else []


def personal_in(members: Mapping[str, Any]) -> list[Finding]:
    """Return that a readable object says something about a person, if it does (C16)."""
    personal = [*dict.fromkeys(names.personal_among(names_within(members)))]
    if isinstance(sub := members.get("sub"), str) and "@" in sub:
        personal.append("an address as sub")
    return [finding("personal-data", f"it has {listed(personal)}")] if personal else []


def _missing(kind: Kind, members: Mapping[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    typ = next((typ for typ, each in _KINDS.items() if each is kind), "")
    if "exp" not in members and typ not in _WITHOUT_END:
        found.append(finding("exp-missing", "exp is missing"))
    if "aud" not in members and typ not in _FOR_ALL:
        found.append(finding("aud-missing", "aud is missing"))
    missing = [name for name in kind.required if name not in members]
    if typ == "logout+jwt" and not {"sub", "sid"} & members.keys():
        missing.append("sub or sid")
    level: Severity | None = "low" if kind in _BY_CLAIMS else None
    if who := [name for name in missing if name in _WHO]:
        found.append(finding("who-missing", f"missing: {listed(who)}", level))
    if others := [name for name in missing if name not in _WHO]:
        found.append(finding("claim-missing", f"missing: {listed(others)}", level))
    return found


def _in_time(members: Mapping[str, Any], now: int) -> list[Finding]:
    seconds, found = now / 1000, list[Finding]()
    if "exp" in members and members["exp"] <= seconds:
        found.append(finding("ended", f"it ended {span(seconds - members['exp'])} ago"))
    early = [name for name in ("nbf", "iat", "auth_time") if members.get(name, 0) > seconds + MAX_LEEWAY]
    if early:
        found.append(finding("not-yet", f"in the future: {listed(early)}"))
    return found


def _too_long(kind: Kind, members: Mapping[str, Any]) -> list[Finding]:
    start = members.get("iat", members.get("nbf"))
    if not kind.longest or start is None or "exp" not in members:
        return []
    life = members["exp"] - start
    level: Severity | None = "low" if life <= _DAY else None
    return [finding("long-life", f"it lives for {span(life)}", level)] if life > kind.longest else []


def _facts(members: Mapping[str, Any], now: int) -> dict[str, str]:
    facts = {name: _value(members[name]) for name in _SHOWN if name in members}
    facts |= {name: moment(members[name], now) for name in _TIMES if name in members}
    if "exp" in members and "iat" in members and members["exp"] > members["iat"]:
        facts["lifetime"] = span(members["exp"] - members["iat"])
    others = [name for name in members if name not in facts]
    if others:
        facts["other claims"] = listed(others)
    return facts


def _value(value: Any) -> str:
    texts = [str(each) for each in cast("list[object]", value)] if isinstance(value, list) else [str(value)]
    return listed(["(an e-mail address)" if "@" in text and " " not in text else text for text in texts], _WHOLE)


def _well_typed(name: str, value: Any) -> bool:
    if name in _TIMES:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TIME
    if name == "aud":
        texts = cast("list[object]", value) if isinstance(value, list) else [value]
        return bool(texts) and all(isinstance(each, str) and each for each in texts)
    if name == "amr":
        return isinstance(value, list) and all(isinstance(each, str) for each in cast("list[object]", value))
    if name in _TEXTS:
        return isinstance(value, str) and (bool(value) or name == "scope")
    return not (name in ("cnf", "events", "status_list") and not isinstance(value, dict))


def _in_milliseconds(members: Mapping[str, Any], mistyped: list[str]) -> str:
    times = [members[name] for name in mistyped if name in _TIMES]
    if any(isinstance(value, int | float) and value > MAX_TIME for value in times):
        return "not the time that was meant, perhaps in milliseconds"
    return "of the wrong type, or empty"
