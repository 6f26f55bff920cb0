"""KeyFile: keys are made once, kept private, rotated in step, and adopted by running processes."""

from __future__ import annotations

import json
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from coatcheck import Coatcheck, ConfigurationError, KeyFile, Keyring, Policy
from coatcheck.core.keys import Key
from coatcheck.errors import BadSignature
from coatcheck.keyfile import PUBLISH_AHEAD
from coatcheck.run import run
from coatcheck.testing import SettableClock


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


def key_file(directory: Path, clock: SettableClock, algorithm: str = "ES256") -> KeyFile:
    return KeyFile(directory / "keys.json", algorithm=algorithm, clock=clock)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "Ed25519"])
def test_keys_are_made_once_and_stay(tmp_path: Path, clock: SettableClock, algorithm: str) -> None:
    """The first start makes a signing and an upcoming key; the next finds the same ones."""
    made, found = (key_file(tmp_path, clock, algorithm).open() for _ in range(2))
    assert made.signing_key().alg == algorithm
    assert made.upcoming is not None
    assert [key.kid for key in made.verification_keys] == [key.kid for key in found.verification_keys]
    assert made.derive("refresh") == found.derive("refresh")


def test_the_file_is_private(tmp_path: Path, clock: SettableClock) -> None:
    """0600, in a directory of 0700; one that others may read is refused, not used."""
    file = key_file(tmp_path / "new", clock)
    file.open()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        file.open()


def test_two_processes_starting_at_once_make_one_ring(tmp_path: Path, clock: SettableClock) -> None:
    """Whoever comes second uses what the first has made."""
    rings: list[Keyring] = []
    threads = [threading.Thread(target=lambda: rings.append(key_file(tmp_path, clock).open())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({ring.signing_key().kid for ring in rings}) == 1


def test_j19_p8_a_key_is_published_before_it_signs_and_kept_until_its_last_token_is_dead(
    tmp_path: Path, clock: SettableClock
) -> None:
    """Three rotations: every token verifies with the JWKS of the moment before, and nobody is signed out."""
    file = key_file(tmp_path, clock)
    ring = file.open()
    coat = Coatcheck(keyring=ring, clock=clock)
    session = run(coat.sessions.create("ann"))
    refresh = run(coat.sessions.issue(session)).refresh_token
    for _ in range(3):
        published_before = {str(key["kid"]) for key in ring.jwks()["keys"]}
        old = run(coat.sessions.issue(session)).access_token
        clock.advance(PUBLISH_AHEAD)
        ring.adopt(file.rotate())
        assert ring.signing_key().kid in published_before
        coat.verifier.verify(old)
        grant = run(coat.sessions.refresh(refresh))
        coat.verifier.verify(grant.access_token)
        refresh = grant.refresh_token


def test_p8_rotating_too_early_is_refused(tmp_path: Path, clock: SettableClock) -> None:
    """A verifier with yesterday's JWKS must know the key that signs today."""
    file = key_file(tmp_path, clock)
    file.open()
    clock.advance(PUBLISH_AHEAD - timedelta(seconds=10))
    with pytest.raises(ConfigurationError, match="try again in 10 s"):
        file.rotate()
    file.rotate(published_for=timedelta(0))


def test_a_retired_key_is_forgotten_when_nothing_it_signed_can_be_alive(tmp_path: Path, clock: SettableClock) -> None:
    """P9: the file does not grow for ever."""
    file = key_file(tmp_path, clock)
    ring = file.open()
    for _ in range(20):
        clock.advance(timedelta(hours=2))
        ring = file.rotate()
    assert len(ring.retired) == 1


def test_a_running_process_adopts_what_changed(tmp_path: Path, clock: SettableClock) -> None:
    """`changed` costs a stat while nothing happens, and gives the new ring when something did."""
    running, console = key_file(tmp_path, clock), key_file(tmp_path, clock)
    ring = running.open()
    assert running.changed() is None
    clock.advance(PUBLISH_AHEAD)
    console.rotate()
    found = running.changed()
    assert found is not None
    ring.adopt(found)
    assert running.changed() is None
    assert len(ring.retired) == 1


def test_a_dropped_key_is_not_honoured_after_adoption(tmp_path: Path, clock: SettableClock) -> None:
    """What the ring forgot verifies nothing, also where its header was seen before."""
    ring = Keyring(Key.generate("ES256"), secret=b"0123456789abcdef" * 2 + bytes(range(32)))
    coat = Coatcheck(keyring=ring, clock=clock)
    token = run(coat.sessions.issue(run(coat.sessions.create("ann")))).access_token
    coat.verifier.verify(token)
    ring.adopt(key_file(tmp_path, clock).open())
    with pytest.raises(BadSignature):
        coat.verifier.verify(token)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":2,"secret":"","keys":[]}', b"\xff\xfe", b"{}"])
def test_a_damaged_file_is_a_clear_error_and_stays_as_it_is(
    tmp_path: Path, clock: SettableClock, content: bytes
) -> None:
    """It may be all that somebody has left of their keys: it is never overwritten."""
    file = key_file(tmp_path, clock)
    file.path.write_bytes(content)
    file.path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        file.open()
    assert file.path.read_bytes() == content


def test_j4_a_file_with_a_weak_key_is_refused_with_that_reason(tmp_path: Path, clock: SettableClock) -> None:
    """It was called damaged, which leads nobody to the key."""
    file = key_file(tmp_path, clock, "HS256")
    file.open()
    stored = json.loads(file.path.read_bytes())
    stored["keys"][0]["jwk"]["k"] = "c2VjcmV0"
    file.path.write_text(json.dumps(stored))
    with pytest.raises(ConfigurationError, match="32") as raised:
        key_file(tmp_path, clock, "HS256").open()
    assert "damaged" not in str(raised.value)


def test_p8_a_token_outlives_every_rotation_that_is_not_too_early(tmp_path: Path, clock: SettableClock) -> None:
    """Rotated as often as it may be, the key of the longest-lived token is there until that has expired."""
    file = key_file(tmp_path, clock)
    coat = Coatcheck(keyring=file.open(), policy=Policy(access_lifetime=timedelta(hours=1)), clock=clock)
    clock.advance(PUBLISH_AHEAD)
    token = run(coat.sessions.issue(run(coat.sessions.create("ann")))).access_token
    for _ in range(timedelta(hours=1) // PUBLISH_AHEAD):
        coat.keyring.adopt(file.rotate())
        assert coat.verifier.verify(token).subject == "ann"
        clock.advance(PUBLISH_AHEAD)
