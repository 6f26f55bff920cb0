"""postgres_schema: the tables and functions of a PostgreSQL store, made and migrated by numbered SQL.

Several processes may start at once: whoever finds something missing takes an advisory lock, and looks again.
A schema that is up to date is only read, so that an application's own role needs no right to change it.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.store import Durability
from coatcheck.stores.postgres_pool import Connection, Options, connect, unavailable

Migration = tuple[LiteralString, ...]
"""The statements that lead from one version of a component's schema to the next."""

_PATIENCE = 60.0  # seconds, for the other processes' migrations and for one's own
_NEWCOMERS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('coatcheck schema', 0))"
_VERSIONS: Final = "CREATE TABLE IF NOT EXISTS coatcheck_schema (component text PRIMARY KEY, version int NOT NULL)"
_SET_VERSION: Final = """
    INSERT INTO coatcheck_schema (component, version) VALUES ($1, $2)
    ON CONFLICT (component) DO UPDATE SET version = excluded.version
"""

STORE: Final[tuple[Migration, ...]] = (
    (
        # Fixed-width columns first: nothing is lost to alignment. Names sort by their octets ("C"): cheaper, and no
        # update of the system's locales can spoil the index.
        #
        # `due` is `expires_at` in steps of 4.4 minutes. It is indexed, and `expires_at` is not: most touches then
        # change no indexed column and are done inside of their page (a "heap-only tuple"; the tenth of each page that
        # is left free is for these), and equal keys share their place in the index.
        """
        CREATE TABLE coatcheck_record (
            seen_at bigint NOT NULL,
            expires_at bigint NOT NULL,
            due int NOT NULL GENERATED ALWAYS AS (least(expires_at >> 18, 2147483647)::int) STORED,
            version int NOT NULL,
            superseded boolean NOT NULL,
            id bytea NOT NULL PRIMARY KEY,
            subject text COLLATE "C",
            body bytea NOT NULL
        ) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05)
        """,
        "CREATE INDEX coatcheck_record_subject ON coatcheck_record (subject) WHERE subject IS NOT NULL",
        "CREATE INDEX coatcheck_record_due ON coatcheck_record (due)",
        """
        CREATE TABLE coatcheck_cutoff (
            before bigint NOT NULL,
            subject text COLLATE "C" NOT NULL PRIMARY KEY
        )
        """,
        # The locks of the next two are explained in coatcheck.stores.postgres. It matters that they are PL/pgSQL and
        # VOLATILE: each of their statements then sees what was committed before it began, not before the call.
        """
        CREATE FUNCTION coatcheck_create(
            new_id bytea, new_subject text, new_version int, new_seen_at bigint, new_expires_at bigint,
            new_superseded boolean, new_body bytea, new_created_at bigint
        ) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            IF new_subject IS NOT NULL THEN
                PERFORM pg_advisory_xact_lock_shared(hashtextextended(new_subject, 7073871523));
                PERFORM FROM coatcheck_cutoff WHERE subject = new_subject AND before > new_created_at;
                IF FOUND THEN
                    RETURN false;
                END IF;
            END IF;
            INSERT INTO coatcheck_record (id, subject, version, seen_at, expires_at, superseded, body)
            VALUES (new_id, new_subject, new_version, new_seen_at, new_expires_at, new_superseded, new_body)
            ON CONFLICT (id) DO NOTHING;
            RETURN FOUND;
        END
        $$
        """,
        """
        CREATE FUNCTION coatcheck_revoke(whose text, cut bigint, kept bytea)
        RETURNS TABLE (gone_id bytea, gone_superseded boolean) LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(hashtextextended(whose, 7073871523));
            INSERT INTO coatcheck_cutoff AS cutoff (subject, before) VALUES (whose, cut)
            ON CONFLICT (subject) DO UPDATE SET before = greatest(cutoff.before, excluded.before);
            RETURN QUERY DELETE FROM coatcheck_record WHERE subject = whose AND id IS DISTINCT FROM kept
                RETURNING id, superseded;
        END
        $$
        """,
        # The only write that does not wait for the disk, nor for a standby.
        """
        CREATE FUNCTION coatcheck_touch(old_id bytea, new_seen_at bigint, new_expires_at bigint)
        RETURNS void LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            SET LOCAL synchronous_commit = off;
            UPDATE coatcheck_record SET
                seen_at = greatest(seen_at, new_seen_at), expires_at = greatest(expires_at, new_expires_at)
            WHERE id = old_id AND NOT superseded AND (seen_at < new_seen_at OR expires_at < new_expires_at);
        END
        $$
        """,
    ),
)


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


def _migrate(connection: Connection, schema: str, component: str, migrations: tuple[Migration, ...]) -> None:
    connection.execute(_NEWCOMERS)
    found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchone()
    if found is None:  # IF NOT EXISTS would ask for the right to make one all the same
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
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
    table = connection.execute("SELECT to_regclass('coatcheck_schema') IS NOT NULL").fetchone()
    if table is None or not table[0]:
        return migrations
    found = connection.execute("SELECT version FROM coatcheck_schema WHERE component = $1", (component,)).fetchone()
    version = int(found[0]) if found else 0
    if version > len(migrations):
        raise ConfigurationError(f"a newer coatcheck made this schema ({component} version {version})")
    return migrations[version:]
