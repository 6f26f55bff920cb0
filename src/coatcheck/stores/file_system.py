"""Files that are written whole or not at all, and locks that are the files themselves.

A lock is `flock` on the file that it protects, so no lock files are left behind. As a writer renames a new file
over the old one, whoever waited for the old one's lock compares what it got with what now has the name, and tries
again. flock belongs to the open file, so it works between threads as well as between processes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from coatcheck.errors import StoreUnavailable

TEMPORARY = ".tmp-"
_PATIENCE = 5.0  # seconds that a lock is waited for: a stopped process must not stop all the others (P9)
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def make_directories(*paths: str) -> None:
    """Make directories of one parent that are nobody else's, durably, where they are not there."""
    made = ""
    for path in paths:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        os.chmod(path, 0o700)  # whatever the umask
        made = path
    if made:
        sync_directory(os.path.dirname(made))


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, _READ_FLAGS | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_file(path: str) -> bytes | None:
    """Return a file's content, or None if there is no such file."""
    try:
        file = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    try:
        return read_all(file)
    finally:
        os.close(file)


def read_all(file: int) -> bytes:
    """Return the content of an open file, from its beginning."""
    return os.pread(file, os.fstat(file).st_size, 0)


def write_new(path: str, content: bytes) -> bool:
    """Write a file durably if there is none of that name yet, and say whether that was so."""
    with _temporary(path, content) as temporary:
        os.fsync(temporary.file)
        try:
            os.link(temporary.path, path)  # unlike rename, it never replaces
        except FileExistsError:
            return False
    sync_directory(os.path.dirname(path))
    return True


def write_over(path: str, content: bytes) -> None:
    """Replace a file durably and in one step."""
    with _temporary(path, content) as temporary:
        os.fsync(temporary.file)
        os.rename(temporary.path, path)
    sync_directory(os.path.dirname(path))


def write_over_lightly(path: str, content: bytes) -> None:
    """Replace a file in one step; a power cut may undo it."""
    with _temporary(path, content) as temporary:
        os.rename(temporary.path, path)


def remove_stale(path: str) -> None:
    """Remove a temporary file whose writer is gone: a living one holds its lock."""
    try:
        file = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_name(path)
    except BlockingIOError:
        pass
    finally:
        os.close(file)


def remove_name(path: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def locked(path: str) -> Generator[int | None]:
    """Hold a file's lock against everybody, and give the open file, or None if there is no such file.

    Raises:
        StoreUnavailable: somebody else held it for 5 seconds.
    """
    file = open_locked(path, os.O_RDWR, fcntl.LOCK_EX)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def open_locked(path: str, flags: int, how: int) -> int | None:
    """Return an open file that has the name `path` while its lock is held; closing it lets the lock go.

    Args:
        path: the file's path.
        flags: those of `os.open`.
        how: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.

    Raises:
        StoreUnavailable: somebody else held it for 5 seconds.
    """
    while True:
        try:
            file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            return None
        try:
            _wait_for(file, how)
            if _is_at(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


class _Temporary:
    __slots__ = ("file", "path")

    def __init__(self, directory: str) -> None:
        while True:
            self.path = os.path.join(directory, TEMPORARY + secrets.token_hex(8))
            self.file = os.open(self.path, _NEW_FLAGS, 0o600)
            fcntl.flock(self.file, fcntl.LOCK_EX)  # its writer lives: see remove_stale, which may come first
            if _is_at(self.file, self.path):
                return
            os.close(self.file)


@contextmanager
def _temporary(path: str, content: bytes) -> Generator[_Temporary]:
    temporary = _Temporary(os.path.dirname(path))
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(temporary.file, left) :]
        yield temporary
    finally:
        remove_name(temporary.path)
        os.close(temporary.file)


def _wait_for(file: int, how: int) -> None:
    deadline, pause = time.monotonic() + _PATIENCE, 0.0005
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise StoreUnavailable("the store is busy: a lock was not free within 5 s")
        time.sleep(pause)
        pause = min(pause * 2, 0.01)


def _is_at(file: int, path: str) -> bool:
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), named)
