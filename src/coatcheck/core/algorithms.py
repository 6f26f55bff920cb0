"""The four algorithms (J1, J18): what a key must be, how it is written as a JWK, how it signs and verifies.

A key has exactly one algorithm, and the algorithm comes from the key, never from a token (J2). There is no
`none`, nothing with SHA-1, no RSAES-PKCS1-v1_5, and no way to add any of them. The table stands at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coatcheck.core import base64url
from coatcheck.errors import BadSignature, ConfigurationError, Malformed

PrivateMaterial: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicMaterial: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Material: TypeAlias = bytes | PrivateMaterial | PublicMaterial
Sign: TypeAlias = Callable[[bytes], bytes]
Verify: TypeAlias = Callable[[bytes, bytes], None]

_SHA256: Final = hashes.SHA256()
_ECDSA: Final = ec.ECDSA(_SHA256)
_PKCS1: Final = padding.PKCS1v15()
# The order of P-256 (SEC 2, section 2.4.2).
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

MIN_SECRET = 32  # bytes: RFC 7518, section 3.2 asks for a key at least as long as the hash
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
MAX_RSA_BITS = 8192  # a larger one makes every verification slow: a gift to attackers
_MIN_DISTINCT_BYTES = 10  # 64 hexadecimal digits drawn at random have fewer once in 10^12
_MIN_TEXT_SECRET = 43  # characters: 32 random bytes in base64
_DOCUMENTS = (b"-----BEGIN", b"---- BEGIN", b"ssh-", b"ecdsa-sha2-", b"sk-ssh-", b"sk-ecdsa-", b"{", b"PuTTY-")
# The object identifiers of RSA, EC and Ed25519 keys: a key or certificate in DER has one of them.
_KEY_OIDS = (bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06032b6570"))
_SMALL_PRIMES = tuple(n for n in range(3, 702) if all(n % d for d in range(2, int(n**0.5) + 1)))
# The y coordinates of the eight points of small order on edwards25519: under such a public key one signature
# fits many messages.
_FIELD_25519 = 2**255 - 19
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _FIELD_25519 - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One line of the table: the types and the JWK members of its keys, and what is done with them.

    `load` reads the material from JWK members (with the private ones if `d` is there), `dump` writes it,
    `check` refuses weak material, the public half where there is one.
    """

    name: str
    kty: str
    curve: str | None
    public: tuple[str, ...]
    private: tuple[str, ...]
    types: tuple[type, type]
    generate: Callable[[], Material]
    load: Callable[[Mapping[str, object]], Material]
    dump: Callable[[Any], dict[str, str]]
    check: Callable[[Any], None]
    signer: Callable[[Any], Sign]
    verifier: Callable[[Any], Verify]


def named(name: object) -> Algorithm:
    """Return the algorithm called `name`, in its own or in its older name.

    Raises:
        ConfigurationError: it is not one of ours; `none` is not either (J3).
    """
    if not isinstance(name, str) or name not in _NAMES:
        raise ConfigurationError(f"algorithm is not one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[_NAMES[name]]


def check_secret(secret: object) -> None:
    """Refuse what is no random key of 32 bytes or more: short, text of another kind of key, a password (J4).

    Random bytes may also come as text: hexadecimal or base64 of them. Not checked, for nobody can see
    it: that they are random.

    Raises:
        ConfigurationError: with the reason, and never with the secret.
    """
    if not isinstance(secret, bytes):
        raise ConfigurationError("a secret is bytes, not text: a password is not a key")
    if len(secret) < MIN_SECRET:
        raise ConfigurationError(f"a secret has at least {MIN_SECRET} random bytes")
    # Taking a public key's text for an HMAC secret is how algorithm confusion begins (CVE-2016-5431).
    is_text = _is_text(secret)  # one random secret in 256 begins like JSON, so that alone says nothing
    if (is_text and secret.lstrip().startswith(_DOCUMENTS)) or b"-----BEGIN" in secret or _is_der(secret):
        raise ConfigurationError("this is a key or certificate of another kind, not a secret")
    if len(set(secret)) < _MIN_DISTINCT_BYTES or len(secret) > (secret + secret).find(secret, 1):
        raise ConfigurationError("the bytes of this secret repeat: it is not random")
    if is_text and (len(secret) < _MIN_TEXT_SECRET or len(secret.split()) > 1):
        raise ConfigurationError("this looks like a password: use 32 random bytes")


def _is_der(data: bytes) -> bool:
    return data.startswith(b"0") and any(oid in data for oid in _KEY_OIDS)


def _is_text(data: bytes) -> bool:
    try:
        return "".join(data.decode("utf-8").split()).isprintable()
    except UnicodeDecodeError:
        return False


def _octets(members: Mapping[str, object], name: str, length: int | None = None) -> bytes:
    value = members.get(name)
    try:
        data = base64url.decode(value) if isinstance(value, str) else None
    except Malformed:
        data = None
    if data is None or (length is not None and len(data) != length):
        raise ConfigurationError(f"JWK member {name!r} is missing, or not base64url of the right length")
    return data


def _number(members: Mapping[str, object], name: str) -> int:
    data = _octets(members, name)
    if not data or data[0] == 0:  # one spelling per number, or thumbprints differ (RFC 7518, section 2)
        raise ConfigurationError(f"JWK member {name!r} is not a number in its shortest form")
    return int.from_bytes(data, "big")


def _spell(number: int) -> str:
    return base64url.encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))


# -- HS256: RFC 7518, sections 3.2 and 6.4


def _generate_secret() -> bytes:
    # 32 bytes from the operating system's generator; core itself imports no source of randomness.
    return AESGCM.generate_key(256)


def _load_secret(members: Mapping[str, object]) -> bytes:
    return _octets(members, "k")


def _dump_secret(secret: bytes) -> dict[str, str]:
    return {"k": base64url.encode(secret)}


def _hs256_signer(secret: bytes) -> Sign:
    # Keyed once and copied for every token: half the cost of keying again each time.
    keyed = hmac.HMAC(secret, _SHA256)

    def sign(data: bytes) -> bytes:
        mac = keyed.copy()
        mac.update(data)
        return mac.finalize()

    return sign


def _hs256_verifier(secret: bytes) -> Verify:
    keyed = hmac.HMAC(secret, _SHA256)

    def verify(signature: bytes, data: bytes) -> None:
        mac = keyed.copy()
        mac.update(data)
        try:
            mac.verify(signature)  # in constant time (J17)
        except InvalidSignature:
            raise BadSignature("the signature does not fit") from None

    return verify


# -- RS256: RFC 7518, sections 3.3 and 6.3


def _generate_rsa() -> rsa.RSAPrivateKey:
    # A signature has to hold for as long as its key is used, not for decades: the size that verifies fastest will do.
    return rsa.generate_private_key(public_exponent=65537, key_size=MIN_RSA_BITS)


def _load_rsa(members: Mapping[str, object]) -> rsa.RSAPrivateKey | rsa.RSAPublicKey:
    public = rsa.RSAPublicNumbers(_number(members, "e"), _number(members, "n"))
    _check_rsa_numbers(public)  # before OpenSSL is asked to work on numbers of any size
    if "d" not in members:
        return public.public_key()
    d, p, q, dp, dq, qi = (_number(members, name) for name in _RSA_PRIVATE)
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()


def _dump_rsa(key: rsa.RSAPrivateKey | rsa.RSAPublicKey) -> dict[str, str]:
    if isinstance(key, rsa.RSAPublicKey):
        public = key.public_numbers()
        return {"n": _spell(public.n), "e": _spell(public.e)}
    secret = key.private_numbers()
    values = (secret.d, secret.p, secret.q, secret.dmp1, secret.dmq1, secret.iqmp)
    return _dump_rsa(key.public_key()) | dict(zip(_RSA_PRIVATE, map(_spell, values), strict=True))


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    _check_rsa_numbers(key.public_numbers())


def _check_rsa_numbers(numbers: rsa.RSAPublicNumbers) -> None:
    bits = numbers.n.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise ConfigurationError(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, not {bits}")
    if numbers.n % 2 == 0 or numbers.e % 2 == 0 or not 3 <= numbers.e < 2**64:
        raise ConfigurationError("the modulus and exponent of an RSA key are odd, and the exponent is mostly 65537")
    if _is_roca(numbers.n):
        raise ConfigurationError("this RSA key was made by a generator with the ROCA flaw (CVE-2017-15361)")


def _is_roca(modulus: int) -> bool:
    """Say whether `modulus` is a power of 65537 modulo each prime up to 701 (Nemec et al., 2017, section 3.1).

    The flawed generator makes primes k*M + (65537^a mod M), where M is a product of small primes, up to 701
    for keys of 2048 bits and further for longer ones. A sound key passes for one by chance less often than
    once in 10^40.
    """
    return all(modulus % prime in _powers_of_65537(prime) for prime in _SMALL_PRIMES)


def _powers_of_65537(prime: int) -> set[int]:
    powers, power = set[int](), 1
    while power not in powers:
        powers.add(power)
        power = power * 65537 % prime
    return powers


def _rs256_signer(key: rsa.RSAPrivateKey) -> Sign:
    return lambda data: key.sign(data, _PKCS1, _SHA256)


def _rs256_verifier(key: rsa.RSAPublicKey) -> Verify:
    def verify(signature: bytes, data: bytes) -> None:
        try:
            key.verify(signature, data, _PKCS1, _SHA256)
        except InvalidSignature:
            raise BadSignature("the signature does not fit") from None

    return verify


# -- ES256: RFC 7518, sections 3.4 and 6.2


def _generate_p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _load_p256(members: Mapping[str, object]) -> ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(_octets(members, name, 32), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())
    if "d" not in members:
        return public.public_key()  # refuses a point off the curve
    secret = ec.derive_private_key(int.from_bytes(_octets(members, "d", 32), "big"), ec.SECP256R1())
    if secret.public_key().public_numbers() != public:
        raise ConfigurationError("the private and the public half of this key do not belong together")
    return secret


def _dump_p256(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> dict[str, str]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        return {"x": _spell_p256(point.x), "y": _spell_p256(point.y)}
    return _dump_p256(key.public_key()) | {"d": _spell_p256(key.private_numbers().private_value)}


def _spell_p256(number: int) -> str:
    return base64url.encode(number.to_bytes(32, "big"))


def _check_p256(key: ec.EllipticCurvePublicKey) -> None:
    if not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError("an ES256 key is on the curve P-256")


def _es256_signer(key: ec.EllipticCurvePrivateKey) -> Sign:
    def sign(data: bytes) -> bytes:
        # OpenSSL's nonces are hedged: drawn from its generator mixed with the private key and the message (J6).
        r, s = decode_dss_signature(key.sign(data, _ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def _es256_verifier(key: ec.EllipticCurvePublicKey) -> Verify:
    def verify(signature: bytes, data: bytes) -> None:
        # r and s as they are, 32 bytes each (RFC 7518, section 3.4); zero is CVE-2022-21449.
        r, s = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        if len(signature) != 64 or not (0 < r < _P256_ORDER and 0 < s < _P256_ORDER):
            raise BadSignature("not a signature of ES256")
        try:
            key.verify(encode_dss_signature(r, s), data, _ECDSA)
        except InvalidSignature:
            raise BadSignature("the signature does not fit") from None

    return verify


# -- Ed25519: RFC 8037, RFC 9864


def _load_ed25519(members: Mapping[str, object]) -> ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey:
    public = _octets(members, "x", 32)
    if "d" not in members:
        return ed25519.Ed25519PublicKey.from_public_bytes(public)
    secret = ed25519.Ed25519PrivateKey.from_private_bytes(_octets(members, "d", 32))
    if secret.public_key().public_bytes_raw() != public:
        raise ConfigurationError("the private and the public half of this key do not belong together")
    return secret


def _dump_ed25519(key: ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey) -> dict[str, str]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"x": base64url.encode(key.public_bytes_raw())}
    return _dump_ed25519(key.public_key()) | {"d": base64url.encode(key.private_bytes_raw())}


def _check_ed25519(key: ed25519.Ed25519PublicKey) -> None:
    y = int.from_bytes(key.public_bytes_raw(), "little") & ((1 << 255) - 1)
    if y >= _FIELD_25519 or y in _SMALL_ORDER_Y:
        raise ConfigurationError("this Ed25519 key is a point of small order, or not in canonical form")


def _ed25519_signer(key: ed25519.Ed25519PrivateKey) -> Sign:
    return key.sign


def _ed25519_verifier(key: ed25519.Ed25519PublicKey) -> Verify:
    def verify(signature: bytes, data: bytes) -> None:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            raise BadSignature("the signature does not fit") from None

    return verify


_RSA_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi")
_RSA: Final = (rsa.RSAPrivateKey, rsa.RSAPublicKey)
_EC: Final = (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)
_ED: Final = (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)

# fmt: off
ALGORITHMS: Final[dict[str, Algorithm]] = {
    algorithm.name: algorithm
    for algorithm in (
        #         name       kty    curve      public      private        types
        Algorithm("HS256",   "oct", None,      (),         ("k",),        (bytes, bytes),
                  _generate_secret, _load_secret, _dump_secret, check_secret, _hs256_signer, _hs256_verifier),
        Algorithm("RS256",   "RSA", None,      ("e", "n"), _RSA_PRIVATE,  _RSA,
                  _generate_rsa, _load_rsa, _dump_rsa, _check_rsa, _rs256_signer, _rs256_verifier),
        Algorithm("ES256",   "EC",  "P-256",   ("x", "y"), ("d",),        _EC,
                  _generate_p256, _load_p256, _dump_p256, _check_p256, _es256_signer, _es256_verifier),
        Algorithm("Ed25519", "OKP", "Ed25519", ("x",),     ("d",),        _ED,
                  ed25519.Ed25519PrivateKey.generate, _load_ed25519, _dump_ed25519, _check_ed25519,
                  _ed25519_signer, _ed25519_verifier),
    )
}
# fmt: on

# RFC 9864 deprecates the name EdDSA, which does not say the curve; it is still what most servers write.
_NAMES: Final[dict[str, str]] = {**{name: name for name in ALGORITHMS}, "EdDSA": "Ed25519"}
