"""P4: damaged storage. Whatever octets are flipped: never another's session, never an error but StoreUnavailable."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from coatcheck.core.record import Device, Record, pack
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.stores import encoding
from coatcheck.stores.encoding import id_octets, protect, unprotect
from coatcheck.stores.file import FileStore
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import following

T = TypeVar("T")
SEEDS = 250

RECORDS = [
    make_record(subject, data={"cart": pack([n] * n)}, device=Device("Mozilla/5.0", f"203.0.113.{n}"))
    for n in range(12)
    for subject in ("alice", "alicf", None)
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.db"
    fill(SQLiteStore(path))
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store"
    fill(FileStore(path))
    return path


def fill(store: Store) -> None:
    for record in RECORDS:
        assert run(store.create(record))
    run(store.revoke_subject("bob", START))
    run(store.close())


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2, 30))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def outcome(work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
    """Return what the store says, or None where it says that it is damaged."""
    try:
        return run(work())
    except StoreUnavailable:
        return None


def whose(record: Record) -> tuple[object, ...]:
    return (record.id, record.digest, record.subject, record.ends_at, record.data, record.device, record.successor)


def require_nobody_elses(store: Store) -> int:
    """Use the store, hold all that it returns against the truth, and return how many records it could tell."""
    truth = {record.id: whose(record) for record in RECORDS}
    told = 0
    for record in RECORDS:
        loaded = outcome(lambda record=record: store.load(record.id))  # type: ignore[misc]
        if loaded is not None:
            assert whose(loaded) == truth[record.id]
            told += 1
    for subject in ("alice", "alicf"):
        for listed in outcome(lambda subject=subject: store.list(subject)) or []:  # type: ignore[misc]
            assert listed.subject == subject
            assert whose(listed) == truth[listed.id]
    outcome(lambda: store.touch(RECORDS[0].id, START + 1, START + 1))
    outcome(lambda: store.replace(following(RECORDS[0])))
    outcome(lambda: store.create(make_record("bob")))
    removed = outcome(lambda: store.delete(RECORDS[1].id))
    assert removed is None or whose(removed) == truth[RECORDS[1].id]
    outcome(lambda: store.revoke_subject("alice", START))
    outcome(lambda: store.sweep(START))
    outcome(store.close)
    return told


def test_flipped_octets_of_a_database_are_never_anothers_session(database: Path, tmp_path: Path) -> None:
    told = 0
    for seed in range(SEEDS):
        path = tmp_path / f"{seed}.db"
        shutil.copyfile(database, path)
        flip(path, random.Random(seed))  # noqa: S311 (a seed is to be repeatable)
        store = SQLiteStore(path)
        try:
            outcome(store.open)
        except ConfigurationError:
            continue  # the damage reads as a newer version of the schema: refused as well
        told += require_nobody_elses(store)
    assert 0 < told < SEEDS * len(RECORDS)


def test_flipped_octets_of_files_are_never_anothers_session(directory: Path, tmp_path: Path) -> None:
    told = 0
    for seed in range(SEEDS // 5):
        chance = random.Random(seed)  # noqa: S311 (as above)
        path = tmp_path / str(seed)
        shutil.copytree(directory, path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
        for file in files:
            if chance.random() < 0.5:
                flip(file, chance)
        told += require_nobody_elses(FileStore(path))
    assert 0 < told < SEEDS // 5 * len(RECORDS)


def test_every_flipped_bit_of_a_record_is_found() -> None:
    record = make_record("alice")
    stored = protect(record.encode(), b"context")
    assert unprotect(stored, b"context") == record.encode()
    for bit in range(len(stored) * 8):
        flipped = bytearray(stored)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreUnavailable, match="damaged"):
            unprotect(bytes(flipped), b"context")


@pytest.mark.parametrize("length", range(5))
def test_a_record_that_was_cut_off_is_found(length: int) -> None:
    stored = protect(make_record("alice").encode(), b"context")
    for cut in (stored[:length], stored[: len(stored) - 1 - length]):
        with pytest.raises(StoreUnavailable, match="damaged"):
            unprotect(cut, b"context")


def test_what_is_anothers_is_found() -> None:
    with pytest.raises(StoreUnavailable, match="damaged"):
        unprotect(protect(b"content", b"alice"), b"alicf")


def test_p9_what_is_no_id_is_not_remembered() -> None:
    """Ids that come again are not decoded again; what somebody sends instead of one takes no memory."""
    id = make_record().id
    assert id_octets(id) == id_octets(id) != b""
    before = encoding._octets.cache_info()
    assert before.maxsize is not None
    for name in ("", "x" * 21, "x" * 100_000):
        assert id_octets(name) is None
    assert encoding._octets.cache_info() == before
