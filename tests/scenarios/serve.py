"""Serves the scenario app of one adapter, once for each store, each on a port of its own: `serve.py flask NAME=URL ...`

By a real server of the adapter's kind. The ports are printed, in JSON, when all of them listen.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coatcheck import Coatcheck, Keyring, Sealed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.stores import store_from_url

HOST = "127.0.0.1"
Apps = Mapping[str, Any]
Sockets = Mapping[str, socket.socket]


def main(adapter: str, *places: str) -> None:
    """Serve until the process is ended."""
    make = _make(adapter)
    apps = {name: make(_coatcheck(url)) for name, _, url in (place.partition("=") for place in places)}
    sockets = {name: socket.create_server((HOST, 0), backlog=512) for name in apps}
    sys.stdout.write(json.dumps({name: listener.getsockname()[1] for name, listener in sockets.items()}) + "\n")
    sys.stdout.flush()
    SERVERS[adapter](apps, sockets)


def _make(adapter: str) -> Callable[[Coatcheck], Any]:
    path = Path(__file__).parent / "apps" / f"{adapter}.py"
    # Not under the framework's own name: `import flask` in it must find the framework.
    spec = importlib.util.spec_from_file_location(f"scenario_{adapter}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    made: Callable[[Coatcheck], Any] = module.make
    return made


def _coatcheck(url: str) -> Coatcheck:
    if url.startswith("sealed:"):
        # With keys that outlive a fork, and a feed that reaches the child: gunicorn's worker is one.
        return Coatcheck(Sealed(), Keyring.generate("HS256"), feed=SQLiteFeed(url.removeprefix("sealed:")))
    return Coatcheck(store_from_url(url))


def _uvicorn(apps: Apps, sockets: Sockets) -> None:
    import uvicorn

    async def serve() -> None:
        servers = {name: uvicorn.Server(uvicorn.Config(app, log_level="critical")) for name, app in apps.items()}
        await asyncio.gather(*(server.serve([sockets[name]]) for name, server in servers.items()))

    asyncio.run(serve())


def _gunicorn(apps: Apps, sockets: Sockets) -> None:
    from gunicorn.app.base import BaseApplication

    ports = {str(sockets[name].getsockname()[1]): app for name, app in apps.items()}

    def by_port(environ: dict[str, Any], start_response: Any) -> Any:
        return ports[environ["SERVER_PORT"]](environ, start_response)

    class Gunicorn(BaseApplication):  # type: ignore[misc] # it has no types
        def load_config(self) -> None:
            # In the workers only: what the descriptors of the sockets say must be there before.
            settings = {"threads": 8, "workers": 1, "worker_class": "gthread", "loglevel": "critical"}
            for name, value in {**settings, "control_socket_disable": True}.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)
            self.cfg.set("bind", [f"fd://{listener.fileno()}" for listener in sockets.values()])

        def load(self) -> Any:
            return by_port

    Gunicorn().run()


def _aiohttp(apps: Apps, sockets: Sockets) -> None:
    from aiohttp import web

    async def serve() -> None:
        for name, app in apps.items():
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.SockSite(runner, sockets[name]).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


SERVERS: Mapping[str, Callable[[Apps, Sockets], None]] = {
    "aiohttp": _aiohttp,
    "asgi": _uvicorn,
    "django_asgi": _uvicorn,
    "django_wsgi": _gunicorn,
    "fastapi": _uvicorn,
    "flask": _gunicorn,
    "litestar": _uvicorn,
    "quart": _uvicorn,
    "starlette": _uvicorn,
    "wsgi": _gunicorn,
}

if __name__ == "__main__":
    os.environ.pop("FORWARDED_ALLOW_IPS", None)
    main(*sys.argv[1:])
