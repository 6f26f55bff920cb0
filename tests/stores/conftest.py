"""Fixtures of the stores' tests."""

from __future__ import annotations

from postgres_server import make, own_server, schema, server
from processes import spawn, together
from rivals import coat_of, new_store
from sites import proxied_cluster, site
from valkey_server import free_port, own_valkey, prefix, single_url

# Fixtures: pytest finds them by these names.
__all__ = [
    "coat_of",
    "free_port",
    "make",
    "new_store",
    "own_server",
    "own_valkey",
    "prefix",
    "proxied_cluster",
    "schema",
    "server",
    "single_url",
    "site",
    "spawn",
    "together",
]  # fmt: skip
