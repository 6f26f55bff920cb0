"""`coatcheck migrate`: makes a store's schema; with `--from` and `--to`, moves everything from one store to another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from coatcheck import SQLiteStore
from coatcheck.cli import desk
from coatcheck.cli.main import NotDone
from coatcheck.cli.progress import Progress
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError
from coatcheck.feed import Feed
from coatcheck.server import lock
from coatcheck.server.ends import End, opened
from coatcheck.server.moving import Report, begun
from coatcheck.server.settings import Settings, prepare
from coatcheck.store import Store
from coatcheck.stores import schemas
from coatcheck.stores.moving import Tally
from coatcheck.stores.moving_state import SILENCE

_NAMED: Final = 20  # ids in a message; JSON names all
_STOP_THEM: Final = (
    "Stop all servers and applications that use --from before this begins: from here it cannot be seen whether there "
    "are any.\n"
)
_AGAIN: Final = "coatcheck: not finished; the same command goes on where this one has stopped\n"
_AHEAD: Final = (
    "Copied ahead, and not finished: --to serves nobody yet. Stop all that uses --from, and run this again without "
    "--ahead: it brings what has changed."
)
_AFTERWARDS: Final = (
    "What is in --from stays there. Serve from --to only: in the old store, sessions that are ended from now on would "
    "still be alive."
)


def migrate(arguments: argparse.Namespace) -> None:
    """Make or migrate a schema, or move to another store."""
    if bool(arguments.source) != bool(arguments.target) or (arguments.ahead and not arguments.source):
        raise ConfigurationError("give both --from and --to, or neither to make the schema of --store")
    if arguments.source:
        _move(arguments)
    else:
        _make_schema(arguments)


def _move(arguments: argparse.Namespace) -> None:
    source, target = _end("--from", arguments.source, arguments), _end("--to", arguments.target, arguments)
    for end in (source, target):
        end.require_own_data()
    progress = Progress(sys.stderr)
    if source.shared and not arguments.ahead:
        sys.stderr.write(_STOP_THEM)

    together = source.locks if arguments.ahead else []
    alone = [path for path in (*source.locks, *target.locks) if path not in together]

    async def work() -> Report:
        target.make_room()
        # Whoever has had one of these alone before is gone; where there is none, it has to be seen.
        silence = 0 if alone else SILENCE
        with lock.shared(together), lock.alone(alone):
            async with begun(source, target, tell=progress.tell, silence=silence) as move:
                return await (move.ahead() if arguments.ahead else move.whole())

    try:
        report = desk.run(work)
    except KeyboardInterrupt:
        progress.end()
        sys.stderr.write(_AGAIN)
        raise
    finally:
        progress.end()
    _print(report, arguments)
    left = [*report.sessions.damaged, *report.sessions.refused]
    if left:
        raise NotDone(f"moved, but for {len(left)} sessions that cannot be: {_some(left)}")


def _make_schema(arguments: argparse.Namespace) -> None:
    end = End("--store", Settings.read(vars(arguments)))
    feed = end.feed(server=True)
    parts: list[Store | Documents | Feed] = [end.store, end.documents, *([feed] if feed else [])]
    files: list[Store] = [end.store, *([] if end.shared else [SQLiteStore(end.settings.database)])]

    async def work() -> list[_Made]:
        if not end.shared:
            prepare(end.settings.data_dir)
        before = [await schemas.versions(file) for file in files]
        async with opened(*parts):
            pass
        return _differences(before, [await schemas.versions(file) for file in files])

    made = desk.run(work)
    if arguments.json:
        desk.show([each._asdict() for each in made])
        return
    for each in made:
        was = f"was {each.before}" if each.before else "is new"
        print(f"{each.component}: version {each.version}" + ("" if each.before == each.version else f", {was}"))
    if not made:
        print("ready: this store needs no schema")


class _Made(NamedTuple):
    component: str
    before: int
    version: int


def _differences(before: Sequence[schemas.Versions], after: Sequence[schemas.Versions]) -> list[_Made]:
    made = {
        _Made(component, then.get(component, 0), version)
        for then, now in zip(before, after, strict=True)
        for component, version in now.items()
    }
    return sorted(made)


def _end(flag: str, url: str, arguments: argparse.Namespace) -> End:
    return End(flag, Settings.read({**vars(arguments), "store": url}))


def _print(report: Report, arguments: argparse.Namespace) -> None:
    found = report.sessions
    if arguments.json:
        desk.show(
            {
                "sessions": {
                    "copied": found.copied,
                    "changed": found.changed,
                    "same": found.same,
                    "removed": found.removed,
                    "expired": found.expired,
                    "damaged": sorted(found.damaged),
                    "refused": sorted(found.refused),
                },
                "finished": not arguments.ahead,
                "documents": report.documents,
                "revocations": report.revocations,
            }
        )
        return
    print(f"sessions: {found.copied} copied" + _earlier(found))
    if found.expired:
        print(f"left behind, for they have expired: {found.expired}")
    print(f"accounts and keys: {_server(report)}")
    if report.revocations is not None:
        print(f"revocations: {report.revocations}")
    print(_AHEAD if arguments.ahead else _AFTERWARDS)


def _earlier(found: Tally) -> str:
    """Say what an earlier run has to do with it, if there was one."""
    words = {"there already": found.same, "brought up to date": found.changed, "ended since and removed": found.removed}
    return "".join(f", {number} {what}" for what, number in words.items() if number)


def _server(report: Report) -> str:
    if report.data_dir is not None:
        return f"they stay in {report.data_dir}"
    if report.documents is None:
        return "there are none: only sessions were moved"
    return f"moved, in {report.documents} documents"


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (" ..." if len(ids) > _NAMED else "")
