"""FileStore: one file per record, for a few processes on one machine that want no database (POSIX only).

    <directory>/records/<2 hex>/<32 hex>             a record: its encoding and a checksum
    <directory>/subjects/<SHA-256 of the subject>/
        cutoff                                       the subject's cut-off; its lock is the subject's
        <32 hex>                                     a hint that the subject may have this record

The record is the truth, a marker only a hint: it is written before its record and removed after it. `create`
holds the subject's lock together with others, `revoke_subject` holds it alone: so a sign-in is either seen by
a sign-out everywhere, or sees it. Locks are taken in this order: subject, record.
"""

from __future__ import annotations

import builtins
import fcntl
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import offload
from coatcheck.store import Durability, Page
from coatcheck.stores import file_system as fs
from coatcheck.stores.encoding import id_octets, protect, unprotect
from coatcheck.stores.merging import CUTOFF_MEMORY, forward, succeed
from coatcheck.stores.walking import PAGE, read_page

T = TypeVar("T")

_RECORD_NAME = re.compile(r"[0-9a-f]{32}")
_CUTOFF = "cutoff"
_SHARDS = [f"{number:02x}" for number in range(256)]


class FileStore:
    """A store in a directory of its own, which nobody else may read. It survives `kill -9`.

    Args:
        directory: made, with its parents, if it is not there.

    Raises:
        ConfigurationError: it is no path.
    """

    durability: Durability = "crash-safe"

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        path = os.fspath(directory)
        if not path or "\0" in path:
            raise ConfigurationError("a file store needs the path of a directory")
        self._root = os.path.abspath(path)
        self.directory = Path(self._root)
        self._records = os.path.join(self._root, "records")
        self._subjects = os.path.join(self._root, "subjects")
        self._ready = False

    async def open(self) -> None:
        """Make the directories; see `Store.open`."""
        await self._do(lambda: None)

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    async def create(self, record: Record) -> bool:
        """Store a new record; see `Store.create`."""
        return await self._do(partial(self._create, record))

    async def load(self, id: str) -> Record | None:
        """Return a record, or None; see `Store.load`."""
        return await self._do(partial(self._load, id_octets(id)))

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        return await self._do(partial(self._replace, record))

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        await self._do(partial(self._touch, id_octets(id), seen_at, expires_at))

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; a damaged one is removed too, but not returned; see `Store.delete`.

        Raises:
            StoreUnavailable: what was removed was damaged, so it cannot be told where its session went.
        """
        return await self._do(partial(self._delete, id_octets(id)))

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`.

        Raises:
            StoreUnavailable: one of them is damaged: a shorter list would not be the truth.
        """
        return await self._do(partial(self._list, subject))

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records, damaged ones too; see `Store.revoke_subject`."""
        kept = id_octets(keep) if keep is not None else None
        return await self._do(partial(self._revoke_subject, subject, before, kept))

    async def sweep(self, now: int) -> int:
        """Remove expired records, and what killed writers left; see `Store.sweep`. Damaged records stay."""
        removed = 0
        for shard in _SHARDS:
            removed += await self._do(partial(self._sweep_shard, shard, now))
        for directory in await self._do(partial(os.listdir, self._subjects)):
            await self._do(partial(self._sweep_subject, directory, now))
        return removed

    async def walk(self) -> AsyncIterator[Page]:
        """Yield every record; see `Walkable.walk`."""
        for shard in _SHARDS:
            names = await self._do(partial(self._names, shard))
            for start in range(0, len(names), PAGE):
                yield await self._do(partial(self._page, names[start : start + PAGE]))

    async def size(self) -> int:
        """Return how many records there are; see `Walkable.size`."""
        return await self._do(lambda: sum(len(self._names(shard)) for shard in _SHARDS))

    # -- one step each, in a thread where there is an event loop ---------------------------------------------

    async def _do(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                if self._ready:
                    os.stat(self._records)  # a store that is not mounted is down, not empty (P6)
                else:
                    self._prepare()
                return work()
            except OSError as error:
                raise StoreUnavailable(f"the store's files cannot be used: {error.strerror}") from error

        return await offload(guarded)

    def _prepare(self) -> None:
        os.makedirs(os.path.dirname(self._root), exist_ok=True)
        fs.make_directories(self._root)
        fs.make_directories(self._records, self._subjects)
        fs.make_directories(*(os.path.join(self._records, shard) for shard in _SHARDS))
        self._ready = True

    def _create(self, record: Record) -> bool:
        octets = id_octets(record.id)
        if octets is None:
            return False
        path, content = self._path(octets), protect(record.encode(), octets)
        if record.subject is None:
            return fs.write_new(path, content)
        with self._subject(record.subject, fcntl.LOCK_SH) as (directory, cutoff):
            if record.created_at < _read_cutoff(cutoff, directory):
                return False
            _mark(os.path.join(directory, octets.hex()))
            return fs.write_new(path, content)

    def _load(self, octets: bytes | None) -> Record | None:
        content = fs.read_file(self._path(octets)) if octets is not None else None
        return _decode(octets, content) if octets is not None and content is not None else None

    def _replace(self, record: Record) -> bool:
        octets = id_octets(record.id)
        if octets is None:
            return False
        path = self._path(octets)
        with fs.locked(path) as file:
            if file is None:
                return False
            following = succeed(_decode(octets, fs.read_all(file)), record)
            if following is None:
                return False
            fs.write_over(path, protect(following.encode(), octets))
            return True

    def _touch(self, octets: bytes | None, seen_at: int, expires_at: int) -> None:
        if octets is None:
            return
        path = self._path(octets)
        with fs.locked(path) as file:
            if file is None:
                return
            stored = _decode(octets, fs.read_all(file))
            following = forward(stored, seen_at, expires_at)
            if following is not stored:
                fs.write_over_lightly(path, protect(following.encode(), octets))

    def _delete(self, octets: bytes | None) -> Record | None:
        if octets is None:
            return None
        path = self._path(octets)
        with fs.locked(path) as file:
            if file is None:
                return None
            content = fs.read_all(file)
            os.unlink(path)
        fs.sync_directory(os.path.dirname(path))
        removed = _decode(octets, content)
        if removed.subject is not None:
            # It is gone; that a hint may stay for the next sweep is no failure.
            with (
                suppress(StoreUnavailable, OSError),
                self._subject(removed.subject, fcntl.LOCK_EX) as (directory, _),
            ):
                self._unmark(directory, octets)
        return removed

    def _names(self, shard: str) -> builtins.list[str]:
        names = os.listdir(os.path.join(self._records, shard))
        return [name for name in names if _RECORD_NAME.fullmatch(name)]

    def _page(self, names: builtins.list[str]) -> Page:
        found = [(base64url.encode(octets), octets) for octets in map(bytes.fromhex, names)]
        return read_page(found, lambda _, octets: self._load(octets))

    def _list(self, subject: str) -> builtins.list[Record]:
        found = (self._load(octets) for octets in _marked(self._subject_directory(subject)))
        return [record for record in found if record is not None and record.subject == subject]

    def _revoke_subject(self, subject: str, before: int, kept: bytes | None) -> builtins.list[str]:
        with self._subject(subject, fcntl.LOCK_EX) as (directory, cutoff):
            _advance_cutoff(cutoff, directory, before)
            doomed = [octets for octets in _marked(directory) if octets != kept]
            removed = {octets: self._remove_of(subject, octets) for octets in doomed}
            for shard in {os.path.dirname(self._path(octets)) for octets, what in removed.items() if what != "nothing"}:
                fs.sync_directory(shard)
            for octets in doomed:
                fs.remove_name(os.path.join(directory, octets.hex()))
        return [base64url.encode(octets) for octets, what in removed.items() if what == "session"]

    def _remove_of(self, subject: str, octets: bytes) -> Literal["session", "stump", "nothing"]:
        path, stump = self._path(octets), False
        with fs.locked(path) as file:
            if file is None:
                return "nothing"
            try:
                record = _decode(octets, fs.read_all(file))
                stump = record.successor is not None
                if record.subject != subject:
                    return "nothing"
            except StoreUnavailable:
                pass  # the marker says whose it was: dead is final, readable or not
            os.unlink(path)
            return "stump" if stump else "session"

    # -- sweeping --------------------------------------------------------------------------------------------

    def _sweep_shard(self, shard: str, now: int) -> int:
        directory, removed = os.path.join(self._records, shard), 0
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.startswith(fs.TEMPORARY):
                fs.remove_stale(path)
            elif _RECORD_NAME.fullmatch(name):
                removed += self._sweep_record(bytes.fromhex(name), now)
        return removed

    def _sweep_record(self, octets: bytes, now: int) -> int:
        try:
            record = self._load(octets)
            if record is None or record.expires_at > now:
                return 0
            path = self._path(octets)
            with fs.locked(path) as file:
                if file is None or _decode(octets, fs.read_all(file)).expires_at > now:
                    return 0
                os.unlink(path)
        except StoreUnavailable:
            return 0  # damaged, or busy: it must not keep the others alive
        return 1

    def _sweep_subject(self, name: str, now: int) -> None:
        """Remove hints that lead nowhere, and a cut-off that nothing needs."""
        directory = os.path.join(self._subjects, name)
        try:
            with fs.locked(os.path.join(directory, _CUTOFF)) as cutoff:
                if cutoff is None:
                    os.rmdir(directory)  # a sweep was killed half-way
                    return
                for octets in _marked(directory):
                    self._unmark(directory, octets)
                before = _read_cutoff(cutoff, directory)
                if before >= now - CUTOFF_MEMORY:
                    return
                if os.listdir(directory) == [_CUTOFF]:
                    os.unlink(os.path.join(directory, _CUTOFF))
                    os.rmdir(directory)
                elif before:
                    _write_cutoff(cutoff, directory, 0)
        except (StoreUnavailable, OSError):
            pass  # damaged, busy, or in use again: the others are swept

    # -- names -----------------------------------------------------------------------------------------------

    def _path(self, octets: bytes) -> str:
        name = octets.hex()
        return os.path.join(self._records, name[:2], name)

    def _subject_directory(self, subject: str) -> str:
        digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()
        return os.path.join(self._subjects, digest)

    @contextmanager
    def _subject(self, subject: str, how: int) -> Generator[tuple[str, int]]:
        """Hold a subject's lock, and give its directory and its open cut-off."""
        directory = self._subject_directory(subject)
        while (cutoff := _open_cutoff(directory, how)) is None:
            fs.make_directories(directory)
        try:
            if not os.fstat(cutoff).st_size:
                _write_cutoff(cutoff, directory, 0)  # it has its room from now on; all who do this write the same
            yield directory, cutoff
        finally:
            os.close(cutoff)

    def _unmark(self, directory: str, octets: bytes) -> None:
        if not os.path.exists(self._path(octets)):  # the id may have been given again meanwhile
            fs.remove_name(os.path.join(directory, octets.hex()))


def _decode(octets: bytes, content: bytes) -> Record:
    record = Record.decode(unprotect(content, octets))
    if record.id != base64url.encode(octets):
        raise StoreUnavailable("store damaged: a record under another's name")
    return record


def _open_cutoff(directory: str, how: int) -> int | None:
    # The directory's own lock is a gate: it is held only while the cut-off's is waited for, so that a sign-out
    # everywhere, which has to be alone, has its turn however many sign-ins come.
    gate = fs.open_locked(directory, os.O_RDONLY | os.O_DIRECTORY, fcntl.LOCK_EX)
    if gate is None:
        return None
    try:
        return fs.open_locked(os.path.join(directory, _CUTOFF), os.O_RDWR | os.O_CREAT, how)
    finally:
        os.close(gate)


def _marked(directory: str) -> list[bytes]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [bytes.fromhex(name) for name in names if _RECORD_NAME.fullmatch(name)]


def _mark(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    fs.sync_directory(os.path.dirname(path))


def _read_cutoff(file: int, directory: str) -> int:
    content = fs.read_all(file)
    if not content:
        return 0
    return int.from_bytes(unprotect(content, os.path.basename(directory).encode()), "big", signed=True)


def _advance_cutoff(file: int, directory: str, before: int) -> None:
    # Where it is damaged every create was refused until now; from now on those before this one are.
    with suppress(StoreUnavailable):
        before = max(before, _read_cutoff(file, directory))
    _write_cutoff(file, directory, before)
    os.fsync(file)


def _write_cutoff(file: int, directory: str, before: int) -> None:
    # In place, in room taken by the subject's first sign-in: a full disk cannot keep anybody signed in.
    os.pwrite(file, protect(before.to_bytes(8, "big", signed=True), os.path.basename(directory).encode()), 0)
