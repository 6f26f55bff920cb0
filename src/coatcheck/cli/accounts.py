"""`coatcheck accounts add | list | disable | enable`."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from coatcheck.cli import desk
from coatcheck.cli.main import NotDone
from coatcheck.errors import ConfigurationError
from coatcheck.server import proof
from coatcheck.server.accounts import Account, checked_name
from coatcheck.server.passwords import Passwords, judge_new
from coatcheck.server.settings import Settings, prepare

_MAX_LINE = 4096


def add(arguments: argparse.Namespace) -> None:
    """Make an account."""
    settings = Settings.read(vars(arguments))
    name = checked_name(arguments.name)
    password = _password(from_stdin=arguments.password_stdin)
    judge_new(password, name)
    if not settings.shared:
        prepare(settings.data_dir)

    async def work() -> None:
        passwords = Passwords()
        try:
            hashed = await passwords.hash(password)
        finally:
            passwords.close()
        async with desk.accounts_of(settings) as accounts:
            account = await accounts.add(name, hashed, admin=arguments.admin)
        if arguments.json:
            desk.show(_shown(account))
        else:
            print(f"{name} can sign in" + (", as an administrator" if account.admin else ""))

    desk.run(work)


def show(arguments: argparse.Namespace) -> None:
    """List the accounts."""
    settings = desk.settings_of(arguments)

    async def work() -> None:
        async with desk.accounts_of(settings) as accounts:
            found = await accounts.list()
        if arguments.json:
            desk.show([_shown(account) for account in found])
            return
        rows = [
            (
                account.name,
                "administrator" if account.admin else "",
                "disabled" if account.disabled else "",
                desk.moment(account.created_at),
                account.id,
            )
            for account in found
        ]
        desk.table(("NAME", "ROLE", "STATE", "MADE", "ID"), rows)

    desk.run(work)


def disable(arguments: argparse.Namespace) -> None:
    """Disable an account, and end its sessions."""
    settings = desk.settings_of(arguments)

    async def work() -> None:
        async with desk.server_of(settings) as (accounts, coat):
            done = await proof.disable(checked_name(arguments.name), accounts, coat.sessions)
        if done is None:
            raise NotDone(f"there is no account {arguments.name!r}")
        account, ended = done
        if arguments.json:
            desk.show({**_shown(account), "ended": ended})
        elif settings.store == "memory:":
            print(f"{account.name} is disabled; sessions in a running server's memory are refused from now on")
        else:
            print(f"{account.name} is disabled; sessions ended: {ended}")

    desk.run(work)


def enable(arguments: argparse.Namespace) -> None:
    """Let a disabled account sign in again."""
    settings = desk.settings_of(arguments)

    async def work() -> None:
        async with desk.accounts_of(settings) as accounts:
            account = await accounts.enable(checked_name(arguments.name))
        if account is None:
            raise NotDone(f"there is no account {arguments.name!r}")
        if arguments.json:
            desk.show(_shown(account))
        else:
            print(f"{account.name} can sign in again")

    desk.run(work)


def _shown(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "admin": account.admin,
        "disabled": account.disabled,
        "created_at": account.created_at // 1000,
    }


def _password(*, from_stdin: bool) -> str:
    if not from_stdin:
        if not sys.stdin.isatty():
            raise ConfigurationError("there is no terminal to ask on: use --password-stdin")
        try:
            password = getpass.getpass("Password: ")
            if getpass.getpass("Once more: ") != password:
                raise NotDone("the two passwords differ")
        except EOFError:
            raise NotDone("no password was given") from None
        return password
    # Not as the locale has it: browsers send UTF-8, and whatever else is stored could never be typed there.
    line = sys.stdin.buffer.readline(_MAX_LINE)
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise NotDone("the password is not UTF-8") from None
