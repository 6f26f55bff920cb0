"""Whatever way the tests end, a SIGKILL included, what they have started ends with them.

A small process of its own is told which processes and folders are there, on a pipe that nobody else holds. When the
pipe ends, it kills and removes what is left.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import IO

_PROGRAM = """
import os, shutil, signal, sys
left = set()
for line in sys.stdin:
    verb, what = line.rstrip("\\n").split(" ", 1)
    (left.add if verb == "watch" else left.discard)(what)
for what in sorted(left, reverse=True):  # digits come after "/": processes first
    if what.startswith("/"):
        shutil.rmtree(what, ignore_errors=True)
        continue
    try:
        os.kill(int(what), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def watch(what: int | Path) -> None:
    """See to the end of a process, or of a folder with all that is in it."""
    _tell("watch", what)


def forget(what: int | Path) -> None:
    """It has ended."""
    _tell("forget", what)


def _tell(verb: str, what: int | Path) -> None:
    _pipe().write(f"{verb} {what}\n")
    _pipe().flush()


@cache
def _pipe() -> IO[str]:
    # A session of its own: what is typed at the terminal to end the tests does not end it.
    command = [sys.executable, "-S", "-E", "-c", _PROGRAM]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    pipe = process.stdin
    assert pipe is not None
    # A forked process that outlives the tests would hold the pipe open.
    os.register_at_fork(after_in_child=lambda: os.close(pipe.fileno()))
    atexit.register(process.communicate)
    return pipe
