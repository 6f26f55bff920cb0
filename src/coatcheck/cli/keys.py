"""`coatcheck keys list | rotate`."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from coatcheck.cli import desk
from coatcheck.cli.main import NotDone
from coatcheck.clock import system_clock
from coatcheck.keyfile import PUBLISH_AHEAD, StoredKey
from coatcheck.server.ends import there
from coatcheck.server.settings import Settings


def show(arguments: argparse.Namespace) -> None:
    """List the keys by role; never anything secret of them."""
    settings = _settings(arguments)

    async def work() -> None:
        async with desk.keys_of(settings) as keys:
            found = await keys.keys()
        _print(found, arguments)

    desk.run(work)


def rotate(arguments: argparse.Namespace) -> None:
    """Let the upcoming key sign."""
    settings = _settings(arguments)

    async def work() -> None:
        async with desk.keys_of(settings) as keys:
            wait = _published_in(await keys.keys())
            if wait > 0 and not arguments.now:
                raise NotDone(
                    f"the upcoming key was published less than {PUBLISH_AHEAD // timedelta(minutes=1)} minutes ago: "
                    f"try again in {wait} s. With --now it signs at once, and services that hold an older JWKS refuse "
                    "new tokens until they fetch it again"
                )
            await keys.rotate(published_for=timedelta(0) if arguments.now else PUBLISH_AHEAD)
            found = await keys.keys()
        _print(found, arguments)

    desk.run(work)


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = Settings.read(vars(arguments))
    if not settings.shared and not there(settings.key_file):
        raise NotDone(f"there are no keys in {settings.data_dir}: name the directory with --data-dir")
    return settings


def _published_in(keys: list[StoredKey]) -> int:
    """Return in how many seconds every verifier that caches as told knows the upcoming key."""
    ready = [key.made_at + PUBLISH_AHEAD // timedelta(milliseconds=1) for key in keys if key.role == "upcoming"]
    return -((ready[0] - system_clock()) // -1000) if ready else 0


def _print(keys: list[StoredKey], arguments: argparse.Namespace) -> None:
    if arguments.json:
        desk.show([_shown(key) for key in keys])
        return
    rows = [
        (key.role, key.jwk["alg"], key.jwk["kid"], desk.moment(key.made_at), desk.moment(key.retired_at))
        for key in keys
    ]
    desk.table(("ROLE", "ALGORITHM", "KID", "MADE", "RETIRED"), rows)


def _shown(key: StoredKey) -> dict[str, Any]:
    return {
        "role": key.role,
        "alg": key.jwk["alg"],
        "kid": key.jwk["kid"],
        "made_at": key.made_at // 1000,
        "retired_at": key.retired_at // 1000 or None,
    }
