"""`coatcheck doctor`: finds out why sessions do not work. What it looks at, and where:

settings            as `coatcheck serve` reads them
issuer              the public address answers
Secure cookies      browsers that reach the server keep its cookies
proxy headers       a proxy's word is taken, and nobody else's
secret              what the keys in a shared store are sealed under
data directory      it is there, and ours alone
keys                they can be read, are strong, and are changed now and then
store               it answers, and what it survives
clock of the store  against this machine's
feed                it is heard
revoking            with --write: how long until others hear that a session has ended
app                 with --url: what a running app answers, taken as a browser takes it

It writes nothing, unless told to, and sends what it sees nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterator
from textwrap import fill

import msgspec

from coatcheck.cli import doctor_app, doctor_server, doctor_store
from coatcheck.cli.diagnosis import RANKS, Diagnosis
from coatcheck.cli.main import DONE, NOT_DONE
from coatcheck.errors import ConfigurationError
from coatcheck.inspection import SEVERITIES
from coatcheck.server.settings import Settings

_WIDTH = 110


def doctor(arguments: argparse.Namespace) -> int:
    """Look at everything, say what was seen, and return 1 if something needs attention."""
    found = asyncio.run(_of_server(arguments))
    if arguments.url:
        found += doctor_app.app(arguments.url)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print("\n".join(line for each in found for line in _lines(each)))
    asked = [str(each) for each in SEVERITIES].index(arguments.severity)
    ranks = [str(each) for each in SEVERITIES[asked:]]
    return NOT_DONE if any(RANKS[each.verdict] in ranks for each in found) else DONE


async def _of_server(arguments: argparse.Namespace) -> list[Diagnosis]:
    try:
        settings = Settings.read(vars(arguments))
    except ConfigurationError as error:
        return [Diagnosis("settings", "broken", str(error), "`coatcheck serve` refuses to start with them")]
    found = [
        Diagnosis("settings", "fine", f"`coatcheck serve` would serve {settings.url}"),
        doctor_server.issuer(settings),
        doctor_server.address(settings),
        doctor_server.proxies(settings, os.environ),
        doctor_server.secret(settings),
        doctor_server.directory(settings),
    ]
    found += await doctor_store.store(settings)
    if found[-1].verdict == "broken" and found[-1].check == "store":
        return found  # what stands on it says nothing more
    found += await doctor_server.keys(settings)
    found.append(await doctor_store.feed(settings))
    if arguments.write:
        found.append(await doctor_store.revoking(settings))
    return found


def _lines(found: Diagnosis) -> Iterator[str]:
    begin = f"{found.verdict:13}  {found.check:18}  "
    yield fill(found.seen, _WIDTH, initial_indent=begin, break_on_hyphens=False, subsequent_indent=" " * len(begin))
    if found.fix:
        yield f"{' ' * len(begin)}do: {found.fix}"  # in one line: it may be a command
