"""SealedKeys: one ring for all servers of a store, which nobody can read who has not the secret."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Key
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError, InvalidValue
from coatcheck.keyfile import PUBLISH_AHEAD
from coatcheck.server.sealed_keys import KEYS, SealedKeys
from coatcheck.stored_ring import StoredKey, StoredRing
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

OLD, NEW = "an-old-secret-0123456789-abcdefghij", "a-new-secret-9876543210-zyxwvutsrq"


@pytest.fixture
def keys(documents: Documents, clock: SettableClock) -> Any:
    """Make one more server's."""
    return lambda *secrets, algorithm="ES256": SealedKeys(
        documents, secrets or (OLD,), algorithm=algorithm, clock=clock
    )


async def test_of_ten_that_start_at_once_one_makes_the_ring_and_it_stays(keys: Any) -> None:
    rings = await asyncio.gather(*(keys().open() for _ in range(10)))
    rings.append(await keys(algorithm="RS256").open())
    assert len({ring.signing_key().kid for ring in rings}) == 1
    assert len({ring.derive("refresh") for ring in rings}) == 1
    assert rings[0].upcoming is not None


async def test_nothing_of_a_key_or_a_secret_can_be_read_in_the_store(
    keys: Any, documents: Documents, tmp_path: Path
) -> None:
    await keys(algorithm="HS256").open()
    stored = await keys().keys()
    await documents.close()
    content = _contents(tmp_path)
    assert KEYS.encode() in content
    for secret in (OLD, *(each.jwk["k"] for each in stored), stored[0].jwk["kid"], '"keys"'):
        assert secret.encode() not in content


def _contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.mark.parametrize("ask", ["open", "changed", "keys", "rotate"])
async def test_a_wrong_secret_is_said_in_words_and_changes_nothing(keys: Any, documents: Documents, ask: str) -> None:
    await keys().open()
    before = await documents.get(KEYS)
    with pytest.raises(ConfigurationError, match="COATCHECK_SECRET is not the one") as caught:
        await getattr(keys(NEW), ask)()
    assert NEW not in str(caught.value)
    assert await documents.get(KEYS) == before


async def test_p8_a_secret_is_replaced_in_three_steps_and_the_ring_stays(keys: Any) -> None:
    running = keys(OLD)
    ring = await running.open()
    kids = [ring.signing_key().kid]
    kids.append((await keys(OLD, NEW).open()).signing_key().kid)
    assert await running.changed() is None, "nothing was sealed anew"
    kids.append((await keys(NEW, OLD).open()).signing_key().kid)
    kids.append((await keys(NEW).open()).signing_key().kid)
    assert set(kids) == {kids[0]}
    with pytest.raises(ConfigurationError, match="COATCHECK_SECRET is not the one"):
        await running.changed()


async def test_p8_j19_a_rotation_is_refused_when_it_is_too_early_and_reaches_the_others(
    keys: Any, clock: SettableClock
) -> None:
    running, console = keys(), keys()
    ring = await running.open()
    assert ring.upcoming is not None
    clock.advance(PUBLISH_AHEAD - timedelta(seconds=10))
    with pytest.raises(ConfigurationError, match="try again in 10 s"):
        await console.rotate()
    assert await running.changed() is None
    clock.advance(timedelta(seconds=10))
    rotated = await console.rotate()
    assert rotated.signing_key().kid == ring.upcoming.kid
    heard = await running.changed()
    assert heard is not None
    assert heard.jwks() == rotated.jwks()
    assert await running.changed() is None
    assert [key.role for key in await console.keys()] == ["retired", "signing", "upcoming"]


async def test_of_two_rotations_at_once_one_is_too_early(keys: Any, clock: SettableClock) -> None:
    """Each would retire the key that the other has just let sign."""
    await keys().open()
    clock.advance(PUBLISH_AHEAD)
    results = await asyncio.gather(*(keys().rotate() for _ in range(2)), return_exceptions=True)
    assert sum(isinstance(result, ConfigurationError) for result in results) == 1
    assert len(await keys().keys()) == 3


@pytest.mark.parametrize("stored", [b"", b"no sealed value", b"\xff" * 60, b"A" * 200])
async def test_what_is_damaged_is_said_and_stays_as_it_is(keys: Any, documents: Documents, stored: bytes) -> None:
    await documents.commit({}, {KEYS: stored})
    with pytest.raises(ConfigurationError):
        await keys().open()
    assert await documents.get(KEYS) == [stored]


async def test_keys_that_are_gone_are_said_to_be(keys: Any, documents: Documents) -> None:
    running = keys()
    with pytest.raises(ConfigurationError, match="coatcheck serve"):
        await keys().keys()
    await running.open()
    await documents.commit({}, {KEYS: None})
    with pytest.raises(ConfigurationError, match="gone"):
        await running.changed()


async def test_p9_as_many_rsa_keys_fit_as_an_hour_of_rotations_leaves_and_no_more_than_a_document_holds(
    keys: Any, documents: Documents
) -> None:
    jwk = Key.generate("RS256").private_jwk()
    ring = StoredRing.first("ES256", 0)
    for fits in (True, False):
        ring.keys = [StoredKey(role="retired", made_at=0, jwk=jwk)] * (20 if fits else 60)
        if fits:
            assert await keys()._commit(None, ring)
            assert len(await keys().keys()) == 20
        else:
            with pytest.raises(InvalidValue, match="at most 65536"):
                await keys()._commit(None, ring)
