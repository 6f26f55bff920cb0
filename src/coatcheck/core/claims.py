"""Claims of an access token (RFC 9068): built, and judged by the rules of this table.

claim      rule                                                                                    refused as
iss        the very string of the issuer (RFC 7519, 4.1.1)                                         WrongClaim
aud        the audience, or a list that holds it (4.1.3)                                           WrongClaim
exp        now < exp + leeway (4.1.4)                                                              Expired
nbf        now >= nbf - leeway, if there (4.1.5)                                                   Expired
iat        not in the future, give or take the leeway (4.1.6)                                      WrongClaim
auth_time  not in the future, give or take the leeway, if there (RFC 9068, 2.2.1)                  WrongClaim
sub        1 to 255 characters (4.1.2; OpenID Connect Core, 2)                                     WrongClaim
client_id, jti, sid                       1 to 255 characters; `sid` is our own demand             WrongClaim
scope, amr, acr, cnf                      a string, strings, a string, an object of strings        WrongClaim
others     kept in `extra`                                                                         -

Times are numbers (never strings, true or NaN) from 1970 to 9999; fractions are fine. No member
may come twice (J15).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from coatcheck.core import strict_json
from coatcheck.errors import ConfigurationError, CredentialError, Expired, InvalidValue, Malformed, WrongClaim

# The kinds of token and their `typ` (J14). None is ever taken for another.
TYPES: Final[dict[str, str]] = {
    "access token": "at+jwt",  # RFC 9068, 2.1
    "session token": "coatcheck-session+jwt",  # our own
    "ID token": "JWT",  # OpenID Connect Core asks for nothing better
    "logout token": "logout+jwt",  # OpenID Connect Back-Channel Logout, 2.4
    "DPoP proof": "dpop+jwt",  # RFC 9449, 4.2
    "DBSC proof": "dbsc+jwt",  # Device Bound Session Credentials
    "security event": "secevent+jwt",  # RFC 8417, 2.3
    "status list": "statuslist+jwt",  # Token Status List, 5.1
}

MAX_LEEWAY: Final = 60  # seconds (J13)
MAX_TIME: Final = 253_402_300_799  # the last second of the year 9999
MAX_NAME: Final = 255  # characters of sub, client_id, jti, sid

Time: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TIME)] | Annotated[float, Meta(ge=0, le=MAX_TIME)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a request acts as.

    Args:
        subject: the account.
        session_id: the session that the credential hangs on.
        scopes: what the client may do (RFC 6749, section 3.3).
        auth_time: when the subject last proved who it is, in whole seconds since the epoch.
        amr: how (RFC 8176).
        confirmation: the key the credential is bound to (RFC 7800), such as {"jkt": thumbprint}.
    """

    subject: str
    session_id: str
    scopes: tuple[str, ...] = ()
    auth_time: int | None = None
    amr: tuple[str, ...] = ()
    confirmation: Mapping[str, str] | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The verified content of an access token (RFC 9068, section 2.2); made by `judge`.

    Times are NumericDates, in seconds. `extra` holds the claims that have no field of their own.
    """

    iss: str
    sub: Name
    aud: str | tuple[str, ...]
    exp: Time
    iat: Time
    jti: Name
    client_id: Name
    sid: Name
    scope: str = ""
    auth_time: Time | None = None
    amr: tuple[str, ...] = ()
    acr: str | None = None
    cnf: Annotated[dict[str, str], Meta(min_length=1)] | None = None
    nbf: Time | None = None
    # No claim: it has a name in JSON only because every field must. An empty object is all that fits, and is
    # never written, so a token with such a member is read the long way, where the member ends up in `extra`
    # like any other.
    extra: Annotated[dict[str, Any], Meta(max_length=0)] = msgspec.field(default={}, name="")

    def principal(self) -> Principal:
        """Return whom a request with these claims acts as."""
        return Principal(
            subject=self.sub,
            session_id=self.sid,
            scopes=tuple(self.scope.split()),
            auth_time=None if self.auth_time is None else int(self.auth_time),
            amr=self.amr,
            confirmation=self.cnf,
        )


_FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Claims)) - {""}
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749, appendix A.4
_AT_FIELD: Final = re.compile(r"(?:at `\$\.|missing required field `)(\w+)")

_decode = msgspec.json.Decoder(Claims).decode
_encode = msgspec.json.Encoder().encode


def build_access_token(
    *,
    issuer: str,
    audience: str | Sequence[str],
    subject: str,
    client_id: str,
    session_id: str,
    token_id: str,
    issued_at: int,
    lifetime: int,
    scope: str = "",
    auth_time: int | None = None,
    amr: Sequence[str] = (),
    acr: str | None = None,
    confirmation: Mapping[str, str] | None = None,
    extra: Mapping[str, object] | None = None,
) -> bytes:
    """Return the payload of an access token (RFC 9068, section 2.2), to be signed with `typ` "at+jwt".

    Args:
        issuer, audience, subject, client_id: the claims iss, aud, sub and client_id.
        session_id, token_id: the claims sid and jti; the latter must never repeat.
        issued_at: seconds since the epoch.
        lifetime: seconds, at least 1.
        scope: space-separated (RFC 6749, section 3.3).
        auth_time: seconds since the epoch.
        amr, acr: how the subject signed in.
        confirmation: the claim cnf (RFC 7800).
        extra: further claims; they make verifying a little slower, and may not carry a name from this list.

    Raises:
        InvalidValue: a claim is empty or too long, is not plain data, or the subject or the audience is the
            client itself (J20, J22).
    """
    audiences = [audience] if isinstance(audience, str) else list(audience)
    members: dict[str, object] = {
        "iss": issuer,
        "sub": subject,
        "aud": audience if isinstance(audience, str) else audiences,
        "exp": issued_at + lifetime,
        "iat": issued_at,
        "jti": token_id,
        "client_id": client_id,
        "sid": session_id,
        "scope": scope,
        "auth_time": auth_time,
        "amr": list(amr),
        "acr": acr,
        "cnf": None if confirmation is None else dict(confirmation),
    }
    for problem, found in (
        ("the subject is the client itself (J22)", subject == client_id),
        ("the audience is the client itself (J20)", client_id in audiences),
        ("the issuer or the audience is empty", not (issuer and audiences and all(audiences))),
        ("the lifetime is not at least one second", lifetime < 1),
        ("the scope is not words of printable ASCII with single spaces", bool(scope) and not _SCOPE.fullmatch(scope)),
        ("an extra claim has the name of a claim with an argument of its own", not _FIELDS.isdisjoint(extra or {})),
    ):
        if found:
            raise InvalidValue(problem)
    try:
        claims = msgspec.convert({name: value for name, value in members.items() if value is not None}, Claims)
        if not extra:
            return _encode(claims)
        payload = _encode(msgspec.to_builtins(claims) | dict(extra))
        _read(payload)
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError, CredentialError):
        raise InvalidValue("a claim is empty, too long, or not plain data") from None
    return payload


def judge(payload: bytes, *, issuer: str, audience: str, now: float, leeway: int) -> Claims:
    """Return the claims of an access token's payload, if they are for us and for now; the module lists the rules.

    Not checked: the signature (`jws.verify` comes first), revocation, scope, and who holds the key in `cnf`.

    Args:
        payload: what `jws.verify` returned.
        issuer: the one whose keys were used; exactly (J12).
        audience: our own name; exactly, or as a member of a list.
        now: seconds since the epoch.
        leeway: seconds that clocks may differ, 60 at most (J13).

    Raises:
        Malformed: the payload is not a JSON object, or names a member twice.
        WrongClaim: a claim is missing, of the wrong type, or not for us; `claim` says which.
        Expired: it is past its time, or not yet valid.
        ConfigurationError: the leeway is out of bounds.
    """
    if not 0 <= leeway <= MAX_LEEWAY:
        raise ConfigurationError(f"the leeway is 0 to {MAX_LEEWAY} seconds")
    claims = _read(payload)
    aud = claims.aud
    latest = now + leeway
    if claims.iss != issuer:
        raise WrongClaim("iss", "the token is from another issuer")
    if aud != audience and (isinstance(aud, str) or audience not in aud):
        raise WrongClaim("aud", "the token is for another audience")
    # Each comparison is the one that must hold, so that a NaN from a broken clock refuses.
    if not now < claims.exp + leeway:
        raise Expired("the token has expired")
    if not (claims.nbf is None or claims.nbf <= latest):
        raise Expired("the token is not yet valid")
    if not claims.iat <= latest:
        raise WrongClaim("iat", "the token was issued in the future")
    if not (claims.auth_time is None or claims.auth_time <= latest):
        raise WrongClaim("auth_time", "the sign-in was in the future")
    return claims


def _read(payload: bytes) -> Claims:
    try:
        claims = _decode(payload)
    except msgspec.ValidationError as error:
        raise _mistyped(error) from None
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise Malformed("the claims are not a JSON object") from None
    # If writing the claims gives the very text that was read, then that text names no member twice (the
    # encoder never does), has no other members, no deep nesting (no field has), and is UTF-8 (the encoder's
    # output is). Tokens that we make are like that. Any other text is read a second time, strictly.
    if _encode(claims) == payload:
        return claims
    members = strict_json.loads(payload)
    for name in _FIELDS & members.keys():
        if members[name] is None:
            raise WrongClaim(name, f"claim {name} is null")
    extra = {name: value for name, value in members.items() if name not in _FIELDS}
    return msgspec.structs.replace(claims, extra=extra) if extra else claims


def _mistyped(error: msgspec.ValidationError) -> Malformed | WrongClaim:
    # The message names the place, never the value; only the name is taken from it, to tell the developer.
    if (found := _AT_FIELD.search(str(error))) is None or found[1] not in _FIELDS:
        return Malformed("the claims are not an object, or a number in them is out of range")
    return WrongClaim(found[1], f"claim {found[1]} is missing, or of the wrong type or size")
