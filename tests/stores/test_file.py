"""FileStore: what it leaves on the disk, and what it makes of what it finds there."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coatcheck.core import base64url
from coatcheck.core.record import pack
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import run
from coatcheck.stores import file_system
from coatcheck.stores.file import FileStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.contract import DAY, HOSTILE_IDS
from coatcheck.testing.records import following

Together = Callable[..., list[int]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FileStore:
    store = FileStore(root)
    run(store.open())
    return store


def record_file(root: Path, id: str) -> Path:
    name = base64url.decode(id).hex()
    return root / "records" / name[:2] / name


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


@contextmanager
def files_of_at_most(octets: int) -> Iterator[None]:
    """What a full disk does to a file store: files that are there can be written over, but nothing can grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def add_keys(store: FileStore, id: str, keys: range) -> None:
    for key in keys:
        while True:
            record = run(store.load(id))
            assert record is not None
            if run(store.replace(following(record, data={**record.data, str(key): pack(key)}))):
                break


def test_nobody_else_may_read_it_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        store = FileStore(root)
        record = make_record("alice")
        assert run(store.create(record))
        assert run(store.replace(following(record)))
        run(store.touch(record.id, START + 1, START + DAY))
        run(store.revoke_subject("bob", START))
    finally:
        os.umask(before)
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_no_id_never_becomes_a_path(store: FileStore, root: Path) -> None:
    before = set(root.parent.rglob("*"))
    for id in HOSTILE_IDS:
        assert not run(store.create(make_record(None, id=id)))
        assert run(store.load(id)) is None
        assert run(store.delete(id)) is None
    assert set(root.parent.rglob("*")) == before


def test_no_lock_or_temporary_file_is_left_behind(store: FileStore, root: Path) -> None:
    record = make_record("alice")
    run(store.create(record))
    assert not run(store.create(record))
    run(store.replace(following(record)))
    run(store.touch(record.id, START + 1, START + DAY))
    marker = base64url.decode(record.id).hex()
    assert {path.name for path in files(root)} == {marker, "cutoff"}
    run(store.delete(record.id))
    assert {path.name for path in files(root)} == {"cutoff"}
    run(store.sweep(START))
    assert files(root) == set()
    assert list((root / "subjects").iterdir()) == []


def test_two_processes_lose_no_write(store: FileStore, together: Together) -> None:
    record = make_record("alice")
    run(store.create(record))
    assert together(
        lambda: add_keys(store, record.id, range(50)), lambda: add_keys(store, record.id, range(50, 100))
    ) == [0, 0]
    stored = run(store.load(record.id))
    assert stored is not None
    assert len(stored.data) == 100


def test_a_sign_in_of_another_process_does_not_survive_a_sign_out_everywhere(
    store: FileStore, together: Together
) -> None:
    def sign_in() -> None:
        while run(store.create(make_record("alice", created_at=START))):
            pass

    assert together(sign_in, lambda: run(store.revoke_subject("alice", START + 1)), sign_in) == [0, 0, 0]
    assert run(store.list("alice")) == []


def test_sign_ins_queue_behind_a_sign_out_everywhere_that_waits(store: FileStore, root: Path) -> None:
    """However many sign-ins come, it has its turn: while it waits for those inside, the gate is shut."""
    record = make_record("alice")
    run(store.create(record))
    [directory] = (root / "subjects").iterdir()
    revoking = threading.Thread(target=lambda: run(store.revoke_subject("alice", START + 1)))
    gate = os.open(directory, os.O_RDONLY)
    with (directory / "cutoff").open() as inside:
        fcntl.flock(inside, fcntl.LOCK_SH)
        revoking.start()
        while not is_locked(gate):
            assert revoking.is_alive(), "it did not shut the gate"
        assert run(store.load(record.id)) == record
    revoking.join()
    os.close(gate)
    assert run(store.list("alice")) == []


def test_a_damaged_record_is_in_nobodys_way(store: FileStore, root: Path) -> None:
    damaged, expired = make_record("alice"), make_record("alice", expires_at=START)
    other = make_record("bob")
    for record in (damaged, expired, other):
        assert run(store.create(record))
    record_file(root, damaged.id).write_bytes(b"")
    for work in (
        lambda: run(store.load(damaged.id)),
        lambda: run(store.list("alice")),
        lambda: run(store.replace(following(damaged))),
    ):
        with pytest.raises(StoreUnavailable, match="damaged"):
            work()
    assert run(store.sweep(START)) == 1
    assert run(store.load(other.id)) == other
    assert run(store.list("bob")) == [other]
    assert record_file(root, damaged.id).exists()


def test_a_record_under_anothers_name_is_nobodys(store: FileStore, root: Path) -> None:
    alice, mallory = make_record("alice"), make_record("mallory")
    run(store.create(alice))
    run(store.create(mallory))
    record_file(root, mallory.id).write_bytes(record_file(root, alice.id).read_bytes())
    with pytest.raises(StoreUnavailable, match="damaged"):
        run(store.load(mallory.id))


def test_a_link_is_not_followed(store: FileStore, root: Path, tmp_path: Path) -> None:
    alice, other = make_record("alice"), make_record("bob")
    run(store.create(alice))
    elsewhere = tmp_path / "elsewhere"
    record_file(root, alice.id).rename(elsewhere)
    record_file(root, alice.id).symlink_to(elsewhere)
    with pytest.raises(StoreUnavailable):
        run(store.load(alice.id))
    run(store.create(other))
    assert run(store.load(other.id)) == other


def test_a_damaged_cut_off_refuses_sign_ins_until_it_is_set_again(store: FileStore, root: Path) -> None:
    run(store.revoke_subject("alice", START))
    [cutoff] = (root / "subjects").rglob("cutoff")
    content = bytearray(cutoff.read_bytes())
    content[3] ^= 1
    cutoff.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="damaged"):
        run(store.create(make_record("alice")))
    assert run(store.sweep(START + 10 * DAY)) == 0
    assert run(store.create(make_record("bob")))
    run(store.revoke_subject("alice", START))
    assert run(store.create(make_record("alice", created_at=START)))


def test_sweep_removes_temporary_files_of_dead_writers_only(store: FileStore, root: Path) -> None:
    dead, living = (root / "records" / "00" / f"{file_system.TEMPORARY}{name}" for name in ("dead", "living"))
    dead.write_bytes(b"half a rec")
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(store.sweep(START))
        assert not dead.exists()
        assert living.exists()
    run(store.sweep(START))
    assert not living.exists()


def test_sweep_removes_hints_that_lead_nowhere(store: FileStore, root: Path) -> None:
    """A writer that was killed between marker and record leaves a marker; it is listed as nothing and goes."""
    gone, kept = make_record("alice"), make_record("alice")
    for record in (gone, kept):
        run(store.create(record))
    record_file(root, gone.id).unlink()
    assert run(store.list("alice")) == [kept]
    run(store.sweep(START))
    [subject] = (root / "subjects").iterdir()
    assert {path.name for path in subject.iterdir()} == {"cutoff", base64url.decode(kept.id).hex()}


def test_a_store_that_is_not_mounted_is_down_not_empty(store: FileStore, root: Path) -> None:
    """P6: never "signed out", never a revocation that finds nothing; and it recovers without a restart."""
    record = make_record("alice")
    run(store.create(record))
    root.rename(root.with_name("away"))
    for work in (
        lambda: run(store.load(record.id)),
        lambda: run(store.delete(record.id)),
        lambda: run(store.list("alice")),
        lambda: run(store.revoke_subject("alice", START)),
        lambda: run(store.sweep(START)),
    ):
        with pytest.raises(StoreUnavailable):
            work()
    assert not root.exists()
    root.with_name("away").rename(root)
    assert run(store.load(record.id)) == record


def test_on_a_full_disk_the_old_record_stays_and_revoking_works(store: FileStore, root: Path) -> None:
    alice, bob = make_record("alice"), make_record("bob")
    run(store.create(alice))
    run(store.create(bob))
    with files_of_at_most(16):
        for work in (
            lambda: run(store.replace(following(alice, data={"key": pack("x" * 100)}))),
            lambda: run(store.touch(alice.id, START + 1, START + DAY)),
            lambda: run(store.create(make_record("carol"))),
        ):
            with pytest.raises(StoreUnavailable, match="cannot be used"):
                work()
        assert run(store.load(alice.id)) == alice
        assert run(store.revoke_subject("alice", START + 1)) == [alice.id]
        assert run(store.delete(bob.id)) == bob
    assert not run(store.create(make_record("alice", created_at=START)))
    assert run(store.create(make_record("carol")))
    assert not [path for path in files(root) if path.name.startswith(file_system.TEMPORARY)]


def test_a_lock_that_is_never_let_go_stops_nobody_for_ever(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: waiting times are bounded; other records are served meanwhile."""
    monkeypatch.setattr(file_system, "_PATIENCE", 0.02)
    record, other = make_record("alice"), make_record("bob")
    run(store.create(record))
    run(store.create(other))
    with record_file(root, record.id).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="busy"):
            run(store.replace(following(record)))
        assert run(store.load(record.id)) == record
        assert run(store.replace(following(other)))
    assert run(store.replace(following(record)))


def test_a_directory_that_cannot_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        run(FileStore(tmp_path / "file").open())
    with pytest.raises(StoreUnavailable):
        run(FileStore(tmp_path / "file" / "below").load("x"))
    for path in ("", "a\0b"):
        with pytest.raises(ConfigurationError):
            FileStore(path)
