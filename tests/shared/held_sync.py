"""HeldSync: a Valkey server whose log is being synced, for as long as a test wants.

A disk that is that slow cannot be had by asking for it. So the thread of the server that does nothing but sync its log
is stopped, as a debugger stops a thread (Linux).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from valkey_server import Valkey, wait_until

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_DETACH: Final = 17
_ANY_THREAD: Final = 0x40000000  # __WALL


class HeldSync:
    """Holds the next sync of a server whose `appendfsync` is `everysec`, and those after it."""

    def __init__(self, server: Valkey) -> None:
        assert server.process is not None
        self._server, self._thread = server, _syncing_thread(server.process.pid)
        self._held = False

    def __enter__(self) -> Self:
        _trace(_SEIZE, self._thread)
        _trace(_INTERRUPT, self._thread)
        os.waitpid(self._thread, _ANY_THREAD)
        self._held = True
        wait_until(self._is_syncing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let it sync."""
        if self._held:
            self._held = False
            _trace(_DETACH, self._thread)

    def kill(self) -> None:
        """Kill the server with -9."""
        assert self._server.process is not None
        self._server.process.kill()
        self._held = False
        os.waitpid(self._thread, _ANY_THREAD)
        self._server.kill()

    def _is_syncing(self) -> bool:
        """Write something, and say whether a sync has begun; it does once a second."""
        self._server.ask("SET", "something", "to be synced")
        return bool(self._server.ask("INFO", "persistence")["aof_pending_bio_fsync"])


def _syncing_thread(process: int) -> int:
    for thread in Path(f"/proc/{process}/task").iterdir():
        if (thread / "comm").read_text().strip().startswith("bio_aof"):
            return int(thread.name)
    raise AssertionError("no thread of the server syncs its log")


def _trace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
