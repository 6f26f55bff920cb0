"""postgres_schema: tables and functions in PostgreSQL, made and migrated by numbered SQL.

Several processes may start at once: whoever finds something missing takes an advisory lock, and looks again.
A schema that is up to date is only read, so that an application's own role needs no right to change it.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final

import psycopg
from psycopg import sql

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.store import Durability
from coatcheck.stores.postgres_pool import Options, connect, unavailable
from coatcheck.stores.postgres_tables import Migration
from coatcheck.stores.postgres_wire import Connection

_PATIENCE = 60.0  # seconds, for the other processes' migrations and for one's own
_NEWCOMERS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('coatcheck schema', 0))"
_VERSIONS: Final = "CREATE TABLE IF NOT EXISTS coatcheck_schema (component text PRIMARY KEY, version int NOT NULL)"
_ALL_VERSIONS: Final = "SELECT component, version FROM coatcheck_schema"
_SET_VERSION: Final = """
    INSERT INTO coatcheck_schema (component, version) VALUES ($1, $2)
    ON CONFLICT (component) DO UPDATE SET version = excluded.version
"""


def prepare(options: Options, component: str, migrations: tuple[Migration, ...]) -> Durability:
    """Make the schema and whatever a component still lacks in it, and return what the server makes durable.

    Raises:
        StoreUnavailable: the server cannot be reached, or the role may not do it.
        ConfigurationError: a newer version made it, or the server cannot be used.
    """
    try:
        connection, durability = connect(options, _PATIENCE)
        with closing(connection):
            if _missing(connection, component, migrations):
                with connection.transaction():
                    _migrate(connection, options.schema, component, migrations)
    except psycopg.errors.InsufficientPrivilege as error:
        words = f"the role may not make or migrate the schema {options.schema} (component {component})"
        raise StoreUnavailable(words) from error
    except psycopg.Error as error:
        raise unavailable(error) from error
    return durability


def versions(options: Options) -> dict[str, int]:
    """Return how many migrations of each component have run.

    Raises:
        StoreUnavailable: the server cannot be reached, or the role may not read it.
        ConfigurationError: the server cannot be used.
    """
    try:
        connection, _ = connect(options, _PATIENCE)
        with closing(connection):
            return dict(connection.execute(_ALL_VERSIONS).fetchall()) if _has_versions(connection) else {}
    except psycopg.Error as error:
        raise unavailable(error) from error


def _migrate(connection: Connection, schema: str, component: str, migrations: tuple[Migration, ...]) -> None:
    connection.execute(_NEWCOMERS)
    found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchone()
    if found is None:  # IF NOT EXISTS would ask for the right to make one all the same
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    # A schema that the role may not use is passed over: its tables would be made in the next one, as temporary ones.
    usable = connection.execute("SELECT has_schema_privilege($1, 'USAGE')", (schema,)).fetchone()
    if usable != (True,):
        raise psycopg.errors.InsufficientPrivilege
    connection.execute(_VERSIONS)
    # Looked up again: another process may have run some of them while this one waited.
    for migration in _missing(connection, component, migrations):
        for statement in migration:
            connection.execute(statement)
    connection.execute(_SET_VERSION, (component, len(migrations)))


def _missing(connection: Connection, component: str, migrations: tuple[Migration, ...]) -> tuple[Migration, ...]:
    """Return the migrations that have not run.

    Raises:
        ConfigurationError: more have run than are known.
    """
    if not _has_versions(connection):
        return migrations
    found = connection.execute("SELECT version FROM coatcheck_schema WHERE component = $1", (component,)).fetchone()
    version = int(found[0]) if found else 0
    if version > len(migrations):
        raise ConfigurationError(f"a newer coatcheck made this schema ({component} version {version})")
    return migrations[version:]


def _has_versions(connection: Connection) -> bool:
    table = connection.execute("SELECT to_regclass('coatcheck_schema') IS NOT NULL").fetchone()
    return table is not None and bool(table[0])
