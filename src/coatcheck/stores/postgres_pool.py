"""postgres_pool: connections to PostgreSQL, bounded in number and in time: how they are made, and a pool for threads.

Whoever needs a driver imports this module when it is needed: it loads psycopg.

- Connections commit by themselves and are given back idle: psycopg's pool then needs no round trip to reset one.
- A connection that has shown any error, or that was still waiting for a reply, is closed and never used again (P4).
- A wait ends at its deadline whatever the server does: it is ended by closing the connection, never by asking the
  server to cancel. A commit that waits for a standby and is cancelled answers as if it had succeeded.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, LiteralString

import psycopg
from psycopg import RawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.store import Durability
from coatcheck.stores.postgres_wire import Answer, Connection, Row, judged

_OLDEST = 140_000
CONNECT = 2.0  # seconds; libpq takes no less
_DEFAULTS: Final = {
    "application_name": "coatcheck",
    "connect_timeout": f"{CONNECT:.0f}",
    # Of several hosts in the URL, the one that takes writes: after a failover, the new primary.
    "target_session_attrs": "read-write",
}
SET_UP: Final = """
    SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'), pg_is_in_recovery(),
        current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_standby_names'),
        set_config('search_path', $1, false),
        set_config('statement_timeout', $2, false),
        set_config('default_transaction_isolation', 'read committed', false),
        set_config('synchronous_commit', CASE current_setting('synchronous_commit')
            WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How to connect. `conninfo` may hold a password: it is in no message."""

    conninfo: str = field(repr=False)
    schema: str
    size: int
    timeout: float  # seconds, for one statement with all of its waiting


def read_url(url: str) -> str:
    """Return libpq's form of a URL, with our defaults for what it leaves open.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        given = conninfo_to_dict(url)
        return make_conninfo(url, **{name: value for name, value in _DEFAULTS.items() if name not in given})
    except (psycopg.Error, ValueError):  # its words may repeat a part of the password
        raise ConfigurationError("this is no URL of PostgreSQL: postgresql://name:password@host/database") from None


def unavailable(error: psycopg.Error) -> StoreUnavailable:
    """Return what is raised in place of an error of the driver."""
    state = error.sqlstate
    return StoreUnavailable(f"PostgreSQL cannot answer: {type(error).__name__}" + (f" ({state})" if state else ""))


def connect(options: Options, patience: float) -> tuple[Connection, Durability]:
    """Return a connection of its own, which waits `patience` seconds in all, and what its server makes durable.

    Raises:
        psycopg.Error: there is none to be had.
        ConfigurationError: as `judge`.
    """
    connection = Connection.connect(options.conninfo, autocommit=True, cursor_factory=RawCursor)
    try:
        connection.deadline = monotonic() + patience
        return connection, judge(connection.execute(SET_UP, (_path(options), "0")).fetchone())
    except BaseException:
        connection.close()
        raise


class ThreadPool:
    """Connections for threads.

    Args:
        options: how to connect.
        told: is called with what each new connection says of its server's durability.
    """

    def __init__(self, options: Options, told: Callable[[Durability], None]) -> None:
        self._options, self._told = options, told
        kind = {"autocommit": True, "cursor_factory": RawCursor}
        self._pool = ConnectionPool(
            options.conninfo, connection_class=Connection, kwargs=kind, configure=self._set_up, **shape(options)
        )

    def open(self) -> None:
        """Begin to connect; calling it again does nothing."""
        self._pool.open()

    def close(self) -> None:
        """Close all connections, and end the pool's threads."""
        self._pool.close()

    def answer(self, query: LiteralString, values: Sequence[Any], *, again: bool = False) -> Answer:
        """Run one statement.

        Args:
            query: with $1, $2 and so on where the values go.
            values: as many.
            again: whether it may be repeated when the connection breaks meanwhile.

        Raises:
            StoreUnavailable: whether it was done is not known.
        """
        deadline = monotonic() + self._options.timeout
        try:
            while True:
                connection = self._take(deadline)
                try:
                    return self._ask(connection, query, values)
                except psycopg.OperationalError as error:
                    if not again or not is_lost(error):
                        raise
        except psycopg.Error as error:
            raise unavailable(error) from error

    def _take(self, deadline: float) -> Connection:
        while True:
            connection = self._pool.getconn(timeout=deadline - monotonic())
            if is_quiet(connection):
                connection.deadline = deadline
                return connection
            connection.close()
            self._pool.putconn(connection)

    def _ask(self, connection: Connection, query: LiteralString, values: Sequence[Any]) -> Answer:
        try:
            cursor = connection.execute(query, values, prepare=True, binary=True)
            rows = cursor.fetchall() if cursor.rownumber is not None else []
            return judged(connection, Answer(rows, cursor.rowcount))
        except BaseException:
            connection.close()
            raise
        finally:
            self._pool.putconn(connection)

    def _set_up(self, connection: Connection) -> None:
        connection.deadline = monotonic() + CONNECT
        try:
            self._told(judge(connection.execute(SET_UP, settings(self._options)).fetchone()))
        except BaseException:
            connection.close()
            raise
        connection.add_notice_handler(connection.hear)


def judge(row: Row | None) -> Durability:
    """Say what an acknowledged write survives on the server that gave this answer to `SET_UP`.

    Raises:
        ConfigurationError: it is too old, or cannot hold every subject's name.
        psycopg.OperationalError: it takes no writes.
    """
    assert row is not None  # noqa: S101 (a SELECT of nothing but expressions)
    number, encoding, standby, fsync, whole_pages, standbys, *_ = row
    if number < _OLDEST:
        raise ConfigurationError(f"PostgreSQL {number // 10_000} is too old; 14 is needed")
    if encoding != "UTF8":
        raise ConfigurationError("the database's encoding is not UTF8")
    if standby:
        raise psycopg.OperationalError("this server is a standby")
    if fsync != "on" or whole_pages != "on":
        return "crash-safe"
    return "failover-safe" if standbys.strip() else "power-safe"


def shape(options: Options) -> dict[str, Any]:
    """Return the arguments that pools of both kinds have."""
    # The pool waits longer after each failure, up to this; then who needs a connection begins anew. So a server that
    # is back is found within about a second.
    return {"min_size": 1, "max_size": options.size, "open": False, "reconnect_timeout": 1.0, "name": "coatcheck"}


def _path(options: Options) -> str:
    return f"{options.schema}, pg_temp"  # said last, or a temporary table would come first


def settings(options: Options) -> tuple[str, str]:
    """Return the arguments of `SET_UP`."""
    return _path(options), f"{max(1, round(options.timeout * 1000))}ms"


def is_quiet(connection: psycopg.Connection[Row] | psycopg.AsyncConnection[Row]) -> bool:
    """Say whether nothing came unasked: what can be read from an idle connection is its end, or news of it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def is_lost(error: psycopg.Error) -> bool:
    """Say whether it was the connection that failed, or its server that went down (class 57P), not the statement."""
    return error.sqlstate is None or error.sqlstate.startswith("57P")
