"""The URLs of a RedisStore: one server, a Cluster, or whatever server the Sentinels name.

    redis://[user:password@]host[:port][/database]
    redis+cluster://[user:password@]host[:port][,host[:port]...]
    redis+sentinel://[user:password@]sentinel[:port][,sentinel[:port]...]/service[/database]

`rediss` in place of `redis` is the same over TLS. What follows a question mark are arguments of
`RedisStore.from_url`, and `sentinel_username` and `sentinel_password`: the name and the password in front are those of
the server that the Sentinels name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote

from coatcheck.errors import ConfigurationError

Address = tuple[str, int]
Kind = Literal["single", "cluster", "sentinel"]

SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
}
_SENTINEL: Final = ("sentinel_username", "sentinel_password")
_DEFAULT_PORTS: Final[dict[Kind, int]] = {"single": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the records are."""

    kind: Kind
    addresses: tuple[Address, ...]
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


def parse(url: str) -> tuple[Target, dict[str, str]]:
    """Return what a URL names, and the options behind its question mark.

    Raises:
        ConfigurationError: it is none of ours. Only the scheme is repeated: a URL may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigurationError(f"not a Redis URL: {scheme[:20]!r} is none of {', '.join(SCHEMES)}")
    kind, tls = SCHEMES[scheme]
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    addresses = tuple(_address(host, kind) for host in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise ConfigurationError("redis: names one server; several are redis+cluster: or redis+sentinel:")
    service, database = _place(kind, path)
    options = _options(query)
    sentinel = [options.pop(name, None) for name in _SENTINEL]
    if kind != "sentinel" and any(sentinel):
        raise ConfigurationError(f"{' and '.join(_SENTINEL)} are for redis+sentinel:")
    user = (unquote(username) or None, unquote(password) or None)
    return Target(kind, addresses, tls, *user, database, service, *sentinel), options


def _options(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError:
        raise ConfigurationError("the options of a Redis URL are name=value&name=value") from None


def _address(text: str, kind: Kind) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    host = unquote(host.removeprefix("[").removesuffix("]"))
    if not host or "#" in host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise ConfigurationError("a Redis URL needs hosts, with ports from 1 to 65535 if any")
    return host, int(port) if port else _DEFAULT_PORTS[kind]


def _place(kind: Kind, path: str) -> tuple[str, int]:
    """Return the service and the number of the database."""
    service, number = "", path
    if kind == "sentinel":
        service, _, number = path.partition("/")
        service = unquote(service)
        if not service:
            raise ConfigurationError("redis+sentinel: needs the name of a service: redis+sentinel://host/service")
    if number and not (number.isascii() and number.isdigit() and len(number) < 6):
        raise ConfigurationError("the database of a Redis URL is a number")
    if kind == "cluster" and number.strip("0"):
        raise ConfigurationError("a Cluster has no databases but 0")
    return service, int(number or 0)


_FLAGS: Final = {"0": False, "false": False, "1": True, "true": True}
_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "allow_volatile": _FLAGS.__getitem__,
    "wait_replicas": int,
    "wait_until": str,
    "prefix": str,
    "pool_size": int,
    "timeout": lambda text: timedelta(seconds=float(text)),
    "ca_file": str,
}


def read_options(written: dict[str, str]) -> dict[str, Any]:
    """Return the options of a URL as arguments of RedisStore.

    Raises:
        ConfigurationError: one of them is none.
    """
    try:
        return {name: _READERS[name](text) for name, text in written.items()}
    except (KeyError, ValueError, OverflowError):
        names = ", ".join((*_READERS, *_SENTINEL))
        raise ConfigurationError(f"options of a Redis URL are {names}; one is unknown or wrong") from None
