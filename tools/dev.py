"""Everything a developer or a CI machine runs: `python3 tools/dev.py setup|run|test|soak|lint|bench|lock [arguments]`.

Needs Python 3.11 or later and pip (or uv); the rest goes into the clone, by the hashes in requirements/.
An environment is made anew only when its lock, pyproject.toml or the interpreter has changed.
"""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  an older interpreter can read this far, and is told so in words
    sys.exit("dev: Python 3.11 or later is needed; try: python3.11 tools/dev.py ... or make PYTHON=python3.11 ...")

import contextlib
import fcntl
import hashlib
import itertools
import shutil
import subprocess
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import browser

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
REQUIREMENTS = ROOT / "requirements"
BENCHMARKS = ROOT / "benchmarks"
PYPROJECT = ROOT / "pyproject.toml"
BASE_PYTHON: str = getattr(sys, "_base_executable", None) or sys.executable

Command = Sequence[str | Path]


class Failure(Exception):
    """An expected failure; the message is all that the reader needs."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the lock that says what is in it."""

    folder: Path
    lock: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.folder / "coatcheck-stamp"


# Three environments: `run` installs only what the server needs, and nobody but `bench` needs other people's libraries.
RUN = Environment(ROOT / ".venv-run", REQUIREMENTS / "run.txt")
DEV = Environment(ROOT / ".venv", REQUIREMENTS / "dev.txt")
BENCH = Environment(ROOT / ".venv-bench", REQUIREMENTS / "bench.txt")

CHECKS: tuple[tuple[str, ...], ...] = (
    ("ruff", "format", "--check"),
    ("ruff", "check"),
    ("mypy",),
    ("pyright",),
)

# Packages younger than this are not taken into a lock: bad releases are mostly found out within days.
COOL_DOWN = "7 days"
# A lock is for this Python and all later ones, whichever of them makes it: what differs between them gets a marker.
OLDEST_PYTHON = "3.11"
LOCKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("uv.txt", ("--group", "bootstrap")),
    ("run.txt", ("pyproject.toml", "--extra", "server", "--extra", "redis", "--extra", "postgres")),
    (
        "dev.txt",
        ("pyproject.toml", "--extra", "all", "--group", "dev", "--constraint", "requirements/run.txt"),
    ),
    (
        "bench.txt",
        ("pyproject.toml", "--extra", "all", "--group", "bench", "--constraint", "requirements/dev.txt"),
    ),
)


# -- verbs


def setup(arguments: Sequence[str]) -> int:
    """Make the development environment and find a browser."""
    _no_more(arguments)
    prepare(DEV)
    say(f"the browser tests use {provide_browser()}")
    return 0


def run(arguments: Sequence[str]) -> int:
    """Start the server: `coatcheck serve` with the arguments given."""
    prepare(RUN)
    program = RUN.folder / "bin" / "coatcheck"
    sys.stdout.flush()
    os.execv(program, [str(program), "serve", *arguments])  # noqa: S606  no shell is wanted


def test(arguments: Sequence[str]) -> int:
    """Run the linters, the type checkers and all tests; the arguments go to pytest."""
    prepare(DEV)
    with ThreadPoolExecutor(1) as pool:
        chromium = pool.submit(provide_browser)  # apt-get takes its time: the checks run meanwhile
        checks = check()
        os.environ[browser.VARIABLE] = str(chromium.result())
    # A third of the time a test waits for a server. A file stays with one worker, and so do its module's fixtures.
    workers = ("-n", "3", "--dist", "loadfile")
    command: Command = [DEV.python, "-m", "pytest", *workers, *arguments]
    return subprocess.run(command, check=False, cwd=ROOT).returncode or checks


def soak(arguments: Sequence[str]) -> int:
    """Run the long tests and print their figures; COATCHECK_SOAK_MINUTES (5) says how long in all."""
    prepare(DEV)
    # Some of them take longer by themselves than a test of the others may.
    command: Command = [DEV.python, "-m", "pytest", "tests/soak", "-o", "faulthandler_timeout=1800", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


def lint(arguments: Sequence[str]) -> int:
    """Run the linters and the type checkers."""
    _no_more(arguments)
    prepare(DEV)
    return check()


def bench(arguments: Sequence[str]) -> int:
    """Compare with others, side by side: `bench`, or `bench million --count 100000`; see docs/benchmarks.md."""
    prepare(BENCH)
    known = tuple(sorted(file.stem for file in BENCHMARKS.glob("*.py")))
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    if unknown := set(named) - set(known):
        raise Failure(f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    for name in named or known:
        command: Command = [BENCH.python, BENCHMARKS / f"{name}.py", *arguments[len(named) :]]
        if failed := subprocess.run(command, check=False, cwd=ROOT).returncode:
            return failed
    return 0


def lock(arguments: Sequence[str]) -> int:
    """Write requirements/*.txt anew from pyproject.toml; `lock --upgrade` takes newer versions."""
    uv = find_uv()
    for name, sources in LOCKS:
        options = ("--output-file", f"requirements/{name}", "--exclude-newer", COOL_DOWN, *arguments)
        everywhere = ("--universal", "--python-version", OLDEST_PYTHON)
        hashes = ("--generate-hashes", "--custom-compile-command", "make lock")
        no_hosts = ("--no-emit-index-url", "--no-emit-find-links")
        compile_lock: Command = [uv, "pip", "compile", "--quiet", *sources, *everywhere, *hashes, *no_hosts, *options]
        quietly(compile_lock, f"locking {name}")
        text = (REQUIREMENTS / name).read_text(encoding="utf-8")
        if "://" in text:
            raise Failure(f"requirements/{name} names a place that packages come from; a lock must not")
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "setup": setup,
    "run": run,
    "test": test,
    "soak": soak,
    "lint": lint,
    "bench": bench,
    "lock": lock,
}


# -- environments


def prepare(environment: Environment) -> None:
    """Bring an environment to the state that its lock describes; costs nothing when it is there already."""
    if is_ready(environment):
        return
    with exclusive(environment.folder.name):
        if is_ready(environment):  # somebody else made it while we waited
            return
        started = time.monotonic()
        say(f"installing {environment.lock.relative_to(ROOT)} into {environment.folder.name}")
        install(environment)
        say(f"{environment.folder.name} is ready after {time.monotonic() - started:.1f} s")


def install(environment: Environment) -> None:
    uv = find_uv()
    if not environment.python.exists() or _stamped(environment)[:1] != [interpreter()]:
        venv.create(environment.folder, clear=True, symlinks=True)
    environment.stamp.unlink(missing_ok=True)
    target: Command = ("--python", environment.python)
    locked: Command = [uv, "pip", "sync", "--require-hashes", *target, environment.lock]
    quietly(locked, f"installing {environment.lock.name}")
    # uv builds the project itself (see pyproject's group `bootstrap`): no build backend is fetched, unhashed.
    quietly([uv, "pip", "install", "--no-deps", *target, "--editable", ROOT], "installing coatcheck itself")
    environment.stamp.write_text(f"{interpreter()}\n{contents(environment)}\n", encoding="utf-8")


def is_ready(environment: Environment) -> bool:
    expected = [interpreter(), contents(environment)]
    return environment.python.exists() and _stamped(environment) == expected


def interpreter() -> str:
    """Say which interpreter and which place an environment belongs to: it survives neither's change."""
    return f"{ROOT} {sys.base_prefix} {sys.version_info[:3]} {sys.implementation.name}"


def contents(environment: Environment) -> str:
    return hashlib.sha256(environment.lock.read_bytes() + PYPROJECT.read_bytes()).hexdigest()


def _stamped(environment: Environment) -> list[str]:
    try:
        return environment.stamp.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def find_uv() -> Path:
    """Return a uv of the pinned minor version: the one on PATH, or one of our own, installed by hash."""
    own = CACHE / "uv" / "bin" / "uv"
    on_path = shutil.which("uv")
    for candidate in (own, Path(on_path) if on_path else own):
        if _is_pinned_minor(candidate):
            return candidate
    with exclusive("uv"):
        if not _is_pinned_minor(own):
            _install_uv(own.parent.parent)
    return own


def _is_pinned_minor(uv: Path) -> bool:
    if not uv.exists():
        return False
    done = subprocess.run([uv, "--version"], check=False, capture_output=True, text=True)
    pinned = next(line for line in _lines(REQUIREMENTS / "uv.txt") if line.startswith("uv=="))
    minor = pinned.removeprefix("uv==").split()[0].rpartition(".")[0]
    return done.stdout.startswith(f"uv {minor}.")


def _install_uv(folder: Path) -> None:
    say("installing uv")
    has_pip = _quiet([BASE_PYTHON, "-m", "pip", "--version"]).returncode == 0
    try:
        venv.create(folder, clear=True, symlinks=True, with_pip=not has_pip)
    except subprocess.CalledProcessError:
        raise Failure("neither pip nor uv is here: install one (Debian: apt-get install python3-pip)") from None
    python = folder / "bin" / "python"
    pip: Command = [BASE_PYTHON, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
    quietly([*pip, "install", "--require-hashes", "-r", REQUIREMENTS / "uv.txt"], "installing uv")


def provide_browser() -> Path:
    with exclusive("browser"):
        try:
            return browser.provide(DEV.python)
        except browser.NoBrowser as error:
            raise Failure(str(error)) from None


# -- checks


def check() -> int:
    """Run all of CHECKS side by side, print what each one said, and return 0 only if all passed."""
    # pyright's wheel fetches a node where there is none: last on PATH, it finds that of Playwright's wheel.
    os.environ["PATH"] += os.pathsep + str(browser.playwright_node(DEV.python).parent)
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        results = list(pool.map(_check_one, CHECKS))
    failed: list[str] = []
    for command, result in zip(CHECKS, results, strict=True):
        name = " ".join(command)
        print(f"== {name}\n{result.stdout}", end="", flush=True)
        if result.returncode != 0:
            failed.append(name)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _check_one(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return _quiet([DEV.folder / "bin" / program, *arguments])


# -- processes


def child_environment() -> None:
    """Change this process's environment to what every child needs."""
    os.environ.pop("VIRTUAL_ENV", None)
    # uv's own root certificates know nothing of a company's proxy.
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")
    os.environ["UV_PYTHON"] = BASE_PYTHON  # uv need not search for interpreters
    if not _writable(Path(os.environ.get("HOME", "/nonexistent"))):
        home = CACHE / "home"
        home.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(home)
    # Otherwise pyright asks for its newest version each time.
    os.environ.setdefault("PYRIGHT_PYTHON_IGNORE_WARNINGS", "1")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def quietly(command: Command, what: str) -> None:
    """Run a command and show its output only if it fails; `what` names the step in the error."""
    done = _quiet(command)
    if done.returncode != 0:
        raise Failure(f"{what} failed:\n{done.stdout.strip()}")


def _quiet(command: Command) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
    )


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock that other dev.py processes of this clone wait for."""
    with (CACHE / f"{name}.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(message: str) -> None:
    print(f"dev: {message}", file=sys.stderr, flush=True)


def _no_more(arguments: Sequence[str]) -> None:
    if arguments:
        raise Failure(f"unexpected arguments: {' '.join(arguments)}")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def main(arguments: Sequence[str]) -> int:
    verb = VERBS.get(arguments[0]) if arguments else None
    if verb is None:
        print(f"usage: python3 tools/dev.py {'|'.join(VERBS)} [arguments]\n")
        for name, function in VERBS.items():
            print(f"  {name:6} {function.__doc__}")
        return 0 if arguments in (["help"], ["--help"], ["-h"]) else 2
    try:
        CACHE.mkdir(exist_ok=True)
        child_environment()
        return verb(arguments[1:])
    except (Failure, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
