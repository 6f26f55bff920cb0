"""Forked processes for tests: they use what was made before, and die with the test."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator

import pytest

Spawn = Callable[[Callable[[], object]], int]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Run a function in a forked process of its own, and return the process id; what is left over is killed."""
    children: list[int] = []

    def spawn(work: Callable[[], object]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other tests' threads: the child uses none of theirs
            child = os.fork()
        if child:
            children.append(child)
            return child
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 (this process ends here, whatever it was)
            traceback.print_exc()
        finally:
            os._exit(status)

    yield spawn
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def finish(child: int) -> int:
    """Wait for a process, and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def together(spawn: Spawn) -> Callable[..., list[int]]:
    """Run functions at once, each in a process of its own, and return their exit codes."""

    def together(*works: Callable[[], object]) -> list[int]:
        return [finish(child) for child in [spawn(work) for work in works]]

    return together
