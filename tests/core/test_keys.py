"""Keys are judged when they are loaded, a ring names the role of each, and what is published is public."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck.core import algorithms, base64url, jws
from coatcheck.core.keys import MAX_KEYS, Key, Keyring
from coatcheck.errors import BadSignature, CoatcheckError, ConfigurationError

# A slow machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ALGS = ("HS256", "RS256", "ES256", "Ed25519")
KEYS = {alg: Key.generate(alg) for alg in ALGS}
PRIVATE = {alg: key.private_jwk() for alg, key in KEYS.items()}
PUBLIC = {alg: KEYS[alg].jwk() for alg in ALGS[1:]}
SECRET = bytes.fromhex("6f8d1c5b9ae24703fd11c08e5a77b3962e04d9f8136ac5be80f2497d3bc6e15a")
OTHER_SECRET = SECRET[::-1]

Members = dict[str, Any]


def number(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def pem_of(key: Any) -> bytes:
    """The PEM file of a key object of `cryptography`."""
    if hasattr(key, "private_bytes"):
        return bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize("alg", ALGS)
def test_a_key_survives_its_own_jwk(alg: str) -> None:
    """What `private_jwk` writes, `from_jwk` reads: same kid, same kind, and each verifies the other."""
    again = Key.from_jwk(PRIVATE[alg], alg=alg)
    assert (again.alg, again.kid, again.kind) == (alg, KEYS[alg].kid, KEYS[alg].kind)
    again.verify(KEYS[alg].sign(b"data"), b"data")
    KEYS[alg].verify(again.sign(b"data"), b"data")


@pytest.mark.parametrize("alg", ALGS[1:])
def test_a_public_key_verifies_and_cannot_sign(alg: str) -> None:
    public = KEYS[alg].public()
    assert (public.kind, public.kid, public.jwk()) == ("public", KEYS[alg].kid, KEYS[alg].jwk())
    public.verify(KEYS[alg].sign(b"data"), b"data")
    with pytest.raises(ConfigurationError):
        public.sign(b"data")
    with pytest.raises(ConfigurationError):
        public.private_jwk()


@pytest.mark.parametrize("alg", ALGS)
def test_a_signature_is_refused_for_other_data_and_when_altered(alg: str) -> None:
    signature = KEYS[alg].sign(b"data")
    for bad, data in ((signature, b"date"), (bytes([signature[0] ^ 1]) + signature[1:], b"data"), (b"", b"data")):
        with pytest.raises(BadSignature):
            KEYS[alg].verify(bad, data)


@pytest.mark.parametrize("name", ["none", "None", "noNE", "", "hs256", "HS512", "RS1", "RSA1_5", None, 1, ["HS256"]])
def test_j3_no_argument_makes_none_or_anything_unlisted_an_algorithm(name: Any) -> None:
    for make in (
        lambda: Key.generate(name),
        lambda: Key(name, SECRET),
        lambda: Key.from_pem(pem_of(ed25519.Ed25519PrivateKey.generate()), alg=name),
        lambda: Keyring.generate(name),
    ):
        with pytest.raises(ConfigurationError):
            make()


def test_j1_there_are_four_algorithms_in_one_table() -> None:
    assert tuple(algorithms.ALGORITHMS) == ALGS


@pytest.mark.parametrize("length", range(32))
def test_j4_a_secret_shorter_than_the_hash_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError):
        Key.from_secret(SECRET[:length])


@pytest.mark.parametrize(
    "secret",
    [
        "a string that is quite long enough to be 32 bytes",
        bytearray(SECRET),
        b"correct horse battery staple correct horse",
        b"MyVeryLongPassword-2026-MyVeryLongPw!!",
        b"P" * 64,
        bytes(64),
        SECRET[:16] * 2,
        b"abcdefghijklmnopqrst" * 3,
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
        b"\n  -----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        b"junk before -----BEGIN RSA PRIVATE KEY-----",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
        b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY",
        b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAAC3NzaC1lZDI1NTE5AAAAI",
        json.dumps(PRIVATE["HS256"]).encode(),
        json.dumps(PUBLIC["RS256"]).encode(),
    ],
)
def test_j4_passwords_and_texts_of_other_keys_are_no_secret(secret: Any) -> None:
    """Passwords, repetitions, and PEM, SSH, certificate or JWK text are refused, as a key and as a ring's secret."""
    with pytest.raises(ConfigurationError) as caught:
        Key.from_secret(secret)
    assert str(secret) not in str(caught.value)
    with pytest.raises(ConfigurationError):
        Keyring(None, secret=secret)


@pytest.mark.parametrize("make", [lambda: KEYS["RS256"], lambda: KEYS["ES256"], lambda: KEYS["Ed25519"]])
def test_j4_a_public_key_in_der_is_no_secret(make: Callable[[], Key]) -> None:
    """Algorithm confusion starts with a public key taken for a secret, in whatever encoding."""
    loaded: Any = algorithms.ALGORITHMS[make().alg].load(make().jwk())
    der = loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigurationError):
        Key.from_secret(der)
    with pytest.raises(ConfigurationError):
        Key.from_secret(pem_of(loaded))


@pytest.mark.parametrize(
    "secret", [SECRET, SECRET.hex().encode(), base64url.encode(SECRET).encode(), SECRET * 2 + b"x"]
)
def test_j4_random_bytes_are_a_secret_raw_or_spelled_out(secret: bytes) -> None:
    key = Key.from_secret(secret)
    key.verify(key.sign(b"data"), b"data")


def test_j4_what_the_generator_gives_is_always_taken() -> None:
    """32 random bytes pass whatever their first byte is, be it that of a JWK or of a DER file."""
    for _ in range(3000):
        assert len(base64url.decode(Key.generate("HS256").private_jwk()["k"])) == 32
    for first in b"{-s0 \n":
        Key.from_secret(bytes([first]) + SECRET)


def test_j5_rsa_sizes_are_bounded_on_both_sides() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 (weak on purpose: it must be refused)
    with pytest.raises(ConfigurationError):
        Key.from_pem(pem_of(small), alg="RS256")
    with pytest.raises(ConfigurationError):
        Key.from_jwk({"kty": "RSA", "e": "AQAB", "n": number(small.public_key().public_numbers().n)})
    for bits in (2047, 8193, 300_000):
        with pytest.raises(ConfigurationError, match="bits"):
            Key.from_jwk({"kty": "RSA", "e": "AQAB", "n": number((1 << bits) - 1)})


@pytest.mark.parametrize("e", [1, 2, 4, 65536, 2**64 + 1, 2**2000 + 1])
def test_j5_rsa_exponents_are_odd_and_above_one(e: int) -> None:
    with pytest.raises(ConfigurationError):
        Key.from_jwk({**PUBLIC["RS256"], "e": number(e)})


def test_j5_an_even_modulus_is_refused() -> None:
    n = int.from_bytes(base64url.decode(PUBLIC["RS256"]["n"]), "big")
    with pytest.raises(ConfigurationError):
        Key.from_jwk({**PUBLIC["RS256"], "n": number(n - 1)})


@pytest.mark.parametrize("a", [3, 17, 12345, 10**9 + 7])
def test_j5_roca_keys_are_refused(a: int) -> None:
    """CVE-2017-15361: primes of the form k*M + (65537^a mod M), with M the product of the primes up to 701."""
    m = 1
    for prime in (n for n in range(2, 702) if all(n % d for d in range(2, n))):
        m *= prime
    p, q = ((2**52 + k) * m + pow(65537, a + k, m) for k in (1, 2))
    modulus = (p * q) | 0
    assert modulus.bit_length() >= 2040
    while modulus.bit_length() < 2048:
        modulus *= (2**30) * m + pow(65537, a, m)
    with pytest.raises(ConfigurationError, match="ROCA"):
        Key.from_jwk({"kty": "RSA", "e": "AQAB", "n": number(modulus)})


def test_j6_a_point_off_the_curve_is_refused() -> None:
    y = bytearray(base64url.decode(PUBLIC["ES256"]["y"]))
    y[-1] ^= 1
    for bad in (
        {**PUBLIC["ES256"], "y": base64url.encode(bytes(y))},
        {**PUBLIC["ES256"], "x": base64url.encode(bytes(32)), "y": base64url.encode(bytes(32))},
        {**PUBLIC["ES256"], "x": base64url.encode(b"\xff" * 32)},
        {**PUBLIC["ES256"], "x": base64url.encode(bytes(31))},
        {**PUBLIC["ES256"], "x": base64url.encode(bytes(33))},
    ):
        with pytest.raises(ConfigurationError):
            Key.from_jwk(bad)


def test_j6_other_curves_are_refused() -> None:
    for curve in (ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()):
        with pytest.raises(ConfigurationError):
            Key.from_pem(pem_of(ec.generate_private_key(curve)), alg="ES256")
    for crv in ("P-384", "secp256k1", "p-256", None, 256):
        with pytest.raises(ConfigurationError):
            Key.from_jwk({**PUBLIC["ES256"], "crv": crv})


def test_j6_raw_signatures_of_es256_have_one_form() -> None:
    """All zeros, r or s equal to 0 or n, DER, 63 and 65 bytes are refused; r and s are 32 bytes each."""
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    good = KEYS["ES256"].sign(b"data")
    assert len(good) == 64
    material: Any = algorithms.ALGORITHMS["ES256"].load(PRIVATE["ES256"])
    der = material.sign(b"data", ec.ECDSA(hashes.SHA256()))
    order, zero = n.to_bytes(32, "big"), bytes(32)
    for bad in (
        bytes(64), zero + good[32:], good[:32] + zero, order + good[32:], good[:32] + order,
        b"\xff" * 64, der, good[:63], good + b"\0", b"\0" + good,
    ):  # fmt: skip
        with pytest.raises(BadSignature):
            KEYS["ES256"].verify(bad, b"data")


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\x01" + bytes(30) + b"\x80",
        (2**255 - 20).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
        (2**255 - 18).to_bytes(32, "little"),
        b"\xff" * 32,
    ],
)
def test_an_ed25519_point_of_small_order_is_refused(point: bytes) -> None:
    """Under such a public key one signature fits many messages; so are points not in canonical form."""
    with pytest.raises(ConfigurationError):
        Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(point)})


@pytest.mark.parametrize("alg", ALGS[1:])
def test_private_and_public_halves_that_do_not_match_are_refused(alg: str) -> None:
    other = Key.generate(alg).private_jwk()
    for name in ("d", "x", "n"):
        if name in PRIVATE[alg]:
            with pytest.raises(ConfigurationError):
                Key.from_jwk({**PRIVATE[alg], name: other[name]})


@pytest.mark.parametrize("name", ["p", "q", "dp", "dq", "qi"])
def test_an_rsa_key_with_parts_missing_or_wrong_is_refused(name: str) -> None:
    members = dict(PRIVATE["RS256"])
    with pytest.raises(ConfigurationError):
        Key.from_jwk({**members, name: Key.generate("RS256").private_jwk()[name]})
    del members[name]
    with pytest.raises(ConfigurationError):
        Key.from_jwk(members)


CONTRADICTIONS: list[tuple[str, Members]] = [
    ("ES256", {"use": "enc"}),
    ("ES256", {"use": None}),
    ("ES256", {"use": ["sig"]}),
    ("ES256", {"key_ops": ["encrypt"]}),
    ("ES256", {"key_ops": ["sign"]}),
    ("ES256", {"key_ops": []}),
    ("ES256", {"key_ops": "verify"}),
    ("ES256", {"key_ops": None}),
    ("ES256", {"key_ops": ["verify", "verify"]}),
    ("ES256", {"key_ops": ["verify", "deriveKey"]}),
    ("ES256", {"key_ops": ["verify", 1]}),
    ("ES256", {"alg": "RS256"}),
    ("ES256", {"alg": "HS256"}),
    ("ES256", {"alg": "none"}),
    ("ES256", {"alg": None}),
    ("ES256", {"alg": ["ES256"]}),
    ("ES256", {"alg": "ES384"}),
    ("ES256", {"kty": "OKP"}),
    ("ES256", {"kty": "RSA"}),
    ("ES256", {"kty": None}),
    ("ES256", {"kty": {"a": 1}}),
    ("ES256", {"crv": "P-384"}),
    ("ES256", {"crv": "Ed25519"}),
    ("ES256", {"k": "AAAA"}),
    ("Ed25519", {"crv": "Ed448"}),
    ("Ed25519", {"crv": "X25519"}),
    ("Ed25519", {"alg": "ES256"}),
    ("RS256", {"alg": "PS256"}),
    ("RS256", {"alg": "EdDSA"}),
    ("RS256", {"crv": "P-256"}),
    ("RS256", {"oth": []}),
    ("RS256", {"n": 5}),
    ("RS256", {"n": "AA" + "A" * 341}),
    ("RS256", {"e": "AAEAAQ"}),
    ("RS256", {"e": ""}),
    ("RS256", {"n": "=="}),
]


@pytest.mark.parametrize(("alg", "change"), CONTRADICTIONS)
def test_j2_a_jwk_that_contradicts_itself_is_refused(alg: str, change: Members) -> None:
    """`kty`, `crv`, `alg`, `use` and `key_ops` must all agree, and a key refused never verifies a token."""
    with pytest.raises(ConfigurationError):
        Key.from_jwk({**PUBLIC[alg], **change})
    token = jws.sign(b"{}", KEYS[alg], typ="at+jwt")
    for keys in (
        [{**PUBLIC[alg], **change}],
        [{**PUBLIC[alg], **change}, PUBLIC["RS256" if alg != "RS256" else "ES256"]],
    ):
        try:
            ring = Keyring.from_jwks({"keys": keys})
        except ConfigurationError:
            continue
        with pytest.raises(BadSignature):
            jws.verify(token, ring, typ="at+jwt")


@pytest.mark.parametrize("ops", [["verify"], ["sign"], ["sign", "verify", "encrypt"]])
def test_j2_a_symmetric_jwk_is_for_both_operations(ops: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        Key.from_jwk({**PRIVATE["HS256"], "key_ops": ops})
    Key.from_jwk({**PRIVATE["HS256"], "key_ops": ["verify", "sign"]})
    Key.from_jwk({**PRIVATE["ES256"], "key_ops": ["sign"]})
    Key.from_jwk({**PUBLIC["ES256"], "key_ops": ["verify"]})


@pytest.mark.parametrize("alg", ALGS)
def test_j2_the_expected_algorithm_must_be_the_keys(alg: str) -> None:
    for other in ALGS:
        if other != alg:
            with pytest.raises(ConfigurationError):
                Key.from_jwk(PRIVATE[alg], alg=other)


@pytest.mark.parametrize("alg", ALGS[1:])
def test_from_pem_reads_private_and_public_keys_of_its_algorithm_only(alg: str) -> None:
    private: Any = algorithms.ALGORITHMS[alg].load(PRIVATE[alg])
    assert Key.from_pem(pem_of(private), alg=alg).kid == KEYS[alg].kid
    assert Key.from_pem(pem_of(private.public_key()), alg=alg, kid="mine").kid == "mine"
    for other in ALGS:
        if other != alg:
            with pytest.raises(ConfigurationError):
                Key.from_pem(pem_of(private), alg=other)


def test_from_pem_refuses_certificates_locked_files_and_noise() -> None:
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    for pem in (
        locked,
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----",
        b"",
        b"-----BEGIN PUBLIC KEY-----" * 2000,
    ):
        with pytest.raises(ConfigurationError):
            Key.from_pem(pem, alg="Ed25519")


@pytest.mark.parametrize("kid", ["", "a" * 129, "with space", "tab\t", "\x00", "é", "line\n", None, 5, ["a"]])
def test_j11_a_kid_is_short_and_visible_ascii(kid: Any) -> None:
    with pytest.raises(ConfigurationError):
        Key.from_jwk({**PUBLIC["ES256"], "kid": kid})
    if kid is not None:
        with pytest.raises(ConfigurationError):
            Key.from_secret(SECRET, kid=kid)


@pytest.mark.parametrize("kid", ["a" * 128, "../../dev/null", "' OR 1=1 --".replace(" ", "_"), "~!"])
def test_j11_an_explicit_kid_is_kept_and_opaque(kid: str) -> None:
    key = Key.from_jwk({**PUBLIC["ES256"], "kid": kid})
    assert key.kid == kid
    assert Keyring(None, retired=[key], secret=None).find(kid) is key


@pytest.mark.parametrize("alg", ALGS)
def test_a_keys_repr_shows_no_key_material(alg: str) -> None:
    text = repr(KEYS[alg]) + str(KEYS[alg]) + repr(Keyring(KEYS[alg], secret=SECRET))
    assert KEYS[alg].kid in text
    for name, value in PRIVATE[alg].items():
        assert name in {"kty", "kid", "alg", "use", "crv", "e"} or value not in text
    assert SECRET.hex() not in text
    assert repr(SECRET) not in text


def test_a_key_cannot_be_changed_pickled_or_copied() -> None:
    key = KEYS["HS256"]
    with pytest.raises(AttributeError):
        key.alg = "none"
    with pytest.raises(AttributeError):
        del key.kid
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(key)


def test_a_key_object_of_another_type_is_refused() -> None:
    for alg, material in (("RS256", SECRET), ("HS256", "x" * 40), ("ES256", ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(ConfigurationError):
            Key(alg, material)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- Keyring


def ring_of(*algs: str) -> Keyring:
    signing, upcoming, *retired = (Key.generate(alg) for alg in algs)
    return Keyring(signing, upcoming=upcoming, retired=retired, secret=SECRET)


def test_a_ring_knows_every_role_and_signs_with_one() -> None:
    ring = ring_of("Ed25519", "ES256", "Ed25519", "ES256")
    assert ring.signing is not None
    assert ring.upcoming is not None
    assert ring.signing_key() is ring.signing
    assert ring.verification_keys == (ring.signing, ring.upcoming, *ring.retired)
    for key in ring.verification_keys:
        assert ring.find(key.kid) is key
    assert ring.find("unknown") is None


def test_j5_rings_with_two_keys_of_one_kid_or_of_two_kinds_are_refused() -> None:
    one, two = Key.generate(kid="same"), Key.generate(kid="same")
    for arguments in (
        {"signing": one, "retired": [two]},
        {"signing": one, "upcoming": one},
        {"signing": one, "retired": [KEYS["HS256"]]},
        {"signing": KEYS["HS256"], "upcoming": one},
        {"signing": one.public()},
        {"signing": None, "secret": None},
        {"signing": one, "secret": None, "retired_secrets": [SECRET]},
        {"signing": one, "retired_secrets": [SECRET]},
        {"signing": one, "retired_secrets": [b"short"]},
    ):
        with pytest.raises(ConfigurationError):
            Keyring(**{"secret": SECRET, **arguments})  # type: ignore[arg-type]


def test_a_ring_without_a_signing_key_says_so() -> None:
    with pytest.raises(ConfigurationError):
        Keyring(None, retired=[KEYS["ES256"]], secret=None).signing_key()


def test_j19_the_jwks_has_public_members_of_every_role_under_their_thumbprints() -> None:
    """Signing, upcoming (before it signs) and retired keys are published; nothing private is."""
    ring = ring_of("Ed25519", "ES256", "RS256")
    keys = ring.jwks()["keys"]
    assert [key["kid"] for key in keys] == [key.kid for key in ring.verification_keys]
    for key in keys:
        assert set(key) <= {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
        assert key["kid"] == Key.from_jwk({k: v for k, v in key.items() if k != "kid"}).kid
    again = Keyring.from_jwks(json.dumps(ring.jwks()).encode())
    assert [key.kid for key in again.retired] == [key.kid for key in ring.verification_keys]
    assert all(key.kind == "public" for key in again.retired)
    assert again.jwks() == ring.jwks()


def test_j19_a_symmetric_ring_publishes_nothing() -> None:
    ring = Keyring(KEYS["HS256"], secret=SECRET)
    assert ring.jwks() == {"keys": []}
    with pytest.raises(ConfigurationError):
        KEYS["HS256"].jwk()
    with pytest.raises(ConfigurationError):
        KEYS["HS256"].public()


def test_p8_tokens_verify_through_a_rotation_from_upcoming_to_dropped() -> None:
    """A key verifies as upcoming, signing and retired, and not before or after."""
    old, key, new = (Key.generate() for _ in range(3))
    token = jws.sign(b"{}", key, typ="at+jwt")
    ring = Keyring(old, secret=SECRET)
    with pytest.raises(BadSignature):
        jws.verify(token, ring, typ="at+jwt")
    for stage in (
        Keyring(old, upcoming=key, secret=SECRET),
        Keyring(key, retired=[old], secret=SECRET),
        Keyring(new, retired=[key, old], secret=SECRET),
    ):
        ring.adopt(stage)
        assert jws.verify(token, ring, typ="at+jwt") == b"{}"
    ring.adopt(Keyring(new, secret=SECRET))
    with pytest.raises(BadSignature):
        jws.verify(token, ring, typ="at+jwt")


def test_adopt_is_seen_whole_by_concurrent_readers() -> None:
    """A reader sees all roles of the old ring or all of the new one, never a mixture."""
    rings = [ring_of("Ed25519", "Ed25519", "Ed25519") for _ in range(2)]
    wanted = {tuple(key.kid for key in ring.verification_keys) for ring in rings}
    shared = Keyring(None, retired=[KEYS["ES256"]], secret=None)
    shared.adopt(rings[0])
    seen: set[tuple[str, ...]] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            roles = shared.roles
            seen.add(tuple(key.kid for key in (roles.signing, roles.upcoming, *roles.retired) if key))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(2000):
        shared.adopt(rings[turn % 2])
    stop.set()
    for reader in readers:
        reader.join()
    assert seen <= wanted


def test_derived_keys_differ_by_purpose_and_list_the_current_secret_first() -> None:
    ring = Keyring(None, secret=SECRET, retired_secrets=[OTHER_SECRET])
    one, two = ring.derive("refresh"), ring.derive("seal")
    assert [len(key) for key in (*one, *two)] == [32] * 4
    assert len({*one, *two}) == 4
    assert ring.derive("refresh") is one
    assert one == (
        *Keyring(None, secret=SECRET).derive("refresh"),
        *Keyring(None, secret=OTHER_SECRET).derive("refresh"),
    )
    with pytest.raises(ConfigurationError):
        Keyring(KEYS["ES256"], secret=None).derive("refresh")


def test_c17_adopting_a_ring_changes_what_is_derived() -> None:
    ring = Keyring(None, secret=SECRET)
    before = ring.derive("seal")
    ring.adopt(Keyring(None, secret=OTHER_SECRET))
    assert before[0] not in ring.derive("seal")


# -- JWKS


def test_a_jwks_skips_what_is_not_for_us() -> None:
    """RFC 7517, section 5: unknown types and algorithms, and keys for encryption, are ignored."""
    strangers: list[Members] = [
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {**PUBLIC["RS256"], "alg": "RSA-OAEP", "use": "enc", "kid": "enc"},
        {**PUBLIC["RS256"], "alg": "PS256", "kid": "pss"},
        {},
    ]
    ring = Keyring.from_jwks({"keys": [*strangers, PUBLIC["ES256"]], "extra": 1})
    assert [key.kid for key in ring.retired] == [KEYS["ES256"].kid]
    assert ring.signing is None


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"kty": "AKP"}],
        [PUBLIC["ES256"], {**PUBLIC["Ed25519"], "kid": PUBLIC["ES256"]["kid"]}],
        [PUBLIC["ES256"], PRIVATE["HS256"]],
        [PRIVATE["HS256"]],
        [PUBLIC["ES256"], PRIVATE["Ed25519"]],
        [PUBLIC["ES256"], {"kty": "AKP", "d": "AAAA"}],
        [PUBLIC["ES256"], {"kty": "RSA", "e": "AQAB", "n": "AQAB"}],
        [PUBLIC["ES256"], {**PUBLIC["Ed25519"], "alg": "ES256"}],
        [PUBLIC["ES256"], 5],
        [PUBLIC["ES256"]] * 2,
        [{**PUBLIC["ES256"], "kid": f"k{n}"} for n in range(MAX_KEYS + 1)],
        None,
        {"a": PUBLIC["ES256"]},
        "keys",
    ],
)
def test_j5_a_jwks_with_a_bad_secret_or_doubled_key_is_refused_whole(keys: Any) -> None:
    with pytest.raises(ConfigurationError):
        Keyring.from_jwks({"keys": keys})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"keys":[]}',
        b'{"keys":[],"keys":[]}',
        b"\xef\xbb\xbf" + json.dumps({"keys": [PUBLIC["ES256"]]}).encode(),
        json.dumps({"keys": [PUBLIC["ES256"]]}).encode().replace(b'"kty"', b'"kty": "EC", "kty"'),
        b'{"keys":' + b"[" * 50_000,
        b" " * 300_000,
    ],
)
def test_j15_a_jwks_text_is_read_strictly(text: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Keyring.from_jwks(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = ["kty", "crv", "alg", "use", "key_ops", "kid", "k", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y", "oth"]


@unhurried
@given(
    st.sampled_from([*PRIVATE.values(), *PUBLIC.values(), {}]),
    st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["EC", "OKP", "AA", "P-256"]), max_size=3),
    st.sets(st.sampled_from(NAMES), max_size=2),
)
def test_j17_any_jwk_gives_a_key_or_our_error(base: Mapping[str, Any], change: Members, drop: set[str]) -> None:
    jwk = {name: value for name, value in {**base, **change}.items() if name not in drop}
    for load in (Key.from_jwk, lambda members: Keyring.from_jwks({"keys": [members]})):
        with suppress(CoatcheckError):
            load(jwk)


@unhurried
@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_j17_any_bytes_give_a_key_or_our_error(data: bytes) -> None:
    for load in (
        Key.from_jwk,
        Keyring.from_jwks,
        Key.from_secret,
        lambda text: Key.from_pem(text, alg="ES256"),
        lambda text: Key.from_pem(b"-----BEGIN PRIVATE KEY-----\n" + text, alg="ES256"),
    ):
        with suppress(CoatcheckError):
            load(data)


@pytest.mark.parametrize("junk", [{"kid": object()}, {1: 2}, {"n": {1, 2}}, {"kid": "\ud800"}, {"a": float("nan")}])
def test_j17_a_mapping_that_is_no_json_gives_our_error(junk: Any) -> None:
    for load in (Key.from_jwk, Keyring.from_jwks):
        with pytest.raises(ConfigurationError):
            load(junk)
