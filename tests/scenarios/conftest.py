"""Fixtures of the scenarios: an adapter's app, served by a process of its own, once over each kind of store."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import watchdog
from postgres_server import OwnServer
from scenarios import STORES, browser, kind
from valkey_server import HOST, Valkey

from coatcheck.testing import FaultProxy

__all__ = ["browser", "kind", "served"]  # fixtures: pytest finds them by these names

_PROGRAM = Path(__file__).with_name("serve.py")
_PATIENCE = 30


@dataclass
class Served:
    """An adapter's apps: a port for each kind of store, and the proxies before those that are elsewhere."""

    ports: dict[str, int]
    proxies: dict[str, FaultProxy]


@pytest.fixture(scope="class")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, own_postgres: OwnServer
) -> Iterator[Served]:
    adapter = str(getattr(request.cls, "adapter"))  # noqa: B009 - pytest says that it may be None
    name = f"s{os.getpid()}x{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        proxies = {
            "redis": stack.enter_context(FaultProxy(HOST, valkey.port)),
            "postgres": stack.enter_context(FaultProxy(HOST, own_postgres.port)),
        }
        database = own_postgres.url.replace(f":{own_postgres.port}/", f":{proxies['postgres'].port}/")
        urls = {
            "memory": "memory:",
            "sqlite": f"sqlite:///{tmp_path_factory.mktemp(adapter)}/s.sqlite",
            "redis": f"redis://{HOST}:{proxies['redis'].port}/0?prefix={name}",
            "postgres": f"{database}?schema={name}",
            "sealed": "sealed:",
        }
        ports: dict[str, int] = {}
        # Django has one set of settings in a process.
        alone = adapter.startswith("django")
        for kinds in [(kind,) for kind in STORES] if alone else [STORES]:
            ports |= stack.enter_context(_process(adapter, {kind: urls[kind] for kind in kinds}))
        yield Served(ports, proxies)
    own_postgres.ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@contextlib.contextmanager
def _process(adapter: str, urls: dict[str, str]) -> Iterator[dict[str, int]]:
    places = [f"{kind}={url}" for kind, url in urls.items()]
    process = subprocess.Popen([sys.executable, str(_PROGRAM), adapter, *places], stdout=subprocess.PIPE, text=True)
    watchdog.watch(process.pid)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the {adapter} app was not served"
        yield json.loads(line)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        process.kill()
        process.wait(_PATIENCE)
        watchdog.forget(process.pid)
        if process.stdout is not None:
            process.stdout.close()
