"""Node's session libraries, if there is a Node: by the lock in benchmarks/node, installed outside of the sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = ROOT / "benchmarks" / "node"
PLACE: Final = ROOT / ".cache" / "bench-node"
FILES: Final = ("package.json", "package-lock.json", ".npmrc", "server.mjs")
_LOCK, _INSTALLED = "package-lock.json", "installed"


def prepare() -> list[str] | None:
    """Return the words that begin a server's command line, or None where there is no Node, or no npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        print("Node is not here: its rows are left out", flush=True)
        return None
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(SOURCES / name, PLACE / name)
    lock, installed = (SOURCES / _LOCK).read_text(encoding="utf-8"), PLACE / _INSTALLED
    if not installed.exists() or installed.read_text(encoding="utf-8") != lock:
        print("installing what Node's rows need", flush=True)
        # By hash, and nothing of it runs while it is installed.
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error")
        done = subprocess.run([npm, "ci", *quiet], check=False, cwd=PLACE, capture_output=True, text=True)  # noqa: S603
        if done.returncode != 0:
            print(f"npm could not install them, so Node's rows are left out:\n{done.stderr}", flush=True)
            return None
        installed.write_text(lock, encoding="utf-8")
    return [node, os.fspath(PLACE / "server.mjs")]


def versions() -> dict[str, str]:
    """Return Node's version, and those of the libraries that are asked for by name."""
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    packages = json.loads((SOURCES / _LOCK).read_text(encoding="utf-8"))["packages"]
    found = {name: packages[f"node_modules/{name}"]["version"] for name in packages[""]["dependencies"]}
    return {"node": node.strip().removeprefix("v"), **found}
