"""Key, and Keyring with its named roles: `signing`, `upcoming`, `retired` (RFC 7517, 7638).

role       signs   verifies   published   what it is
signing    yes     yes        yes         the one key that signs now
upcoming   no      yes        yes         the next one, published before it signs, so that every verifier knows it
retired    no      yes        yes         the ones before, kept until what they signed has expired

"Published" is for asymmetric keys only. Whatever is weak or contradicts itself is refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coatcheck.core import base64url
from coatcheck.core import jwk as jwk_text
from coatcheck.core.algorithms import Algorithm, Material, Sign, Verify, check_secret, named
from coatcheck.core.jwk import Kind, NotOurs, checked_kid, thumbprint
from coatcheck.errors import ConfigurationError

MAX_KEYS = 100  # in one JWKS
MAX_PEM = 32_768  # bytes

_PRIVATE = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)


class Key:
    """One key, with its one algorithm (J2). It cannot be changed, and is equal only to itself.

    Args:
        algorithm: "HS256", "RS256", "ES256" or "Ed25519". "EdDSA" is the older name of the last (RFC 9864): the same
            key, whose tokens are understood by verifiers that do not know the newer name yet.
        material: a secret of 32 random bytes or more, or a key object of `cryptography`.
        kid: the key id, up to 128 visible ASCII characters; the RFC 7638 thumbprint when left out.

    Attributes: `alg`, `kid`, and `kind`: "symmetric", "private" or "public".

    Raises:
        ConfigurationError: the key is weak, of another type than the algorithm needs, or the kid is no good.
    """

    __slots__ = ("_material", "_segments", "_sign", "_spec", "_verify", "alg", "kid", "kind")

    alg: str
    kid: str
    kind: Kind

    def __init__(self, algorithm: str, material: Material, *, kid: str | None = None) -> None:
        spec = named(algorithm)
        if not isinstance(material, spec.types):
            raise ConfigurationError(f"this is not a key for {spec.name}")
        kind: Kind = "private" if isinstance(material, _PRIVATE) else "public"
        public: Any = material.public_key() if isinstance(material, _PRIVATE) else material
        if isinstance(material, bytes):
            kind = "symmetric"
        spec.check(public)
        put = object.__setattr__
        put(self, "alg", algorithm)
        put(self, "kind", kind)
        put(self, "kid", thumbprint(spec, public) if kid is None else checked_kid(kid))
        put(self, "_spec", spec)
        put(self, "_material", material)
        put(self, "_sign", None if kind == "public" else spec.signer(material))
        put(self, "_verify", spec.verifier(public))
        put(self, "_segments", {})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Key cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Key cannot be changed")

    def __repr__(self) -> str:
        return f"<Key {self.alg} {self.kind} kid={self.kid!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key cannot be pickled or copied: export it with private_jwk()")

    @classmethod
    def generate(cls, alg: str = "Ed25519", *, kid: str | None = None) -> Key:
        """Return a new key: 32 random bytes, RSA of 2048 bits, a point of P-256, or Ed25519."""
        return cls(alg, named(alg).generate(), kid=kid)

    @classmethod
    def from_secret(cls, secret: bytes, *, kid: str | None = None) -> Key:
        """Return the HS256 key with this secret of 32 random bytes or more.

        Raises:
            ConfigurationError: it is short, text of another kind of key, or looks like a password (J4).
        """
        check_secret(secret)  # first: it says what is wrong with text
        return cls("HS256", secret, kid=kid)

    @classmethod
    def from_pem(cls, pem: bytes, *, alg: str, kid: str | None = None) -> Key:
        """Return the private key (PKCS#8 or traditional, without a password) or public key in a PEM file.

        A certificate is refused: nobody here would check its chain or its dates.

        Raises:
            ConfigurationError: it cannot be read, is weak, or is not a key for `alg`.
        """
        if len(pem) > MAX_PEM:
            raise ConfigurationError(f"a PEM file has at most {MAX_PEM} bytes")
        named(alg)
        try:
            if b"PRIVATE KEY-----" in pem:
                return cls(alg, cast("Material", serialization.load_pem_private_key(pem, None)), kid=kid)
            if b"PUBLIC KEY-----" in pem:
                return cls(alg, cast("Material", serialization.load_pem_public_key(pem)), kid=kid)
        except ConfigurationError:
            raise
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
            raise ConfigurationError("the PEM file is damaged, locked with a password, or not supported") from None
        raise ConfigurationError("the PEM file holds neither a private nor a public key")

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object] | bytes, *, alg: str | None = None) -> Key:
        """Return the key in a JWK (RFC 7517); its own `kid` is kept.

        The members `kty`, `crv`, `alg`, `use` and `key_ops` must agree with each other (J2), and with `alg`,
        the algorithm that the caller expects. Not looked at: `x5c`, `x5t`, `x5u`.

        Raises:
            ConfigurationError: the JWK is damaged, contradicts itself, is weak, or is not for signatures.
        """
        members = jwk_text.read(jwk)
        spec = jwk_text.judge(members)
        if alg is not None and named(alg) is not spec:
            raise ConfigurationError(f"this JWK is a key for {spec.name}, not for {alg}")
        try:
            material = spec.load(members)
        except ConfigurationError:
            raise
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
            raise ConfigurationError(f"the numbers in this JWK are not a key for {spec.name}") from None
        name = str(members.get("alg", spec.name))
        return cls(name, material, kid=checked_kid(members["kid"]) if "kid" in members else None)

    def public(self) -> Key:
        """Return the public half, under the same kid.

        Raises:
            ConfigurationError: a symmetric key has none.
        """
        if isinstance(self._material, bytes):
            raise ConfigurationError("a symmetric key has no public half")
        return Key(self.alg, self._spec.load(self.jwk()), kid=self.kid) if self.kind == "private" else self

    def jwk(self) -> dict[str, str]:
        """Return the JWK with public members only.

        Raises:
            ConfigurationError: the key is symmetric, so there is nothing public about it.
        """
        if self.kind == "symmetric":
            raise ConfigurationError("a symmetric key is not published")
        return self._written(self._spec.public)

    def private_jwk(self) -> dict[str, str]:
        """Return the JWK with everything in it: to be kept like a password.

        Raises:
            ConfigurationError: only the public half is known.
        """
        if self.kind == "public":
            raise ConfigurationError("only the public half of this key is known")
        return self._written(self._spec.public + self._spec.private)

    def sign(self, data: bytes) -> bytes:
        """Return the raw signature of `data` (RFC 7518, section 3: for ES256, r and s of 32 bytes each).

        Raises:
            ConfigurationError: only the public half is known.
        """
        if self._sign is None:
            raise ConfigurationError("a public key cannot sign")
        return self._sign(data)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return if `signature` is this key's for `data`, in constant time for HS256.

        Not checked: what the data say, and to whom.

        Raises:
            BadSignature: it is not.
        """
        self._verify(signature, data)

    def answers_to(self, alg: object) -> bool:
        """Say whether a token's `alg` names this key's algorithm, by its newer or its older name."""
        try:
            return named(alg) is self._spec
        except ConfigurationError:
            return False

    def header_segment(self, typ: str) -> str:
        """Return the encoded JWS header of this key's tokens of one `typ`; written once, then remembered."""
        if (segment := self._segments.get(typ)) is None:
            header = msgspec.json.encode({"alg": self.alg, "kid": self.kid, "typ": typ})
            segment = self._segments[typ] = base64url.encode(header)
        return segment

    def _written(self, names: Sequence[str]) -> dict[str, str]:
        members = self._spec.dump(self._material)
        curve = {"crv": self._spec.curve} if self._spec.curve else {}
        head = {"kty": self._spec.kty, "kid": self.kid, "alg": self.alg, "use": "sig"}
        return head | curve | {name: members[name] for name in names}

    # Slots, set once by __init__ through object.__setattr__.
    _material: Material
    _segments: dict[str, str]
    _sign: Sign | None
    _spec: Algorithm
    _verify: Verify


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Roles:
    """What a Keyring holds at one moment, never changed; `derived` and `headers` remember what follows.

    `headers` is for `jws.verify`: header segments that came with a genuine signature, and what they mean.
    They live and die with the roles, so a key that was dropped is not remembered by anyone.
    """

    signing: Key | None
    upcoming: Key | None
    retired: tuple[Key, ...]
    by_kid: Mapping[str, Key]
    secrets: tuple[bytes, ...]
    derived: dict[str, tuple[bytes, ...]] = field(default_factory=dict[str, tuple[bytes, ...]])
    headers: dict[str, tuple[Key, str | None]] = field(default_factory=dict[str, tuple[Key, str | None]])


class Keyring:
    """The keys of one issuer by role, and the secret that other keys are derived from.

    Args:
        signing: the key that signs; None for a ring that can only verify.
        upcoming: the next signing key, published already.
        retired: the keys before, newest first; each until the last token it signed has expired.
        secret: 32 random bytes or more for refresh tokens, sealed values and the like; None for none of them.
        retired_secrets: the secrets before, each until what was made with it has expired.

    Raises:
        ConfigurationError: two keys have one kid, symmetric keys are mixed with others (J5), the signing key
            cannot sign, a secret is weak, or there is nothing in the ring.
    """

    __slots__ = ("roles",)

    roles: Roles

    def __init__(
        self,
        signing: Key | None,
        *,
        upcoming: Key | None = None,
        retired: Sequence[Key] = (),
        secret: bytes | None,
        retired_secrets: Sequence[bytes] = (),
    ) -> None:
        keys = [key for key in (signing, upcoming, *retired) if key is not None]
        secrets = () if secret is None else (secret, *retired_secrets)
        for each in secrets:
            check_secret(each)
        if signing is not None and signing.kind == "public":
            raise ConfigurationError("a public key cannot sign: the signing key is a private or a symmetric one")
        if len({key.kid for key in keys}) != len(keys):
            raise ConfigurationError("two keys of the ring have the same kid")
        if len({key.kind == "symmetric" for key in keys}) > 1:
            raise ConfigurationError("symmetric and asymmetric keys do not mix in one ring")
        if not (keys or secrets) or (retired_secrets and not secrets) or len(set(secrets)) != len(secrets):
            raise ConfigurationError("a ring has a key or a secret, and no secret twice or only retired ones")
        self.roles = Roles(signing, upcoming, tuple(retired), {key.kid: key for key in keys}, secrets)

    def __repr__(self) -> str:
        retired = [key.kid for key in self.retired]
        return f"<Keyring signing={self.signing!r} upcoming={self.upcoming!r} retired={retired}>"

    @classmethod
    def generate(cls, alg: str = "Ed25519") -> Keyring:
        """Return a ring with a new signing key and a new secret."""
        return cls(Key.generate(alg), secret=AESGCM.generate_key(256))

    @classmethod
    def from_jwks(cls, document: Mapping[str, object] | bytes) -> Keyring:
        """Return a ring that only verifies, with the public keys of a JWKS (RFC 7517, section 5).

        Skipped, as section 5 asks: keys for encryption, and keys of types or algorithms that are not ours.
        A key that is ours and no good makes the whole set refused: somebody has to look at it. No key of
        such a ring signs, so all stand under `retired`.

        Raises:
            ConfigurationError: the document is damaged, names a kid twice, holds no key of ours, a weak one,
                more than 100, or anything secret: a private or symmetric key in a published set is a leak.
        """
        try:
            entries = msgspec.convert(jwk_text.read(document).get("keys"), list[dict[str, object]])
        except msgspec.ValidationError:
            raise ConfigurationError("a JWKS has a list of JWKs under keys") from None
        if len(entries) > MAX_KEYS:
            raise ConfigurationError(f"a JWKS has at most {MAX_KEYS} keys")
        keys: list[Key] = []
        for members in entries:
            jwk_text.refuse_secrets(members)
            try:
                keys.append(Key.from_jwk(members))
            except NotOurs:
                continue
        return cls(None, retired=keys, secret=None)

    @property
    def signing(self) -> Key | None:
        """The key that signs, if this ring can sign."""
        return self.roles.signing

    @property
    def upcoming(self) -> Key | None:
        """The key that will sign next."""
        return self.roles.upcoming

    @property
    def retired(self) -> tuple[Key, ...]:
        """The keys that only verify."""
        return self.roles.retired

    @property
    def verification_keys(self) -> tuple[Key, ...]:
        """Every key of the ring, whatever its role."""
        return tuple(self.roles.by_kid.values())

    def signing_key(self) -> Key:
        """Return the key that signs.

        Raises:
            ConfigurationError: this ring can only verify.
        """
        if (key := self.roles.signing) is None:
            raise ConfigurationError("this ring can only verify")
        return key

    def find(self, kid: str) -> Key | None:
        """Return the key with this kid, or None; nothing outside the ring is ever asked (J11)."""
        return self.roles.by_kid.get(kid)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the JWKS to publish (J19): public members only, every role; empty for a symmetric ring."""
        return {"keys": [key.jwk() for key in self.verification_keys if key.kind != "symmetric"]}

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """Return 32-byte keys for one purpose, the current one first, then those of the retired secrets.

        HKDF-SHA256 (RFC 5869) with the purpose as info: keys of two purposes are unrelated.

        Raises:
            ConfigurationError: the ring was made without a secret.
        """
        roles = self.roles
        if not roles.secrets:
            raise ConfigurationError("this ring was made without a secret")
        if (keys := roles.derived.get(purpose)) is None:
            keys = roles.derived[purpose] = tuple(_derived(secret, purpose) for secret in roles.secrets)
        return keys

    def adopt(self, other: Keyring) -> None:
        """Take over the roles and secrets of another ring; a reader sees all of the old one or of the new.

        This is how a running process learns of a rotation.
        """
        self.roles = other.roles


def _derived(secret: bytes, purpose: str) -> bytes:
    info = b"coatcheck " + purpose.encode("utf-8")
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)
