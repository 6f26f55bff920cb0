"""Reserve: disk space held back, so that sessions can still be revoked when the disk is full.

Even a deletion needs room in SQLite's log, and the log gets its room back only if what it holds can move into the
database. So a file of no meaning lies next to the database; it is removed when the disk is full, and made again
once there is room. Without it nothing is written but revocations.
"""

from __future__ import annotations

import os

_SIZE = 1 << 20  # as much as the log holds between two checkpoints
_SHARE = 4  # at most this part of what is free: a small disk is not filled by its reserve


class Reserve:
    """The reserve of one database file.

    Args:
        path: where it lies.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def held(self) -> bool:
        """Say whether it is there, after making it if there is room."""
        if os.path.exists(self._path):
            return True
        try:
            free = os.statvfs(os.path.dirname(self._path))
            size = min(_SIZE, free.f_bavail * free.f_frsize // _SHARE)
            return size >= free.f_frsize and self._make(size)
        except OSError:
            return False

    def release(self) -> None:
        """Give its room to who needs it now."""
        try:
            os.unlink(self._path)
        except OSError:
            return

    def _make(self, size: int) -> bool:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return True  # another process was first
        try:
            left = memoryview(os.urandom(size))  # a file system that compresses has to hold all of it
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            self.release()
            return False
        finally:
            os.close(file)
        return True
