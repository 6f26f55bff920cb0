"""Lock: who uses the data on this machine: servers and commands together, or a move alone.

A lock is `flock` on an empty file beside the data, `<data>-lock`. It goes with the process that holds it, however that
ends, and nobody waits: a move does not begin while a server runs, and a server does not start during a move.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from coatcheck.errors import ConfigurationError, Conflict

_IN_USE: Final = "a server, or another command, uses {}: stop it first"
_MOVING: Final = "`coatcheck migrate` is moving {}: wait until it is done"


@contextmanager
def shared(paths: Iterable[Path]) -> Generator[None, None, None]:
    """Use data together with others.

    Args:
        paths: the database, or the directory, of each piece of data.

    Raises:
        Conflict: it is being moved.
        ConfigurationError: its lock cannot be opened.
    """
    with _locked(paths, fcntl.LOCK_SH, _MOVING):
        yield


@contextmanager
def alone(paths: Iterable[Path]) -> Generator[None, None, None]:
    """Use data while nobody else does.

    Args:
        paths: as for `shared`.

    Raises:
        Conflict: somebody else does.
        ConfigurationError: its lock cannot be opened.
    """
    with _locked(paths, fcntl.LOCK_EX, _IN_USE):
        yield


@contextmanager
def _locked(paths: Iterable[Path], how: int, otherwise: str) -> Generator[None, None, None]:
    held: list[int] = []
    try:
        for path in sorted({Path(os.path.realpath(path)) for path in paths}):
            held.append(_open(path))
            _lock(held[-1], how, otherwise.format(path))
        yield
    finally:
        for file in held:
            os.close(file)


def _open(path: Path) -> int:
    lock = path.with_name(f"{path.name}-lock")
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{lock} cannot be opened: {error.strerror}") from None


def _lock(file: int, how: int, otherwise: str) -> None:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(otherwise) from None
