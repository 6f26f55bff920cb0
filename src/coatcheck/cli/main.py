"""coatcheck on the command line: parses, calls one command, and turns errors into words and an exit code.

    exit code   meaning
    0           done
    1           not done: no such account, the name is taken, it is too early; or something was found
    2           the command line or a setting is wrong
    3           the store does not answer, try again; or there was nothing to look at

A command's module is loaded when it is called: `coatcheck --help` loads none of them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

DONE, NOT_DONE, WRONG, UNAVAILABLE = 0, 1, 2, 3

_EPILOG: Final = (
    "exit codes: 0 done; 1 not done, or something was found; 2 wrong command line or setting; 3 the store does not "
    "answer, or there was nothing to look at"
)
_HYPHENATED_ID: Final = re.compile(r"-[0-9A-Za-z_-]{20}[AQgw]")
_DATA: Final = ("--data-dir", {"metavar": "DIR", "help": "database and keys (COATCHECK_DATA_DIR; ./coatcheck-data)"})
_STORE: Final = (
    "--store",
    {
        "metavar": "URL",
        "help": "sqlite:, file:, memory:; or, for many machines, redis:, postgresql: (COATCHECK_STORE); these hold "
        "accounts and keys too, and need COATCHECK_SECRET",
    },
)
_JSON: Final = ("--json", {"action": "store_true", "help": "print JSON"})
_FAIL_ON: Final = (
    "--fail-on",
    {
        "dest": "severity",
        "choices": ("note", "low", "medium", "high"),
        "default": "medium",
        "help": "the exit code is 1 if something this bad, or worse, was found (medium)",
    },
)
_NAME: Final = ("name", {"metavar": "NAME", "help": "the account's name"})

Argument = tuple[str, Mapping[str, Any]]


class NotDone(Exception):
    """The command was understood and not carried out; the message says why, in words."""


class CannotLook(Exception):
    """What a command was to look at cannot be reached; the message says why, in words."""


@dataclass(frozen=True, kw_only=True)
class _Command:
    """A command: `coatcheck.cli.<module>.<function>(arguments)` carries it out."""

    words: tuple[str, ...]
    help: str
    module: str
    function: str
    arguments: tuple[Argument, ...]


_COMMANDS: Final = (
    _Command(
        words=("serve",),
        help="run the auth server",
        module="serve",
        function="serve",
        arguments=(
            _DATA,
            _STORE,
            ("--host", {"help": "address to listen on (COATCHECK_HOST; 127.0.0.1)"}),
            ("--port", {"type": int, "help": "port to listen on; 0 picks one (COATCHECK_PORT; 8000)"}),
            ("--issuer", {"metavar": "URL", "help": "public origin (COATCHECK_ISSUER; http://localhost:PORT)"}),
            ("--algorithm", {"help": "of the first keys (COATCHECK_ALGORITHM; RS256, or ES256, Ed25519, HS256)"}),
        ),
    ),
    _Command(
        words=("migrate",),
        help="make the schema of a store, or move to another one",
        module="migrate",
        function="migrate",
        arguments=(
            ("--from", {"dest": "source", "metavar": "URL", "help": "the store that everything is in"}),
            ("--to", {"dest": "target", "metavar": "URL", "help": "the store to move it to; it must be empty"}),
            (
                "--ahead",
                {"action": "store_true", "help": "only copy, while servers still run; finish without it later"},
            ),
            _DATA,
            _STORE,
            _JSON,
        ),
    ),
    _Command(
        words=("compare",),
        help="measure sessions, cookies and tokens on this machine, side by side",
        module="compare",
        function="show",
        arguments=(_JSON,),
    ),
    _Command(
        words=("accounts", "add"),
        help="make an account",
        module="accounts",
        function="add",
        arguments=(
            _NAME,
            _DATA,
            _STORE,
            _JSON,
            ("--password-stdin", {"action": "store_true", "help": "read the password from standard input"}),
            ("--admin", {"action": "store_true", "help": "make it an administrator"}),
        ),
    ),
    _Command(
        words=("accounts", "list"),
        help="list the accounts",
        module="accounts",
        function="show",
        arguments=(_DATA, _STORE, _JSON),
    ),
    _Command(
        words=("accounts", "disable"),
        help="let an account sign in no more, and end its sessions",
        module="accounts",
        function="disable",
        arguments=(_NAME, _DATA, _STORE, _JSON),
    ),
    _Command(
        words=("accounts", "enable"),
        help="let a disabled account sign in again",
        module="accounts",
        function="enable",
        arguments=(_NAME, _DATA, _STORE, _JSON),
    ),
    _Command(
        words=("sessions", "list"),
        help="list live sessions",
        module="sessions",
        function="show",
        arguments=(
            ("name", {"metavar": "NAME", "nargs": "?", "help": "of this account only"}),
            _DATA,
            _STORE,
            _JSON,
        ),
    ),
    _Command(
        words=("sessions", "revoke"),
        help="end one session, all of an account, or everyone's",
        module="sessions",
        function="revoke",
        arguments=(
            ("id", {"metavar": "ID", "nargs": "?", "help": "the session's id, as `sessions list` shows it"}),
            ("--account", {"metavar": "NAME", "help": "end all sessions of this account instead"}),
            ("--everyone", {"action": "store_true", "help": "end all sessions of all accounts instead"}),
            _DATA,
            _STORE,
            _JSON,
        ),
    ),
    _Command(
        words=("keys", "list"),
        help="list the signing keys by role",
        module="keys",
        function="show",
        arguments=(_DATA, _STORE, _JSON),
    ),
    _Command(
        words=("keys", "rotate"),
        help="let the upcoming key sign; a running server follows within a second",
        module="keys",
        function="rotate",
        arguments=(
            _DATA,
            _STORE,
            _JSON,
            (
                "--now",
                {
                    "action": "store_true",
                    "help": "even if the upcoming key was published less than 5 minutes ago: services that hold an "
                    "older JWKS then refuse new tokens until they fetch it again",
                },
            ),
        ),
    ),
    _Command(
        words=("inspect",),
        help="explain a cookie, a token, a key, a header or a URL; it is read from standard input and sent nowhere",
        module="inspect",
        function="inspect",
        arguments=(
            # Taken so that it can be refused: argparse would repeat it in its message, and it may be a secret.
            ("words", {"nargs": "*", "help": argparse.SUPPRESS}),
            ("--file", {"metavar": "FILE", "help": "read it from a file instead"}),
            ("--text", {"metavar": "TEXT", "help": "take it from the command line: others can see it there"}),
            ("--jwks", {"metavar": "FILE", "help": "check a token's signature with the keys in this file"}),
            _FAIL_ON,
            _JSON,
        ),
    ),
    _Command(
        words=("doctor",),
        help="find out why sessions do not work: clocks, settings, store, keys, and a running app",
        module="doctor",
        function="doctor",
        arguments=(
            ("--url", {"metavar": "URL", "help": "of a running app; it is asked twice, with GET"}),
            ("--write", {"action": "store_true", "help": "also measure what takes a write to the store"}),
            _DATA,
            _STORE,
            _FAIL_ON,
            _JSON,
        ),
    ),
    _Command(
        words=("audit",),
        help="check a running app's cookies, headers and sign-in; it asks only that host, 120 times at most, and "
        "changes nothing but by signing in and out",
        module="audit",
        function="audit",
        arguments=(
            ("url", {"metavar": "URL", "help": "of a page that anybody may see"}),
            ("--sign-in-path", {"metavar": "PATH", "help": "where name and password are posted to"}),
            ("--name", {"help": "of an account, for tests best"}),
            ("--password-stdin", {"action": "store_true", "help": "read its password from standard input"}),
            (
                "--body",
                {"choices": ("form", "json"), "help": "how they are posted (form); other fields of the form go along"},
            ),
            ("--name-field", {"metavar": "FIELD", "help": "what the name is called there (name)"}),
            ("--password-field", {"metavar": "FIELD", "help": "what the password is called there (password)"}),
            (
                "--protected-path",
                {"metavar": "PATH", "help": "answers 200 to who is signed in, and 401, 403 or a redirect to others"},
            ),
            ("--sign-out-path", {"metavar": "PATH", "help": "a POST to it signs out"}),
            _FAIL_ON,
            ("--verbose", {"action": "store_true", "help": "also say what was found good"}),
            _JSON,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line, the process's own if none is given, and return the exit code."""
    parsed = _parser().parse_args(_with_ids_last(sys.argv[1:] if arguments is None else arguments))
    command: _Command = parsed.command
    try:
        function = getattr(importlib.import_module(f"coatcheck.cli.{command.module}"), command.function)
        return _carry_out(function, parsed)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "coatcheck":
            raise
        return _fail(f'{error.name} is not installed. The server needs: pip install "coatcheck[server]"', WRONG)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads our output has had enough; there is nowhere left to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _with_ids_last(words: Sequence[str]) -> list[str]:
    """Move session ids that begin with a hyphen behind a "--": one id in 64 does, and is no option."""
    if "--" in words:
        return list(words)
    ids = [word for word in words if _HYPHENATED_ID.fullmatch(word)]
    return [*(word for word in words if word not in ids), *(["--", *ids] if ids else [])]


def _carry_out(function: Any, parsed: argparse.Namespace) -> int:
    from coatcheck.errors import CoatcheckError, ConfigurationError

    # What the terminal's encoding cannot show is no reason to stop half-way down a list.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    try:
        code = function(parsed)
        sys.stdout.flush()
    except NotDone as error:
        return _fail(str(error), NOT_DONE)
    except CannotLook as error:
        return _fail(str(error), UNAVAILABLE)
    except ConfigurationError as error:
        return _fail(str(error), WRONG)
    except CoatcheckError as error:
        return _fail(str(error), UNAVAILABLE if error.status == 503 else NOT_DONE)
    return DONE if code is None else int(code)


def _fail(words: str, code: int) -> int:
    sys.stderr.write(f"coatcheck: {words}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("coatcheck", description="Sessions, cookies and tokens.", epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    top = parser.add_subparsers(required=True, metavar="COMMAND")
    groups: dict[str, Any] = {}
    for command in _COMMANDS:
        holder = top
        if len(command.words) == 2:
            if command.words[0] not in groups:
                words = ", ".join(each.words[1] for each in _COMMANDS if each.words[0] == command.words[0])
                group = top.add_parser(command.words[0], help=words, epilog=_EPILOG)
                groups[command.words[0]] = group.add_subparsers(required=True, metavar="COMMAND")
            holder = groups[command.words[0]]
        leaf = holder.add_parser(command.words[-1], help=command.help, description=command.help, epilog=_EPILOG)
        for name, options in command.arguments:
            leaf.add_argument(name, **options)
        leaf.set_defaults(command=command)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"coatcheck {version('coatcheck')}\n")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
