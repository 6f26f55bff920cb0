"""Sealed values: bound to their use, opened by the keys that still count, and never anything but ours or refused."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck.core import base64url
from coatcheck.core.keys import Keyring
from coatcheck.core.seal import MAX_SEALED, seal, unseal
from coatcheck.errors import BadSignature, ConfigurationError, InvalidValue, Malformed

# A slow machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SECRET = bytes.fromhex("6f8d1c5b9ae24703fd11c08e5a77b3962e04d9f8136ac5be80f2497d3bc6e15a")
(NEW, OLD) = Keyring(None, secret=SECRET, retired_secrets=[SECRET[::-1]]).derive("seal")
NONCE = bytes(range(12))
OURS = (BadSignature, Malformed)


def sealed(data: bytes, key: bytes = NEW, purpose: str = "session", name: str = "__Host-session") -> str:
    return seal(data, keys=[key], purpose=purpose, name=name, nonce=NONCE)


def opened(text: str | bytes, *keys: bytes, purpose: str = "session", name: str = "__Host-session") -> bytes:
    return unseal(text, keys=keys or [NEW], purpose=purpose, name=name)


@unhurried
@given(st.binary(max_size=2000))
def test_c17_what_was_sealed_is_unsealed(data: bytes) -> None:
    text = sealed(data)
    assert opened(text) == opened(text.encode()) == data
    assert data[:8] == b"" or len(data) < 8 or data not in base64url.decode(text)


@pytest.mark.parametrize(
    ("purpose", "name"),
    [
        ("session", "other"),
        ("other", "__Host-session"),
        ("", ""),
        ("session__Host-", "session"),
        ("__Host-session", "session"),
    ],
)
def test_c17_a_value_moved_to_another_name_or_purpose_is_refused(purpose: str, name: str) -> None:
    """Swapping two cookies, or moving letters between purpose and name, never opens a value."""
    with pytest.raises(BadSignature):
        opened(sealed(b"data"), purpose=purpose, name=name)


def test_c17_a_retired_key_opens_and_a_dropped_key_does_not() -> None:
    text = sealed(b"data", OLD)
    assert opened(text, NEW, OLD) == b"data"
    with pytest.raises(BadSignature):
        opened(text, NEW)
    assert (
        opened(seal(b"new", keys=[NEW, OLD], purpose="p", name="n", nonce=NONCE), NEW, purpose="p", name="n") == b"new"
    )


def test_c17_no_byte_can_be_changed() -> None:
    raw = base64url.decode(sealed(b"some data"))
    for place in range(len(raw)):
        with pytest.raises(OURS):
            opened(base64url.encode(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]))
    for end in range(len(raw)):
        with pytest.raises(OURS):
            opened(base64url.encode(raw[:end]))


def test_c17_the_format_carries_version_key_id_and_nonce() -> None:
    one, other = base64url.decode(sealed(b"data")), base64url.decode(sealed(b"data", OLD))
    assert one[0] == 1
    assert one[1:5] != other[1:5]
    assert one[5:17] == NONCE
    assert len(one) == 17 + 4 + 16


def test_c17_length_tells_only_the_length() -> None:
    """Nothing is compressed: what repeats is as long as what does not."""
    assert len(sealed(b"a" * 1000)) == len(sealed(bytes(range(250)) * 4))


def test_c17_there_is_a_limit_on_both_sides() -> None:
    most = 4096 * 3 // 4 - 17 - 16
    assert len(sealed(bytes(most))) == MAX_SEALED
    assert opened(sealed(bytes(most))) == bytes(most)
    with pytest.raises(InvalidValue):
        sealed(bytes(most + 1))
    with pytest.raises(Malformed):
        opened("A" * (MAX_SEALED + 1))


def test_c17_wrong_key_or_nonce_sizes_are_mistakes_of_the_caller() -> None:
    for keys, nonce in (([], NONCE), ([b"short"], NONCE), ([NEW], b"short"), ([NEW], bytes(16))):
        with pytest.raises(ConfigurationError):
            seal(b"", keys=keys, purpose="p", name="n", nonce=nonce)


@unhurried
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_j17_any_text_opens_or_gives_our_error(text: str | bytes) -> None:
    with pytest.raises(OURS):
        opened(text)


@unhurried
@given(st.binary(max_size=120))
def test_j17_any_bytes_behind_a_good_head_give_our_error(tail: bytes) -> None:
    raw = base64url.decode(sealed(b"data"))
    for head in (1, 5, 17):
        if raw[:head] + tail != raw:
            with pytest.raises(OURS):
                opened(base64url.encode(raw[:head] + tail))
