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
from scenarios import KINDS, browser, kind
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
            "sealed": f"sealed:{tmp_path_factory.mktemp(adapter)}/feed.sqlite",
        }
        # Django has one set of settings in a process.
        alone = adapter.startswith("django")
        places = [f"{kind}={urls[kind]}" for kind in KINDS]
        yield Served(
            stack.enter_context(_processes(adapter, [[place] for place in places] if alone else [places])), proxies
        )
    own_postgres.ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@contextlib.contextmanager
def _processes(adapter: str, shares: list[list[str]]) -> Iterator[dict[str, int]]:
    """Start a process for each share of the places, all at once, and end them all at once."""
    commands = [[sys.executable, str(_PROGRAM), adapter, *share] for share in shares]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        watchdog.watch(process.pid)
    try:
        ports: dict[str, int] = {}
        for process in processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the {adapter} app was not served"
            ports |= json.loads(line)
        yield ports
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    process.kill()
    process.wait(_PATIENCE)
    watchdog.forget(process.pid)
    if process.stdout is not None:
        process.stdout.close()
