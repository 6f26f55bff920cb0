"""`coatcheck sessions list | revoke`."""

from __future__ import annotations

import argparse
from typing import Final

from coatcheck.cli import desk
from coatcheck.cli.main import NotDone
from coatcheck.errors import ConfigurationError
from coatcheck.server.accounts import Account, Accounts, checked_name
from coatcheck.server.settings import Settings

_REASON: Final = "ended by an administrator"


def show(arguments: argparse.Namespace) -> None:
    """List live sessions, those of one account or all."""
    settings = _settings(arguments)

    async def work() -> None:
        async with desk.server_of(settings) as (accounts, coat):
            wanted = [await _account(accounts, arguments.name)] if arguments.name else await accounts.list()
            found = [(account, each) for account in wanted for each in await coat.sessions.list(account.id)]
        if arguments.json:
            desk.show(
                [
                    {
                        "id": each.id,
                        "account": account.name,
                        "subject": account.id,
                        "signed_in_at": each.signed_in_at // 1000,
                        "last_seen_at": each.seen_at // 1000,
                        "user_agent": each.device.user_agent,
                        "address": each.device.address,
                    }
                    for account, each in found
                ]
            )
            return
        rows = [
            (
                each.id or "",
                account.name,
                desk.moment(each.signed_in_at),
                desk.moment(each.seen_at),
                each.device.address,
                each.device.user_agent[:40],
            )
            for account, each in found
        ]
        desk.table(("ID", "ACCOUNT", "SIGNED IN", "LAST SEEN", "ADDRESS", "USER AGENT"), rows)

    desk.run(work)


def revoke(arguments: argparse.Namespace) -> None:
    """End one session, all of an account, or everyone's (S13)."""
    if [bool(arguments.id), bool(arguments.account), arguments.everyone].count(True) != 1:
        raise ConfigurationError("give a session's ID, --account NAME or --everyone")
    settings = _settings(arguments)

    async def work() -> None:
        async with desk.server_of(settings) as (accounts, coat):
            if arguments.id:
                ended = int(await coat.sessions.revoke(arguments.id, reason=_REASON))
            else:
                whose = await accounts.list() if arguments.everyone else [await _account(accounts, arguments.account)]
                ended = sum([await coat.sessions.revoke_all(account.id, reason=_REASON) for account in whose])
        if arguments.id and not ended:
            raise NotDone("no live session has this id")
        if arguments.json:
            desk.show({"ended": ended})
        else:
            print(f"sessions ended: {ended}")

    desk.run(work)


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = desk.settings_of(arguments)
    if settings.store == "memory:":
        raise NotDone("the sessions are in the memory of the server: nobody else can see them")
    return settings


async def _account(accounts: Accounts, name: str) -> Account:
    account = await accounts.find(checked_name(name))
    if account is None:
        raise NotDone(f"there is no account {name!r}")
    return account
