"""Security Event Tokens (RFC 8417): events of CAEP, and those that verify a stream; built and judged by this table.

claim              rule (Shared Signals Framework 1.0, section 4.1; CAEP 1.0, sections 2 and 3)       refused as
typ                secevent+jwt                                                                      WrongClaim
iss                the very string of the stream's issuer                                            WrongClaim
aud                our name, or a list that holds it                                                 WrongClaim
jti                1 to 255 characters                                                               WrongClaim
iat                not in the future, give or take the leeway                                        WrongClaim
txn                1 to 255 characters, if there; ours always have it                                WrongClaim
sub, exp           never there, so that no such token is taken for one of another kind               WrongClaim
sub_id             a subject identifier (see SUBJECTS), or a complex subject of such                 WrongClaim
events             exactly one; of the types in EVENTS, with the members of their class there        WrongClaim
event_timestamp    not in the future, give or take the leeway, if there                              WrongClaim
initiating_entity  admin, user, policy or system, if there                                           WrongClaim
reason_admin, reason_user     texts by language tag, at least one, if there                          WrongClaim
others             ignored, which the framework demands

An event of a type that we do not know is accepted with whatever members it has: its receiver must
acknowledge it (RFC 8935) and can do nothing with it. Such is a subject in a format that we do not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from coatcheck.core import jws, shape, strict_json
from coatcheck.core.claims import MAX_LEEWAY, TYPES, Name, Time
from coatcheck.core.keys import Key, Keyring
from coatcheck.errors import ConfigurationError, CredentialError, InvalidValue, WrongClaim

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
SESSION_REVOKED: Final = CAEP + "session-revoked"
TOKEN_CLAIMS_CHANGE: Final = CAEP + "token-claims-change"
CREDENTIAL_CHANGE: Final = CAEP + "credential-change"
VERIFICATION: Final = "https://schemas.openid.net/secevent/ssf/event-type/verification"

Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2_048)]
Entity: TypeAlias = Literal["admin", "user", "policy", "system"]
Language: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*\Z", max_length=64)]  # RFC 5646
Reasons: TypeAlias = Annotated[dict[Language, Text], Meta(min_length=1)]


class SessionRevoked(msgspec.Struct, frozen=True, kw_only=True):
    """The session, or all sessions, of the event's subject have ended (CAEP, sections 2 and 3.1)."""

    event_timestamp: Time | UnsetType = UNSET
    initiating_entity: Entity | UnsetType = UNSET
    reason_admin: Reasons | UnsetType = UNSET
    reason_user: Reasons | UnsetType = UNSET


class TokenClaimsChange(SessionRevoked, frozen=True, kw_only=True):
    """Claims of a token have other values now (CAEP, section 3.2)."""

    claims: Annotated[dict[str, Any], Meta(min_length=1)]


class CredentialChange(SessionRevoked, frozen=True, kw_only=True):
    """A credential was made, changed or removed (CAEP, section 3.3)."""

    credential_type: Text
    change_type: Literal["create", "revoke", "update", "delete"]
    friendly_name: str | UnsetType = UNSET
    x509_issuer: str | UnsetType = UNSET
    x509_serial: str | UnsetType = UNSET
    fido2_aaguid: str | UnsetType = UNSET


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The stream that the subject names works (Shared Signals Framework, section 8.1.4); `state` is what was asked."""

    state: Text | UnsetType = UNSET


# The types of event whose members are judged.
EVENTS: Final[dict[str, type[SessionRevoked | Verification]]] = {
    SESSION_REVOKED: SessionRevoked,
    TOKEN_CLAIMS_CHANGE: TokenClaimsChange,
    CREDENTIAL_CHANGE: CredentialChange,
    VERIFICATION: Verification,
}

# The formats of a subject identifier, and the texts that each must have.
SUBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "account": ("uri",),  # RFC 9493, 3.2.1 to 3.2.8; `aliases` is a list of the others
    "did": ("url",),
    "email": ("email",),
    "iss_sub": ("iss", "sub"),
    "opaque": ("id",),
    "phone_number": ("phone_number",),
    "uri": ("uri",),
    "jwt_id": ("iss", "jti"),  # Shared Signals Framework 1.0, 3.4
    "saml_assertion_id": ("issuer", "assertion_id"),
}


class SecurityEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The verified content of a Security Event Token; made by `judge`.

    Args:
        iss, aud, jti, iat, txn, sub_id: the claims; `iat` is in seconds.
        type: the URI of the event's type.
        event: its members, in the class of EVENTS; a plain mapping if the type is none of those.
    """

    iss: str
    aud: str | tuple[str, ...]
    jti: str
    iat: float
    txn: str | None
    sub_id: Mapping[str, Any]
    type: str
    event: SessionRevoked | Verification | Mapping[str, Any]

    def revokes(self) -> tuple[str | None, str | None]:
        """Return whom to sign out: the session's id and the subject, as `subject` builds them; else twice None.

        A subject of another issuer is nobody that we know, and neither is a complex subject with other members:
        what they narrow down (a device, a tenant) must not be taken for more than it is.
        """
        whole = dict(self.sub_id)
        named: dict[str, Any] = whole if whole["format"] == "complex" else {"user": whole}
        session: dict[str, Any] | None = named.get("session")
        user: dict[str, Any] | None = named.get("user")
        if self.type != SESSION_REVOKED or not named.keys() <= {"format", "session", "user"}:
            return None, None
        if session is not None and session["format"] != "opaque":
            return None, None
        if user is not None and (user["format"], user.get("iss")) != ("iss_sub", self.iss):
            return None, None
        return session["id"] if session else None, user["sub"] if user else None


class _Claims(msgspec.Struct):
    iss: str
    aud: str | Annotated[tuple[str, ...], Meta(min_length=1)]
    jti: Name
    iat: Time
    sub_id: dict[str, Any]
    events: Annotated[dict[str, dict[str, Any]], Meta(min_length=1, max_length=1)]
    txn: Name | UnsetType = UNSET


def subject(issuer: str, *, session_id: str | None = None, subject: str | None = None) -> dict[str, Any]:
    """Return the `sub_id` of a session, or of all sessions of a subject.

    A subject alone is an identifier of format `iss_sub` (RFC 9493, section 3.2.4). A session is a complex subject
    (Shared Signals Framework, section 3.3), whose `session` is the id that access tokens have in `sid`.

    Raises:
        InvalidValue: neither is named.
    """
    user = None if subject is None else {"format": "iss_sub", "iss": issuer, "sub": subject}
    if session_id is not None:
        found: dict[str, Any] = {"format": "complex", "session": {"format": "opaque", "id": session_id}}
        return found if user is None else {**found, "user": user}
    if user is None:
        raise InvalidValue("an event is about a session or a subject")
    return user


def build(
    *,
    issuer: str,
    audience: str | Sequence[str],
    token_id: str,
    issued_at: int,
    transaction_id: str,
    sub_id: Mapping[str, Any],
    type: str,
    event: SessionRevoked | Verification,
) -> bytes:
    """Return the payload of a Security Event Token, to be signed with `sign`.

    Args:
        issuer, audience, token_id, transaction_id: the claims iss, aud, jti and txn. `token_id` never repeats;
            `transaction_id` is the same in all tokens about one incident.
        issued_at: seconds since the epoch.
        sub_id: whom the event is about, from `subject`.
        type: the URI of the event's type, one of EVENTS.
        event: its members; `event_timestamp` is in seconds.

    Raises:
        InvalidValue: a claim is not as `judge` wants it, or the event is not of its type's class.
    """
    audiences = [audience] if isinstance(audience, str) else list(audience)
    if not (issuer and audiences and all(audiences)) or event.__class__ is not EVENTS.get(type):
        raise InvalidValue("the issuer or the audience is empty, or the event is not of its type's class")
    members = {
        "iss": issuer,
        "aud": audience if isinstance(audience, str) else audiences,
        "jti": token_id,
        "iat": issued_at,
        "txn": transaction_id,
        "sub_id": sub_id,
        "events": {type: event},
    }
    try:
        payload = msgspec.json.encode(members)
        judge(payload, issuer=issuer, audience=audiences[0], now=issued_at, leeway=0)
    except CredentialError as error:
        raise InvalidValue(f"no such event can be sent: {error}") from None
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        raise InvalidValue("a claim is not plain data") from None
    return payload


def sign(payload: bytes, key: Key) -> str:
    """Return the Security Event Token with these claims.

    Raises:
        ConfigurationError: the key cannot sign.
        InvalidValue: the token would be over 16 KiB.
    """
    return jws.sign(payload, key, typ=TYPES["security event"])


def verify(token: str | bytes, ring: Keyring, *, issuer: str, audience: str, now: float, leeway: int) -> SecurityEvent:
    """Return the event in a Security Event Token, if a key of `ring` signed it; the rest is `judge`.

    Raises:
        BadSignature: no key of the ring signed it.
        Malformed, WrongClaim, ConfigurationError: see `judge`.
    """
    payload = jws.verify(token, ring, typ=TYPES["security event"])
    return judge(payload, issuer=issuer, audience=audience, now=now, leeway=leeway)


def judge(payload: bytes, *, issuer: str, audience: str, now: float, leeway: int) -> SecurityEvent:
    """Return the event in the claims of a Security Event Token; the module lists the rules.

    Not checked: the signature (`verify` does), whether the `jti` was seen before, and how long ago it was: such
    tokens do not expire.

    Args:
        payload: the claims.
        issuer: that of the stream, whose keys were used; exactly.
        audience: our own name; exactly, or as a member of a list.
        now: seconds since the epoch.
        leeway: seconds that clocks may differ, 60 at most (J13).

    Raises:
        Malformed: the payload is not a JSON object, or names a member twice.
        WrongClaim: see the module; `claim` says which.
        ConfigurationError: the leeway is out of bounds.
    """
    if not 0 <= leeway <= MAX_LEEWAY:
        raise ConfigurationError(f"the leeway is 0 to {MAX_LEEWAY} seconds")
    members = strict_json.loads(payload)
    for name in ("sub", "exp"):
        if name in members:
            raise WrongClaim(name, f"a security event has no {name}")
    claims = shape.fit(members, _Claims)
    aud = claims.aud
    if claims.iss != issuer:
        raise WrongClaim("iss", "the event is from another issuer")
    if aud != audience and (isinstance(aud, str) or audience not in aud):
        raise WrongClaim("aud", "the event is for another audience")
    if not claims.iat <= now + leeway:
        raise WrongClaim("iat", "the event was issued in the future")
    _judge_subject(claims.sub_id)
    ((type_, details),) = claims.events.items()
    return SecurityEvent(
        iss=claims.iss,
        aud=aud,
        jti=claims.jti,
        iat=claims.iat,
        txn=None if claims.txn is UNSET else claims.txn,
        sub_id=claims.sub_id,
        type=type_,
        event=_judge_event(type_, details, now + leeway),
    )


def _judge_event(type_: str, details: dict[str, Any], latest: float) -> SessionRevoked | Verification | dict[str, Any]:
    if type_ not in EVENTS:
        return details
    event = shape.fit(details, EVENTS[type_], within="events")
    happened = event.event_timestamp if isinstance(event, SessionRevoked) else UNSET
    if not (happened is UNSET or happened <= latest):
        raise WrongClaim("events", "the event happened in the future")
    return event


def _judge_subject(sub_id: Mapping[str, Any]) -> None:
    """Judge a simple subject, a list of such, or a complex one, whose members are simple."""
    format_ = sub_id.get("format")
    parts: Sequence[object] = ()
    if format_ == "complex":
        parts = [member for name, member in sub_id.items() if name != "format"]
    elif format_ == "aliases":
        found: object = sub_id.get("identifiers")
        parts = cast("list[object]", found) if isinstance(found, list) else ()
    else:
        _judge_simple(sub_id)
        return
    if not parts:
        raise WrongClaim("sub_id", "the subject is nobody")
    for part in parts:
        _judge_simple(part)


def _judge_simple(sub_id: object) -> None:
    members = cast("dict[str, object]", sub_id) if isinstance(sub_id, dict) else {}
    format_ = members.get("format")
    if not isinstance(format_, str) or format_ in ("", "complex", "aliases"):
        raise WrongClaim("sub_id", "a subject has no format, or one that does not belong there")
    for name in SUBJECTS.get(format_, ()):
        if not isinstance(members.get(name), str) or not members[name]:
            raise WrongClaim("sub_id", f"a subject of format {format_} has {name}")
