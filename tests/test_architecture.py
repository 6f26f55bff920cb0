"""The plan of the house, proved: what may import what, how large a room may be, what an import loads.

The tables come first; the tests read the syntax trees of src/coatcheck and hold them against the tables.
"""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

import coatcheck

SOURCE = Path(coatcheck.__file__).resolve().parent

# -- the tables

# Floor -> the modules that live there. A name stands for itself and for all below it; the package's own
# __init__ is "coatcheck" and stands for itself only.
FLOORS: dict[str, tuple[str, ...]] = {
    "errors": ("coatcheck.errors",),
    "core": ("coatcheck.core",),
    "desks": (
        "coatcheck.admission",
        "coatcheck.announcer",
        "coatcheck.boxes",
        "coatcheck.browser_side",
        "coatcheck.clock",
        "coatcheck.cookie_jar",
        "coatcheck.csrf_tokens",
        "coatcheck.documents",
        "coatcheck.ending",
        "coatcheck.events",
        "coatcheck.exchange",
        "coatcheck.feed",
        "coatcheck.flash",
        "coatcheck.follower",
        "coatcheck.issuer",
        "coatcheck.remote",
        "coatcheck.request_head",
        "coatcheck.run",
        "coatcheck.sealed_ends",
        "coatcheck.sealed_sessions",
        "coatcheck.session_cookies",
        "coatcheck.sessions",
        "coatcheck.standing",
        "coatcheck.store",
        "coatcheck.verifier",
    ),
    "keepers": ("coatcheck.stores", "coatcheck.feeds", "coatcheck.keyfile", "coatcheck.stored_ring"),
    "root": ("coatcheck.compose",),
    "inspection": ("coatcheck.inspection",),
    "audit": ("coatcheck.audit",),
    "telemetry": ("coatcheck.telemetry",),
    "web": ("coatcheck.web",),
    "public": ("coatcheck",),
    "testing": ("coatcheck.testing",),
    "comparison": ("coatcheck.comparison",),
    "server": ("coatcheck.server",),
    "cli": ("coatcheck.cli",),
}

# Floor -> the floors that its modules may import, besides their own. Each stands further up in this table.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "core": ("errors",),
    "desks": ("errors", "core"),
    "keepers": ("errors", "core", "desks"),
    "root": ("errors", "core", "desks", "keepers"),
    "inspection": ("errors", "core"),
    "audit": ("errors", "core", "inspection"),
    "telemetry": ("errors", "core", "desks", "root"),
    "web": ("errors", "core", "desks", "root"),
    "public": ("errors", "core", "desks", "keepers", "root"),
    "testing": ("errors", "core", "desks", "keepers", "root", "public"),
    "comparison": ("errors", "keepers", "web", "public"),
    "server": ("errors", "keepers", "web", "public", "comparison"),
    "cli": ("errors", "keepers", "inspection", "audit", "web", "public", "comparison", "server"),
}

# Documented as public, though their floor is closed: next door (server, cli) may use these too.
PUBLIC_MODULES = (
    "coatcheck.clock",
    "coatcheck.core.challenge",
    "coatcheck.core.cookies",
    "coatcheck.core.csrf",
    "coatcheck.core.redirects",
    "coatcheck.core.seal",
    "coatcheck.core.security_event",
    "coatcheck.core.status_list",
    "coatcheck.documents",
    "coatcheck.events",
    "coatcheck.feed",
    "coatcheck.follower",
    "coatcheck.remote.origin",
    "coatcheck.run",
    "coatcheck.store",
)
NEXT_DOOR = ("comparison", "server", "cli")

# All that judgement may lean on. What is not here counts as a clock, randomness, a file or a socket.
CORE_MAY_IMPORT = frozenset(
    {
        "__future__",
        "abc",
        "base64",
        "binascii",
        "collections",
        "cryptography",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "hmac",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "msgspec",
        "operator",
        "re",
        "threading",  # for its lock: threads share what was judged
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
        "warnings",
        "zlib",
    }
)
CORE_MAY_NOT_CALL = frozenset({"__import__", "compile", "eval", "exec", "input", "open", "print"})
CLOCKS = frozenset({"now", "today", "utcnow"})

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_FUNCTION_LINES_P90 = 25

# None of these is loaded by `import coatcheck` and the use of every public name.
NOT_LOADED = (
    "aiohttp",
    "argon2",
    "django",
    "fastapi",
    "flask",
    "httptools",
    "httpx2",
    "jinja2",
    "litestar",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "quart",
    "redis",
    "starlette",
    "ua_parser",
    "uvicorn",
    "uvloop",
)

# A name enters or leaves the public API here, on purpose, and in CHANGELOG.md.
PUBLIC_NAMES: tuple[str, ...] = (
    "BadSignature",
    "Claims",
    "Coatcheck",
    "CoatcheckError",
    "ConfigurationError",
    "Conflict",
    "Cookie",
    "CookieJar",
    "CredentialError",
    "CrossSite",
    "Exchange",
    "Expired",
    "FileStore",
    "Flash",
    "Grant",
    "Insufficient",
    "InvalidValue",
    "Key",
    "KeyFile",
    "Keyring",
    "Malformed",
    "MemoryStore",
    "Missing",
    "Policy",
    "Principal",
    "Reused",
    "Revocations",
    "Revoked",
    "SQLiteStore",
    "Sealed",
    "SealedCookie",
    "SealedSessions",
    "Session",
    "SessionGone",
    "Sessions",
    "SignedCookie",
    "StoreUnavailable",
    "Superseded",
    "TooManySessions",
    "Verifier",
    "WrongClaim",
)


# -- reading the source


@dataclass(frozen=True)
class Module:
    """A module of ours, read but not run."""

    name: str
    is_package: bool
    text: str

    @property
    def tree(self) -> ast.Module:
        return parsed(self.text)


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def modules() -> Mapping[str, Module]:
    found: dict[str, Module] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("coatcheck", *path.relative_to(SOURCE).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module(name, is_package, path.read_text(encoding="utf-8"))
    return found


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what stands under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from (other, *run_time_nodes(other))
            continue
        yield node
        yield from run_time_nodes(node)


def imports(module: Module) -> Iterator[str]:
    """Name what a module imports, wherever in it; `from package import x` may mean the module package.x."""
    for node in run_time_nodes(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = origin(module, node)
            for alias in node.names:
                member = f"{source}.{alias.name}"
                yield member if member in modules() else source


def origin(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".")
    kept = package[: len(package) - node.level + module.is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "coatcheck"


def lies_in(name: str, place: str) -> bool:
    return name == place or (place != "coatcheck" and name.startswith(f"{place}."))


def floor_of(name: str) -> str | None:
    for floor, places in FLOORS.items():
        if any(lies_in(name, place) for place in places):
            return floor
    return None


def wrong_imports(module: Module) -> list[str]:
    floor = floor_of(module.name)
    assert floor is not None, f"{module.name} lives on no floor: give it one in FLOORS"
    allowed = (floor, *MAY_IMPORT[floor])
    return [
        f"{module.name} ({floor}) imports {target} ({floor_of(target)})"
        for target in imports(module)
        if is_ours(target)
        and floor_of(target) not in allowed
        and not (floor in NEXT_DOOR and any(lies_in(target, place) for place in PUBLIC_MODULES))
    ]


def cycle_in(graph: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the names along one cycle, or an empty list."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, frozenset())):
            if cycle := search(target, [*path, name]):
                return cycle
        done.add(name)
        return []

    for start in graph:
        if cycle := search(start, []):
            return cycle
    return []


def impurities(module: Module) -> list[str]:
    """Say where a module of core/ does more than judge."""
    found = [
        f"imports {target}"
        for target in imports(module)
        if not is_ours(target) and not any(lies_in(target, place) for place in CORE_MAY_IMPORT)
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"line {node.lineno}: is asynchronous")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in CORE_MAY_NOT_CALL:
            found.append(f"line {node.lineno}: calls {ast.unparse(node.func)}")
        elif isinstance(node, ast.Attribute) and reads_a_clock(node):
            found.append(f"line {node.lineno}: reads a clock")
    return [f"{module.name} {what}" for what in found]


def reads_a_clock(node: ast.Attribute) -> bool:
    return node.attr in CLOCKS and ast.unparse(node.value).rpartition(".")[2] in {"date", "datetime"}


def function_lengths(module: Module) -> dict[str, int]:
    """Count the lines of every function, without its decorators and its docstring."""
    return {
        f"{module.name}:{node.lineno} {node.name}": lines_of(node) - docstring_lines(node)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return 0 if ast.get_docstring(node) is None else lines_of(node.body[0])


def percentile_90(lengths: list[int]) -> int:
    return sorted(lengths)[math.ceil(0.9 * len(lengths)) - 1]


# -- the rules


def test_every_module_lives_on_a_floor() -> None:
    homeless = [name for name in modules() if floor_of(name) is None]
    assert homeless == []


def test_every_place_in_the_table_of_core_modules_exists() -> None:
    assert [name for name in PUBLIC_MODULES if name not in modules()] == []


def test_the_table_itself_only_points_down() -> None:
    order = list(FLOORS)
    upward = [
        f"{floor} -> {below}"
        for floor, floors in MAY_IMPORT.items()
        for below in floors
        if order.index(below) >= order.index(floor)
    ]
    assert upward == []
    assert list(MAY_IMPORT) == order


def test_imports_only_point_down() -> None:
    assert [wrong for module in modules().values() for wrong in wrong_imports(module)] == []


def test_there_are_no_import_cycles() -> None:
    graph = {name: frozenset(filter(is_ours, imports(module))) for name, module in modules().items()}
    assert cycle_in(graph) == []


def test_core_only_judges() -> None:
    core = [module for name, module in modules().items() if lies_in(name, "coatcheck.core")]
    assert [impurity for module in core for impurity in impurities(module)] == []


def test_files_are_short() -> None:
    lines = {name: len(module.text.splitlines()) for name, module in modules().items()}
    assert {name: count for name, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths: dict[str, int] = {}
    for module in modules().values():
        lengths |= function_lengths(module)
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}
    assert percentile_90(list(lengths.values())) <= MAX_FUNCTION_LINES_P90


def test_importing_coatcheck_loads_no_framework_and_no_driver() -> None:
    program = (
        "import coatcheck, sys\n"
        "for name in coatcheck.__all__: getattr(coatcheck, name)\n"
        f"print(*sorted(set(sys.modules) & {set(NOT_LOADED)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_the_public_names_are_pinned() -> None:
    assert sorted(coatcheck.__all__) == sorted(PUBLIC_NAMES)
    assert [name for name in PUBLIC_NAMES if not hasattr(coatcheck, name)] == []


def test_the_version_is_that_of_the_distribution() -> None:
    assert coatcheck.__version__ == metadata.version("coatcheck")


# -- the rules can be broken: each detector finds what it is for


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coatcheck.errors", "import coatcheck.core"),
        ("coatcheck.core.jws", "from coatcheck.store import Store"),
        ("coatcheck.core.jws", "from coatcheck import core, store"),
        ("coatcheck.core.jws", "from ..store import Store"),
        ("coatcheck.core.jws", "def late():\n    import coatcheck"),
        ("coatcheck.sessions", "from coatcheck.stores.memory import MemoryStore"),
        ("coatcheck.sessions", "from coatcheck.stores.near import NearStore"),
        ("coatcheck.sessions", "from coatcheck import Coatcheck"),
        ("coatcheck.stores.memory", "import coatcheck.web.asgi"),
        ("coatcheck.server.app", "from coatcheck.sessions import Sessions"),
        ("coatcheck.cli.main", "from coatcheck.core.record import Record"),
        ("coatcheck.server.app", "import coatcheck.cli"),
    ],
)
def test_an_import_that_points_up_is_found(name: str, text: str) -> None:
    assert len(wrong_imports(Module(name, is_package=False, text=text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "coatcheck.core.jws",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import coatcheck.store",
        ),
        ("coatcheck.core.jws", "from . import keys"),
        ("coatcheck.server.app", "from coatcheck import Coatcheck\nfrom coatcheck.core.seal import seal"),
    ],
)
def test_an_import_that_points_down_is_not_held_against_anyone(name: str, text: str) -> None:
    assert wrong_imports(Module(name, is_package=False, text=text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "import os.path",
        "import secrets",
        "import random",
        "import uuid",
        "import socket",
        "import io",
        "from pathlib import Path",
        "from urllib.request import urlopen",
        "open('file')",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import date\nread = date.today",
        "async def load(): pass",
    ],
)
def test_a_core_that_does_more_than_judge_is_found(text: str) -> None:
    assert len(impurities(Module("coatcheck.core.record", is_package=False, text=text))) == 1


def test_a_cycle_is_found() -> None:
    chain = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset[str]()}
    assert cycle_in(chain) == []
    assert cycle_in(chain | {"c": frozenset({"b"})}) == ["b", "c", "b"]


def test_a_docstring_does_not_make_a_function_long() -> None:
    text = '@cache\ndef plain():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    assert function_lengths(Module("coatcheck.core.x", is_package=False, text=text)) == {"coatcheck.core.x:2 plain": 2}


def test_the_90th_percentile_is_the_length_that_nine_in_ten_stay_within() -> None:
    assert percentile_90([1, 1, 1, 1, 1, 1, 1, 1, 9, 60]) == 9
