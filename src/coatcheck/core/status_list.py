"""Token Status List: the states of many tokens in one signed bitmap, for verifiers that can only poll.

Built, and judged by the rules of this table (draft-ietf-oauth-status-list, sections 4.1, 5.1, 6.1 and 8.3):

what            rule                                                                          refused as
typ             statuslist+jwt                                                                WrongClaim
sub             the very URI that the list was fetched from and the reference names           WrongClaim
iat             not in the future, give or take the leeway                                    WrongClaim
exp             now < exp + leeway; must be there, which is our own demand                    Expired
ttl             more than 0 seconds, if there                                                 WrongClaim
bits            1, 2, 4 or 8                                                                  WrongClaim
lst             base64url of zlib of at most a MiB; nothing missing, nothing after it         Malformed
index           one that the list has                                                         WrongClaim
status          0, which is VALID; INVALID, SUSPENDED and all others                          Revoked
time of use     before exp, and no more than ttl after the list was fetched                   Expired
others          ignored

Of the entries in an octet, the first has the lowest bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from hmac import digest as hmac_digest
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from coatcheck.core import base64url, jws, shape, strict_json
from coatcheck.core.claims import MAX_LEEWAY, MAX_TIME, TYPES, Claims, Time
from coatcheck.core.keys import Key, Keyring
from coatcheck.errors import (
    ConfigurationError,
    CredentialError,
    Expired,
    InvalidValue,
    Malformed,
    Revoked,
    WrongClaim,
)

VALID: Final = 0  # section 7.1
INVALID: Final = 1
SUSPENDED: Final = 2

MAX_OCTETS: Final = 1_048_576  # of a list that is not compressed: 2^20 entries of 8 bits

# Every list of ours is at least this large, so that an index says little (R4). Blank, it compresses to some 30
# octets; and one of exactly this size fits into a token (jws.MAX_TOKEN) whatever it says.
LEAST_OCTETS: Final = 8_192

_WIDTHS: Final = (1, 2, 4, 8)
_BEST: Final = 9
_ROUNDS: Final = 12

Bits: TypeAlias = Literal[1, 2, 4, 8]
Uri: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2_048)]


class StatusList(msgspec.Struct, frozen=True):
    """The states of many tokens.

    Args:
        bits: of one entry: 1, 2, 4 or 8.
        octets: all entries, the first one in the lowest bits of the first octet.
    """

    bits: Bits
    octets: bytes

    def __len__(self) -> int:
        return len(self.octets) * 8 // self.bits

    def status(self, index: int) -> int:
        """Return one entry.

        Raises:
            WrongClaim: the list has no such entry (R3).
        """
        if not 0 <= index < len(self):
            raise WrongClaim("status", "the status list has no such index")
        place, shift = divmod(index * self.bits, 8)
        return self.octets[place] >> shift & ((1 << self.bits) - 1)


class Reference(msgspec.Struct, frozen=True):
    """Where the status of a token stands: claim `status`, member `status_list` (section 6.1)."""

    idx: Annotated[int, Meta(ge=0, lt=MAX_OCTETS * 8)]
    uri: Uri


class StatusListToken(msgspec.Struct, frozen=True, kw_only=True):
    """A list that was judged and may be used until `fresh_until`; all times are seconds since the epoch."""

    uri: str
    statuses: StatusList
    issued_at: float
    expires_at: float
    fresh_until: float

    def require_valid(self, reference: Reference, *, now: float) -> None:
        """Return if the token with this reference is valid by the list; whatever cannot be decided is a refusal.

        Raises:
            Expired: the list must be fetched again first.
            WrongClaim: the reference is to another list, or to an entry that the list does not have.
            Revoked: the entry says anything but VALID.
        """
        if not now < self.fresh_until:
            raise Expired("the status list is too old")
        if reference.uri != self.uri:
            raise WrongClaim("status", "the status is in another list")
        if self.statuses.status(reference.idx) != VALID:
            raise Revoked("the token is not valid by its status list")


class _Members(msgspec.Struct):
    bits: Bits
    lst: str


class _Claims(msgspec.Struct):
    sub: Uri
    iat: Time
    exp: Time
    status_list: _Members
    ttl: Annotated[int, Meta(gt=0, le=MAX_TIME)] | Annotated[float, Meta(gt=0, le=MAX_TIME)] | UnsetType = UNSET


class _Status(msgspec.Struct):
    status_list: Reference | UnsetType = UNSET


def room(entries: int, bits: Bits) -> int:
    """Return how many entries a list for so many tokens has: a power of two, and never a small one (R4).

    Raises:
        InvalidValue: they are more than one list holds, or `bits` is no width.
    """
    _require_width(bits)
    octets = LEAST_OCTETS
    while octets * 8 < entries * bits:
        octets *= 2
    if octets > MAX_OCTETS:
        raise InvalidValue(f"a status list has at most {MAX_OCTETS * 8 // bits} entries of this width")
    return octets * 8 // bits


def nth_index(key: bytes, n: int, entries: int) -> int:
    """Return the index of the list's n-th token: no two have the same, and without the key they show no order (R4).

    A Feistel network over the bits of `n`: a permutation for every key, so a counter is all there is to keep.

    Args:
        key: 32 octets that only the issuer knows, and that belong to this list (`Keyring.derive` with its URI).
        n: counts the list's tokens from 0, and never goes back.
        entries: of the list, from `room`.

    Raises:
        InvalidValue: the list is full, or its size is no power of two.
    """
    if entries < 4 or entries & (entries - 1):
        raise InvalidValue("the entries of a list are a power of two")
    if not 0 <= n < entries:
        raise InvalidValue("the status list is full")
    width = (entries - 1).bit_length()
    half = width // 2
    high, low = n >> half, n & ((1 << half) - 1)
    for turn in range(0, _ROUNDS, 2):
        high ^= _scramble(key, turn, low) & ((1 << (width - half)) - 1)
        low ^= _scramble(key, turn + 1, high) & ((1 << half) - 1)
    return high << half | low


def _scramble(key: bytes, turn: int, value: int) -> int:
    return int.from_bytes(hmac_digest(key, bytes([turn]) + value.to_bytes(4, "big"), "sha256")[:4], "big")


def pack(statuses: Mapping[int, int], *, bits: Bits, entries: int) -> StatusList:
    """Return a list in which all entries are VALID but these.

    Args:
        statuses: index to status.
        bits: of one entry.
        entries: how many; `room` says how many they should be. The last octet is filled up.

    Raises:
        InvalidValue: an index is not in the list, a status is too large for `bits`, or the list is too large.
    """
    _require_width(bits)
    if not 0 < entries * bits <= MAX_OCTETS * 8:
        raise InvalidValue(f"a status list has 1 to {MAX_OCTETS * 8 // bits} entries of this width")
    octets = bytearray((entries * bits + 7) // 8)
    for index, status in statuses.items():
        if not 0 <= index < entries or not 0 <= status < 1 << bits:
            raise InvalidValue("an index or a status is out of the list's range")
        place, shift = divmod(index * bits, 8)
        octets[place] |= status << shift
    return StatusList(bits, bytes(octets))


def compress(statuses: StatusList) -> str:
    """Return the member `lst` of a list: zlib (RFC 1950) at its best level, in base64url (R1)."""
    return base64url.encode(zlib.compress(statuses.octets, _BEST))


def decompress(lst: str, bits: Bits) -> StatusList:
    """Return the list that a member `lst` holds, of a MiB at most, however small it comes (R3).

    Raises:
        Malformed: it is not base64url or not zlib, is empty or over the limit, or something is missing or left over.
    """
    reader = zlib.decompressobj()
    try:
        octets = reader.decompress(base64url.decode(lst), MAX_OCTETS + 1)
    except zlib.error:
        raise Malformed("the status list is not zlib") from None
    if len(octets) > MAX_OCTETS:
        raise Malformed(f"a status list has at most {MAX_OCTETS} octets")
    if not octets or not reader.eof or reader.unused_data:
        raise Malformed("the status list is empty, or something is missing or left over")
    return StatusList(bits, octets)


def build(statuses: StatusList, *, uri: str, issued_at: int, lifetime: int, ttl: int) -> bytes:
    """Return the claims of a status list token (R2), to be signed with `sign`.

    Args:
        statuses: the list.
        uri: its own URI, where it is fetched.
        issued_at: seconds since the epoch.
        lifetime, ttl: seconds, both at least 1; a list is fetched again after `ttl`, and not used after `lifetime`.

    Raises:
        InvalidValue: the URI is empty or too long, a time is out of range, or the list is empty or too large.
    """
    members = {
        "sub": uri,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "ttl": ttl,
        "status_list": {"bits": statuses.bits, "lst": compress(statuses)},
    }
    payload = msgspec.json.encode(members)
    try:
        judge(payload, uri=uri, now=issued_at, leeway=0)
    except CredentialError:
        problem = "the URI is empty or too long, a time is out of range, or the list is empty or too large"
        raise InvalidValue(problem) from None
    return payload


def sign(payload: bytes, key: Key) -> str:
    """Return the status list token with these claims.

    Raises:
        ConfigurationError: the key cannot sign.
        InvalidValue: the token would be over 16 KiB: the list has more than 8 KiB, and does not compress well.
    """
    return jws.sign(payload, key, typ=TYPES["status list"])


def verify(token: str | bytes, ring: Keyring, *, uri: str, now: float, leeway: int) -> StatusListToken:
    """Return the list in a status list token, if a key of `ring` signed it; the rest is `judge`.

    Raises:
        BadSignature: no key of the ring signed it.
        Malformed, WrongClaim, Expired, ConfigurationError: see the module.
    """
    return judge(jws.verify(token, ring, typ=TYPES["status list"]), uri=uri, now=now, leeway=leeway)


def judge(payload: bytes, *, uri: str, now: float, leeway: int) -> StatusListToken:
    """Return the list in the claims of a status list token; the module lists the rules.

    Not checked: the signature (`verify` does), and whether its signer may speak for the issuer of the tokens.

    Args:
        payload: the claims.
        uri: where the list was fetched; exactly.
        now: when it was fetched, in seconds since the epoch.
        leeway: seconds that clocks may differ, 60 at most (J13).

    Raises:
        Malformed, WrongClaim, Expired: see the module.
        ConfigurationError: the leeway is out of bounds.
    """
    if not 0 <= leeway <= MAX_LEEWAY:
        raise ConfigurationError(f"the leeway is 0 to {MAX_LEEWAY} seconds")
    claims = shape.fit(strict_json.loads(payload), _Claims)
    if claims.sub != uri:
        raise WrongClaim("sub", "the status list is another one")
    if not claims.iat <= now + leeway:
        raise WrongClaim("iat", "the status list was issued in the future")
    expires_at = claims.exp + leeway
    if not now < expires_at:
        raise Expired("the status list has expired")
    return StatusListToken(
        uri=uri,
        statuses=decompress(claims.status_list.lst, claims.status_list.bits),
        issued_at=claims.iat,
        expires_at=claims.exp,
        fresh_until=expires_at if claims.ttl is UNSET else min(expires_at, now + claims.ttl),
    )


def reference(claims: Claims) -> Reference | None:
    """Return where the status of a token stands; None if it names no status list.

    It takes claims that were judged, because a token is validated before its status is asked for (R3).

    Raises:
        WrongClaim: it has a claim `status` that cannot be read.
    """
    status = claims.extra.get("status")
    if status is None and "status" not in claims.extra:
        return None
    found = shape.fit(status, _Status, within="status").status_list
    return None if found is UNSET else found


def _require_width(bits: int) -> None:
    if bits not in _WIDTHS:
        raise InvalidValue("an entry has 1, 2, 4 or 8 bits")
