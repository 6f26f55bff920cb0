"""Texts as they are met, good and bad: `inspect` says what each is, and all that is wrong with it, and no more.

Tokens are made by those who make them in the world: PyJWT, joserfc, itsdangerous and Django.
"""

from __future__ import annotations

import base64
import hmac
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.core import signing
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner
from joserfc import jwe as joserfc_jwe
from joserfc.jwk import OctKey, RSAKey

from coatcheck import Cookie, Key, Keyring, SealedCookie, SignedCookie
from coatcheck.core.claims import build_access_token
from coatcheck.core.credentials import RefreshToken, SessionBox, SessionCookie
from coatcheck.core.jws import sign
from coatcheck.core.seal import seal
from coatcheck.inspection import RULES, Report, inspect

NOW = 1_800_000_000_000  # milliseconds
SECONDS = NOW // 1000
ISSUER = "https://auth.example"
SECRET = bytes(range(100, 164))
RING = Keyring.generate("ES256")
KEY = RING.signing_key()
SID = "QUJDREVGR0hJSktMTU5PUA"
SESSION_COOKIE = SessionCookie(SID, bytes(range(32)))
REFRESH = RefreshToken(SID, 3).seal(bytes(32))
BOX = SessionBox(seal(b"record" * 20, keys=[bytes(32)], purpose="session", name="__Host-session", nonce=bytes(12)))

GOOD_CLAIMS: Mapping[str, Any] = {"iss": ISSUER, "sub": "ann", "aud": "https://api.example", "iat": SECONDS}
LOGOUT: Mapping[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}


def at_jwt(**changes: Any) -> str:
    """An access token of ours."""
    given: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": "https://api.example",
        "subject": "ann",
        "client_id": "web",
        "session_id": SID,
        "token_id": "one",
        "issued_at": SECONDS,
        "lifetime": 900,
    }
    return sign(build_access_token(**(given | changes)), KEY, typ="at+jwt")


def by_pyjwt(claims: Mapping[str, Any], *, key: Any = SECRET, alg: str = "HS256", **header: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the key is too short is the point
        return pyjwt.encode(dict(claims), key, algorithm=alg, headers=header or None)


def by_hand(header: str, payload: str, signature: bytes = b"\x01" * 32) -> str:
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header.encode(), payload.encode(), signature)
    )


def signed_with_nothing(header: str, payload: str) -> str:
    """What a library makes that takes an empty secret; PyJWT does not."""
    unsigned = by_hand(header, payload, b"").rstrip(".")
    return by_hand(header, payload, hmac.digest(b"", unsigned.encode(), "sha256"))


def of_flask(content: dict[str, Any], secret: str = "x" * 40) -> str:
    app = Flask("app")
    app.secret_key = secret
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return str(signer.dumps(content))


def of_starlette(content: dict[str, Any]) -> str:
    return TimestampSigner("y" * 40).sign(base64.b64encode(json.dumps(content).encode())).decode()


def of_django(content: dict[str, Any], secret: str = "z" * 50) -> str:
    salt = "django.contrib.sessions.backends.signed_cookies"
    return signing.TimestampSigner(key=secret, salt=salt, fallback_keys=[]).sign_object(content, compress=True)


def jwk(key: Key, **changes: Any) -> dict[str, Any]:
    members = {**key.jwk(), **changes}
    return {name: value for name, value in members.items() if value is not None}


def dpop(**header: Any) -> str:
    proof = {"jti": "once", "htm": "POST", "htu": "https://auth.example/token", "iat": SECONDS}
    key = pyjwt.PyJWK({**RING.signing_key().private_jwk()}).key
    return by_pyjwt(proof, key=key, alg="ES256", **{"typ": "dpop+jwt", "jwk": jwk(KEY)} | header)


def encrypted(header: dict[str, Any]) -> str:
    registry = joserfc_jwe.JWERegistry(algorithms=[header["alg"], header["enc"], "DEF"])
    key = RSAKey.generate_key(2048) if header["alg"].startswith("RSA") else OctKey.generate_key(256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that RSA1_5 is deprecated is the point
        return joserfc_jwe.encrypt_compact(header, b"hello " * 50, key, registry=registry)


WEAK_RSA, LONG_RSA = (
    {"kty": "RSA", "e": "AQAB", "n": base64.urlsafe_b64encode(b"\xff" * octets).rstrip(b"=").decode()}
    for octets in (128, 256)
)
PRODUCTION = "__Host-session=1QUJDREVGR0hJSktMTU5PUA.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
SIGNED = SignedCookie("theme", max_age=timedelta(days=1)).protect(
    "dark", keys=[bytes(32)], expires_at=NOW + 86_400_000, nonce=b""
)
SEALED = SealedCookie("cart", max_age=timedelta(days=1)).protect(
    "3 apples", keys=[bytes(32)], expires_at=NOW + 86_400_000, nonce=bytes(12)
)

THEME = "__Host-theme=dark; Path=/; Secure; HttpOnly; SameSite=Lax"
GOOD_ID = json.dumps({**GOOD_CLAIMS, "exp": SECONDS + 300, "nonce": "n"})
PEM = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SHORT_PEM = (
    rsa.generate_private_key(65537, 1024)  # noqa: S505 - that it is short is the point
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
).decode()

INPUTS: dict[str, tuple[str, str, set[str]]] = {
    # -- tokens
    "our access token": (at_jwt(), "access token", set()),
    "our access token of two hours": (at_jwt(lifetime=7200), "access token", {"long-life"}),
    "our access token, yesterday": (at_jwt(issued_at=SECONDS - 86_400), "access token", {"ended"}),
    "PyJWT's tutorial": (
        by_pyjwt({"some": "payload"}, key="secret"),
        "JWT",
        {"secret-known", "typ-generic", "exp-missing", "aud-missing", "who-missing", "claim-missing"},
    ),
    "a JWT of 90 days that holds a person": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 90 * 86_400, "email": "a@b.example", "password_hash": "x"}),
        "JWT",
        {"typ-generic", "long-life", "personal-data"},
    ),
    "a password in the claims": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 60, "user": {"password": "hunter2"}}, typ="at+jwt"),
        "access token",
        {"secret-inside", "claim-missing"},
    ),
    "an unsigned JWT": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 60}, key=None, alg="none"),
        "JWT",
        {"alg-none", "typ-generic"},
    ),
    "NoNe": (by_hand('{"alg":"NoNe","typ":"JWT"}', '{"exp":1e999}'), "JWT",
             {"alg-none", "typ-generic", "aud-missing", "who-missing", "claim-missing", "claim-type", "json-loose"}),
    "times in milliseconds": (
        by_pyjwt({**GOOD_CLAIMS, "iat": NOW, "exp": NOW + 900_000}),
        "JWT",
        {"typ-generic", "claim-type"},
    ),
    "exp as text": (by_pyjwt({**GOOD_CLAIMS} | {"nbf": 0}) and by_hand(
        '{"alg":"HS256","typ":"JWT"}', json.dumps({**GOOD_CLAIMS, "exp": "1800000900"})),
        "JWT", {"typ-generic", "claim-type"}),
    "from the future": (
        by_pyjwt({**GOOD_CLAIMS, "iat": SECONDS + 3600, "exp": SECONDS + 4500}),
        "JWT",
        {"typ-generic", "not-yet"},
    ),
    "a key in the header": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 60}, jku="https://evil.example/jwks", kid="../../dev/null"),
        "JWT",
        {"typ-generic", "key-in-header", "kid-odd"},
    ),
    "critical, twice, and padded": (
        by_hand('{"alg":"ES256","typ":"at+jwt","crit":["b64"],"b64":false}',
                '{"iss":"https://auth.example","sub":"ann","sub":"bob","aud":"a","client_id":"web",'
                f'"iat":{SECONDS},"jti":"1","exp":{SECONDS + 60}}}', b"\x01" * 64) + "==",
        "access token",
        {"crit", "json-loose", "not-canonical"},
    ),
    "an ID token": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 300, "nonce": "n", "email": "a@b.example"}),
        "ID token",
        set(),
    ),
    "an access token of Keycloak's": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 300, "typ": "Bearer", "azp": "web", "nonce": "n"}),
        "access token",
        {"typ-generic"},
    ),
    "a refresh token of Keycloak's": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 1800, "typ": "Refresh", "azp": "web", "scope": "openid"}),
        "refresh token",
        {"typ-generic"},
    ),
    "an access token of Auth0's": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 86_400, "azp": "web", "scope": "openid read:things"}),
        "access token",
        {"typ-generic", "long-life"},
    ),
    "an access token of Entra's": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 3600, "azp": "web", "scp": "access_as_user"}),
        "access token",
        {"typ-generic"},
    ),
    "an access token of Cognito's, which has no audience": (
        by_pyjwt({"iss": ISSUER, "sub": "ann", "iat": SECONDS, "exp": SECONDS + 60, "token_use": "access"}),
        "access token",
        {"typ-generic", "aud-missing"},
    ),
    "an ID token of Cognito's": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 300, "token_use": "id", "email": "a@b.example"}), "ID token", set()),
    "who is authorised is not what it is for": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 300, "azp": "web"}), "JWT", {"typ-generic"}),
    "signed with nothing": (
        signed_with_nothing('{"alg":"HS256","typ":"JWT"}', GOOD_ID), "ID token", {"secret-known"}),
    "FastAPI's tutorial": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 300, "nonce": "n"},
                 key="09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"),
        "ID token",
        {"secret-known"},
    ),
    "a signature taken off": (
        by_hand('{"alg":"RS256","typ":"JWT"}', GOOD_ID, b""), "ID token", {"bad-signature"}),
    "a signature cut off in a log": (
        by_hand('{"alg":"RS256","typ":"JWT"}', GOOD_ID, b"\x01" * 106), "ID token", {"bad-signature"}),
    "a signature in DER": (
        by_hand('{"alg":"ES256","typ":"JWT"}', GOOD_ID, b"\x30" * 71), "ID token", {"bad-signature"}),
    "by an RSA key of 1024 bits": (
        by_hand('{"alg":"PS256","typ":"JWT"}', GOOD_ID, b"\x01" * 128), "ID token", {"rsa-short"}),
    "an algorithm whose signatures are not known": (
        by_hand('{"alg":"ML-DSA-44","typ":"JWT"}', GOOD_ID, b"\x01" * 128), "ID token", {"alg-unknown"}),
    "two tokens": (f"{at_jwt()}\n{at_jwt(issued_at=SECONDS - 86_400)}\n", "several tokens", {"ended"}),
    "a token in quotes": (f'"{at_jwt()}"', "access token", set()),
    "a header in quotes": (f"'Authorization: Bearer {at_jwt()}'", "Authorization header", set()),
    "the answer of a token endpoint": (
        json.dumps({"access_token": at_jwt(), "token_type": "Bearer", "expires_in": 900, "refresh_token": REFRESH}),
        "JSON",
        set(),
    ),
    "JSON with nothing in it": ('{"issuer": "https://auth.example", "token_type": "Bearer"}', "unknown", set()),
    "a logout token": (
        by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 120, "jti": "1", "events": LOGOUT, "nonce": "n"}, typ="logout+jwt"),
        "logout token",
        {"claim-unwanted"},
    ),
    "a security event": (
        by_pyjwt({"iss": ISSUER, "aud": "r", "iat": SECONDS, "jti": "1", "events": {}}, typ="secevent+jwt"),
        "security event token",
        set(),
    ),
    "a status list": (
        by_pyjwt({"sub": ISSUER, "iat": SECONDS, "exp": SECONDS + 600, "status_list": {}}, typ="statuslist+jwt"),
        "status list token",
        set(),
    ),
    "a DPoP proof": (dpop(), "DPoP proof", set()),
    "a DPoP proof that gives the key away": (dpop(jwk=KEY.private_jwk()), "DPoP proof", {"private-published"}),
    "a DPoP proof of another key": (dpop(jwk=jwk(Key.generate("ES256"))), "DPoP proof", {"bad-signature"}),
    "a token cut off in a log": (at_jwt()[:300], "damaged JWT", {"not-canonical"}),
    "too large for a cookie": (by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 60, "roles": ["x" * 9] * 400}), "JWT",
                               {"typ-generic", "token-size"}),
    "a JWE": (encrypted({"alg": "dir", "enc": "A256GCM"}), "JWE", set()),
    "a JWE of old": (encrypted({"alg": "RSA1_5", "enc": "A128CBC-HS256", "zip": "DEF"}), "JWE", {"rsa1_5", "zip"}),
    # -- keys
    "our JWKS": (json.dumps(RING.jwks()), "JWKS", set()),
    "a private key in a JWKS": (json.dumps({"keys": [KEY.private_jwk()]}), "JWKS", {"private-published"}),
    "a secret in a JWKS": (json.dumps({"keys": [Key.generate("HS256").private_jwk()]}), "JWKS", {"private-published"}),
    "a JWKS with one kid for two keys, weak and contradicting": (
        json.dumps({"keys": [
            {**WEAK_RSA, "alg": "RS256", "kid": "1"},
            jwk(KEY, kid="1", use="enc"),
            jwk(KEY, kid=None, alg="RS256"),
            jwk(KEY, key_ops=["sign"], alg=None),
        ]}),
        "JWKS",
        {"kid-twice", "rsa-short", "key-contradiction", "kid-missing", "alg-missing", "kid-not-thumbprint"},
    ),
    "a password as a key": (
        json.dumps({"kty": "oct", "alg": "HS256", "k": base64.urlsafe_b64encode(b"hunter2").decode()}),
        "JWK",
        {"private-key", "secret-weak"},
    ),
    "a point that is on no curve": (json.dumps(jwk(KEY, x="A" * 43, kid=None)), "JWK", {"key-damaged"}),
    "a private key in PEM": (PEM, "PEM", {"private-key"}),
    "a short public key in PEM": (SHORT_PEM, "PEM", {"rsa-short"}),
    "a damaged PEM": ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "PEM", {"private-key"}),
    # -- cookies
    "our cookie": (f"Set-Cookie: {Cookie('__Host-session').header(SESSION_COOKIE.value, now=NOW).decode()}",
                   "Set-Cookie", set()),
    "our deletion": (Cookie("__Host-session").deletion(now=NOW).decode(), "Set-Cookie deletion", set()),
    "PHP's default": (
        "Set-Cookie: PHPSESSID=2kq9b0d8v5m3n1x7c6z4l8j2h1; path=/",
        "Set-Cookie",
        {"no-secure", "no-httponly", "no-samesite", "no-prefix"},
    ),
    "cross-site without Secure": ("sid=" + "a1" * 20 + "; Path=/; HttpOnly; SameSite=None", "Set-Cookie",
                                  {"cookie-none-insecure"}),
    "a prefix and a Domain": (
        "__Host-sid=" + "a1" * 20 + "; Path=/; Secure; HttpOnly; SameSite=Lax; Domain=app.example",
        "Set-Cookie",
        {"cookie-prefix"},
    ),
    "a deletion that deletes nothing": (
        "__Host-session=; Max-Age=0; Path=/", "Set-Cookie deletion", {"cookie-prefix", "one-lifetime"}),
    "for ten years, and misspelt": (
        "theme=dark; Max-Age=315360000; Path=/; Secure; Http-Only; SameSite=Relaxed; path=/",
        "Set-Cookie",
        {"over-400-days", "one-lifetime", "attribute-unknown", "samesite-unknown", "no-httponly", "no-prefix",
         "attribute-twice"},
    ),
    "a lifetime that is none, in quotes": (
        'lang="de, at"; Max-Age=1h; Path=/; Secure; HttpOnly; SameSite=Lax; Domain=.shop.example',
        "Set-Cookie",
        {"bad-lifetime", "cookie-grammar", "cookie-shared"},
    ),
    "over 4096 octets": (f"cart={'x' * 4093}; Path=/; Secure; HttpOnly; SameSite=Lax", "Set-Cookie", {"cookie-size"}),
    "a header that is split": ("a=b\r\nSet-Cookie: c=d; Path=/", "Set-Cookie",
                               {"cookie-control"}),
    "what our browser sends": (f"Cookie: {PRODUCTION}; __Host-theme=dark", "Cookie header", set()),
    "two sessions in one Cookie header": (
        f"Cookie: sid={'a1' * 20}; sid={'b2' * 20}; __host-sid={'c3' * 20}",
        "Cookie header",
        {"cookie-twice", "look-alike"},
    ),
    "a crowded Cookie header": ("; ".join(f"n{n}={'v' * 160}" for n in range(60)), "Cookie header",
                                {"header-size", "many-cookies"}),
    "a response as curl shows it": (
        "HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: sessionid=" + "q7" * 20
        + "; Path=/; Secure; HttpOnly; SameSite=Lax\r\nSet-Cookie: sessionid=; Path=/; Max-Age=0\r\n\r\n",
        "headers",
        {"set-cookie-twice", "no-store", "no-prefix", "one-lifetime"},
    ),
    "a response with its body": (
        "HTTP/2 200\nset-cookie: __Host-theme=dark; Path=/; Secure; HttpOnly; SameSite=Lax\n\n<p>a; Path=/</p>\n",
        "headers",
        set(),
    ),
    "two responses that set one cookie, as curl -vL shows them": (
        f"""*   Trying 127.0.0.1:80...
> GET / HTTP/1.1
> Host: app.example
>{" "}
{{ [9 bytes data]
< HTTP/1.1 302 Found
< Set-Cookie: {THEME}
<{" "}
> GET /home HTTP/1.1
> Cookie: theme=dark
>{" "}
< HTTP/1.1 200 OK
< Set-Cookie: {THEME}
<{" "}
hello; path=/""",
        "headers",
        set(),
    ),
    "a request as a browser copies it": (
        ":authority: app.example\ncookie: theme=dark; sid=7", "headers", {"id-number"}),
    "who wrote a comment": ("comment_author_5c01=ann; accessibility=large", "Cookie header", set()),
    "ASP.NET Core": ("Set-Cookie: .AspNetCore.Cookies=CfDJ8" + "a1" * 40 + "; path=/; httponly", "Set-Cookie",
                     {"no-secure", "no-samesite", "no-prefix"}),
    # -- headers and URLs
    "Bearer": (f"Authorization: Bearer {at_jwt()}", "Authorization header", set()),
    "Basic": ("Basic " + base64.b64encode(b"ann:hunter2").decode(), "Authorization header", {"basic-auth"}),
    "an API key as the name": (
        "Authorization: Basic " + base64.b64encode(b"sk_hunter2:").decode(), "Authorization header", {"basic-auth"}),
    "an API key as the name, and a password for form's sake": (
        "Basic " + base64.b64encode(b"ghp_hunter2:x-oauth-basic").decode(), "Authorization header", {"basic-auth"}),
    "a token in a URL": (f"https://app.example/cb#access_token={at_jwt()}&token_type=Bearer", "URL", {"in-url"}),
    "jsessionid": ("https://shop.example/cart;jsessionid=0A1B2C3D4E5F?page=2", "URL", {"in-url"}),
    "a password in a URL": ("postgresql://ann:hunter2@db.example/app", "URL", {"url-password"}),
    "an ordinary URL": ("https://app.example/search?q=tokens&page=2&code=abc", "URL", set()),
    # -- our own values
    "our session cookie's value": (SESSION_COOKIE.value, "coatcheck session cookie", set()),
    "our refresh token": (REFRESH, "coatcheck refresh token", set()),
    "our sealed session": (BOX.value, "coatcheck sealed session", set()),
    "a signed cookie": (SIGNED, "coatcheck signed value", set()),
    "a sealed cookie": (SEALED, "coatcheck sealed value", set()),
    # -- those of others
    "Flask": (of_flask({"_user_id": "7", "_fresh": True}), "itsdangerous session", {"client-session"}),
    "Flask, compressed, in development": (
        of_flask({"email": "a@b.example", "csrf_token": "c" * 300}, "dev"),
        "itsdangerous session",
        {"client-session", "personal-data", "secret-known"},
    ),
    "Starlette": (of_starlette({"cart": [1, 2]}), "itsdangerous session", set()),
    "Django": (of_django({"_auth_user_id": "1", "x": "y" * 100}), "Django session", {"client-session"}),
    "Django with a secret of a tutorial": (of_django({"a": 1}, "secret"), "Django session", {"secret-known"}),
    "Express": ("s%3A" + "Qk" * 16 + "." + "a" * 43, "Express signed value", set()),
    "a random UUID": ("f47ac10b-58cc-4372-a567-0e02b2c3d479", "UUID", {"uuid-random"}),
    "a UUID of the time": ("c232ab00-9414-11ec-b3c8-9f6bdeced846", "UUID", {"uuid-predictable"}),
    "a counter": ("100042", "number", {"id-number"}),
    "a short id": ("x7Gk2p", "opaque value", {"id-short"}),
    "a good random id": ("kV3nQ8sY1tB6mZ0xR4wJ7aL2eC5hF9dG", "opaque value", set()),
    "nothing known": ("dear diary", "unknown", set()),
}  # fmt: skip


def look(text: str, keys: tuple[Key, ...] = ()) -> Report:
    return inspect(text.encode(), now=NOW, keys=keys)


@pytest.mark.parametrize("name", INPUTS)
def test_what_it_is_and_what_is_wrong_with_it(name: str) -> None:
    """Done when 4 of issue 6: the truth about at least 30 inputs, good and bad."""
    text, kind, ids = INPUTS[name]
    report = look(text)
    assert (report.kind, {found.id for found in report.all_findings()}) == (kind, ids)


def test_what_a_shell_writes_in_utf_16_is_read() -> None:
    for encoding, mark in (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")):
        assert inspect(mark + f"{at_jwt()}\r\n".encode(encoding), now=NOW).kind == "access token"
    assert inspect(b"\xff\xfea", now=NOW).kind == "unknown"


def test_claims_are_shown_whole() -> None:
    """An issuer is compared to the letter, and an id is looked for: half of one is of no use."""
    facts = look(at_jwt(issuer=f"{ISSUER}/realms/a-long-name-of-a-realm", subject="0" * 36)).facts
    assert (facts["iss"], facts["sub"]) == (f"{ISSUER}/realms/a-long-name-of-a-realm", "0" * 36)


def test_there_are_thirty_of_them_good_and_bad() -> None:
    assert len(INPUTS) >= 30
    assert sum(not ids for _, _, ids in INPUTS.values()) >= 10


# -- whose signature it is

OTHER = Key.generate("ES256")
HS = Key.from_secret(SECRET, kid="h")


@pytest.mark.parametrize(
    ("text", "keys", "said", "ids"),
    [
        (at_jwt(), (KEY.public(),), f"checked: made with the key {KEY.kid} (ES256)", set()),
        (at_jwt(), (OTHER.public(),), "not checked: none of the keys given has its kid", {"kid-unknown"}),
        (at_jwt()[:-4] + "AAAA", (KEY.public(),), "not made with the keys given", {"bad-signature"}),
        (
            by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 60, "client_id": "w", "jti": "1"}, typ="at+jwt", kid=KEY.kid),
            (KEY.public(),),
            "not made with the key that it names",
            {"alg-not-the-keys"},
        ),
        (
            by_pyjwt({**GOOD_CLAIMS, "exp": SECONDS + 60, "client_id": "w", "jti": "1"}, typ="at+jwt"),
            (KEY.public(), HS),
            "checked: made with the key h (HS256)",
            set(),
        ),
    ],
)
def test_j2_j11_a_signature_is_checked_with_the_keys_given(
    text: str, keys: tuple[Key, ...], said: str, ids: set[str]
) -> None:
    report = look(text, keys)
    assert (report.facts["signature"], {found.id for found in report.findings}) == (said, ids)


def test_j2_a_signature_counts_for_the_algorithm_of_its_key_only() -> None:
    """The key signs a header that names another algorithm: it fits, and is refused all the same."""
    payload = json.dumps({**GOOD_CLAIMS, "exp": SECONDS + 60, "client_id": "w", "jti": "1"})
    unsigned = by_hand(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": KEY.kid}), payload, b"").rstrip(".")
    token = f"{unsigned}.{base64.urlsafe_b64encode(KEY.sign(unsigned.encode())).rstrip(b'=').decode()}"
    assert {found.id for found in look(token, (KEY.public(),)).findings} == {"alg-not-the-keys", "bad-signature"}


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("x7Gk2pQ9", "high"),
        ("x7Gk2pQ9w4Zt1", "medium"),
        ("x7Gk2pQ9w4Zt1Lm8Vb3nRs", None),
        ("0" * 31 + "a", None),
        ("c232ab00-9414-41ec-b3c8-9f6bdeced846", "low"),
        ("01890a5d-ac96-774b-bcce-b302099a8057", "medium"),
        ("00000000-0000-0000-0000-000000000000", "high"),
    ],
)
def test_s1_the_fewer_bits_can_be_random_the_worse(text: str, severity: str | None) -> None:
    """ASVS 7.2.3 asks for 128, NIST for 64 at least."""
    assert look(text).worst() == severity


# -- words


def test_times_and_claims_are_said_in_words() -> None:
    facts = look(at_jwt(scope="notes", amr=["pwd", "otp"])).facts
    assert facts["exp"] == "2027-01-15 08:15:00 UTC, in 15 minutes"
    assert facts["iat"] == "2027-01-15 08:00:00 UTC, now"
    assert (facts["lifetime"], facts["sid"], facts["amr"], facts["scope"]) == ("15 minutes", SID, "pwd, otp", "notes")


def test_every_finding_says_what_to_do_and_names_rows_that_exist() -> None:
    from requirements import ROWS  # tools/: what docs/requirements.md is made from

    for id, rule in RULES.items():
        assert rule.why and rule.fix, id
        assert rule.row in ("", *ROWS), id
        assert rule.row or rule.asvs, id


def test_every_rule_is_found_in_some_input() -> None:
    """A rule that nothing can break is no rule."""
    found = {id for _, _, ids in INPUTS.values() for id in ids} | {"kid-unknown", "alg-not-the-keys"}
    others: dict[str, Callable[[], Report]] = {
        "cookie-empty": lambda: look("Set-Cookie: =; Path=/"),
        "cookie-domain": lambda: look("a=b; Domain=\u00fc.example"),
        "cookie-partitioned-insecure": lambda: look("a=b; Partitioned"),
        "prefix-case": lambda: look("__HOST-a=b; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "attribute-size": lambda: look(f"a=b; Path=/{'x' * 1024}"),
        "path-ignored": lambda: look("a=b; Path=shop"),
        "nameless": lambda: look("Set-Cookie: token; Path=/"),
        "deletion-path": lambda: look("a=; Max-Age=0"),
        "alg-unknown": lambda: look(by_hand('{"alg":"XX1","typ":"at+jwt"}', "{}")),
        "key-missing": lambda: look(by_hand('{"alg":"ES256","typ":"dpop+jwt"}', "{}")),
        "p2c": lambda: look(by_hand('{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647}', "a") + ".a.a"),
        "set-empty": lambda: look('{"keys":[]}'),
        "rsa-flawed": lambda: look(json.dumps({**LONG_RSA, "e": "Ag"})),
    }
    for id, report in others.items():
        assert id in {each.id for each in report().all_findings()}, id
    assert found | set(others) == set(RULES)


# -- no secrets

SECRETS = ("hunter2", REFRESH, SESSION_COOKIE.value.partition(".")[2], KEY.private_jwk()["d"], "a1a1a1a1", "2kq9b0d8")


@pytest.mark.parametrize("name", INPUTS)
def test_s17_no_report_repeats_a_secret_or_a_signature(name: str) -> None:
    text, _, _ = INPUTS[name]
    said = repr(look(text))
    assert [secret for secret in SECRETS if secret in said] == []
    signatures = [word.rpartition(".")[2] for word in text.replace("=", " ").split() if word.count(".") == 2]
    assert [each for each in signatures if len(each) > 20 and each in said] == []


def test_a_report_can_do_nothing_to_a_terminal() -> None:
    key = json.dumps({"kty": "oct", "use": "\x1b[2J", "key_ops": ["a"]})
    for text in ("a\x1b[2J=b; Path=/", by_hand('{"alg":"\\u001b[2J","typ":"a"}', "{}"), "x=\u202e; Path=/", key):
        assert all(letter.isprintable() for letter in _words(look(text)))


def _words(report: Report) -> str:
    words = [report.kind, report.summary, *report.facts, *report.facts.values()]
    words += [found.seen for found in report.findings]
    return "".join(words) + "".join(part.name + _words(part.report) for part in report.parts)


def test_a_cookie_that_is_no_credential_is_judged_less_severely() -> None:
    severe = {each.id: each.severity for each in look("sid=x7; Path=/").findings}
    lenient = {each.id: each.severity for each in look("theme=x7; Path=/").findings}
    assert (severe["no-secure"], lenient["no-secure"]) == ("high", "medium")
    assert {each.id: each.severity for each in look(".AspNetCore.Cookies=x; Path=/").findings}["no-secure"] == "high"
    assert {each.id for each in look("__Host-csrf=x; Secure; Path=/; SameSite=Lax").findings} == set()


def test_a_value_that_signs_nobody_in_is_no_riddle() -> None:
    """Whatever letters it has; the list of all that it could be helps nobody."""
    [part] = look('Cookie: note="b c"').parts
    assert part.report.kind == "plain value"


def test_what_a_line_does_not_say_is_said() -> None:
    assert "none is said" in look("sid=x; Path=/").facts["SameSite"]
    assert look("sid=x; Path=/; SameSite=Lax").facts["SameSite"] == "Lax"


def test_c6_a_deletion_is_judged_as_one() -> None:
    kept = replace(Cookie("sid"), domain="app.example")
    assert look(kept.deletion(now=NOW).decode()).kind == "Set-Cookie deletion"
    assert look("sid=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/").kind == "Set-Cookie deletion"
    assert look("sid=x; Max-Age=1; Path=/").kind == "Set-Cookie"


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "inspect.md"


def test_the_page_lists_every_rule_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for id, rule in RULES.items():
        breaks = ", ".join(filter(None, (rule.row, rule.asvs and f"ASVS {rule.asvs}")))
        assert f"| `{id}` | {rule.severity} | {breaks} | {rule.fix} |" in text, id
