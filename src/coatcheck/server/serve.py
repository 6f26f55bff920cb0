"""Serve: bind, say what is served and how, and run uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import uvicorn

import coatcheck
from coatcheck.errors import ConfigurationError
from coatcheck.server.app import create_app
from coatcheck.server.protocol import GuardedProtocol
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings
from coatcheck.store import Durability

_PROXIES: Final = "FORWARDED_ALLOW_IPS"
_MOST_DESCRIPTORS: Final = 65_536
_GRACE_SECONDS: Final = 5
_SECRET_PATH: Final = "/set-up/"  # noqa: S105

_SURVIVES: Final[Mapping[Durability, str]] = {
    "volatile": "sessions are lost with this process",
    "crash-safe": "sessions survive a crash of this process",
    "power-safe": "sessions survive a power cut",
    "failover-safe": "sessions survive the loss of the primary",
}


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: port 0 picks a free one.
        environment: for uvicorn's FORWARDED_ALLOW_IPS; see `coatcheck.server.settings`.

    Raises:
        ConfigurationError: a setting cannot work: the port is in use, the data directory cannot be written.
        StoreUnavailable: the store cannot be opened.
    """
    with _bound(settings) as listener:
        actual = replace(settings, port=listener.getsockname()[1])
        _log_plainly()
        _allow_descriptors()
        # uvicorn raises the signal that ended it once more, for whoever waits for us; to us it is a normal end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _done)
        server = Server(actual)
        config = _config(server, environment)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(server, config, listener))


async def _run(server: Server, config: uvicorn.Config, listener: socket.socket) -> None:
    async with server:
        await _Uvicorn(config, lambda: _announce(server), server.end).serve([listener])


class _Uvicorn(uvicorn.Server):
    """uvicorn, which says when it listens, and when it is about to end."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], end: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce_once = announce
        self._end = end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce_once()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end()  # it waits for answers under way, and those of the feed would have no end
        await super().shutdown(sockets)


class AccessFilter(logging.Filter):
    """Keeps queries and the set-up link's token out of the access log (S17)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the path of uvicorn's record."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            record.args = (client, method, loggable(str(path)), version, status)
        return True


def loggable(path: str) -> str:
    """Return what may be logged of a request's target."""
    path = path.partition("?")[0]
    # Whatever else begins so is a mistyped link: "//set-up/", "/Set-Up/".
    place = path.lower().find(_SECRET_PATH)
    return path if place < 0 else path[: place + len(_SECRET_PATH)] + "[redacted]"


def _config(server: Server, environment: Mapping[str, str]) -> uvicorn.Config:
    trusted = environment.get(_PROXIES, "")
    options: dict[str, Any] = {
        "http": GuardedProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "server_header": False,
        "proxy_headers": bool(trusted),
        "forwarded_allow_ips": trusted or "",
        "timeout_graceful_shutdown": _GRACE_SECONDS,
    }
    return uvicorn.Config(create_app(server), **options)


def _bound(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", "no name of a host")
        raise ConfigurationError(f"--host (COATCHECK_HOST): {settings.host}: {words}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        where = f"{settings.host} port {settings.port}"
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror}; choose another with --port") from None
    return listener


def _announce(server: Server) -> None:
    settings, signing = server.settings, server.coat.keyring.signing
    durability = server.coat.store.durability
    kind = settings.store.partition(":")[0] or "sqlite"
    data = "in the store: accounts, keys and limits" if settings.shared else settings.data_dir.resolve()
    lines = [
        f"coatcheck {coatcheck.__version__}",
        f"  address  {settings.url}  (listening on {settings.host} port {settings.port})",
        f"  data     {data}",
        f"  store    {kind}, {durability}: {_SURVIVES[durability]}",
        f"  keys     {signing.alg if signing else 'none'}",
    ]
    if server.set_up_link is not None:
        lines += ["", "  There is no account yet. This link makes the first one, once:", f"  {server.set_up_link}", ""]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _log_plainly() -> None:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn.access").addFilter(AccessFilter())


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _done(*_: object) -> None:
    return
