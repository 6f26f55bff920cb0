"""What a PostgresStore is made with, what it says of its server, and what it never says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import run
from coatcheck.store import Durability
from coatcheck.stores import documents_from_url, store_from_url
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_place import PostgresPlace
from coatcheck.stores.postgres_pool import judge
from coatcheck.testing import make_record

Make = Callable[..., PostgresStore]

NO_URLS = [
    "postgresql:",
    "postgresql:name",
    "postgres:///db?nosuch=hunter2",
    "postgresql://name:hunter2@[::1/db",
    "postgresql://name:hunter2%@host/db",
    "postgresql://name:hunter2@host/db?connections=hunter2",
    "postgresql://name:hunter2@host/db?timeout=",
    "postgresql://name:hunter2@host/db?timeout=1e400",
    "postgresql://name:hunter2@host/db?schema=",
    "postgresql://name:hunter2\0@host/db",
]


def chain(error: BaseException | None) -> str:
    """All words of an error, and of what it was raised from."""
    words = ""
    while error is not None:
        words += f"{error} {error!r} "
        error = error.__cause__ or error.__context__
    return words


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_url_names_the_store_and_its_drivers_options(scheme: str) -> None:
    store = store_from_url(f"{scheme}://name:hunter2@one:5432,two:5433/coats?sslmode=verify-full&connect_timeout=5")
    assert isinstance(store, PostgresStore)
    given = store._options.conninfo
    for part in ("host=one,two", "sslmode=verify-full", "connect_timeout=5", "target_session_attrs=read-write"):
        assert part in given.split()
    assert "hunter2" not in f"{store!r} {store._options!r}"


@pytest.mark.parametrize("named", [store_from_url, documents_from_url])
def test_options_of_ours_stand_among_libpqs(named: Callable[[str], PostgresPlace]) -> None:
    """Several installations share a database, and a server has no other place to say so than the URL."""
    options = "schema=shop&sslmode=verify-full&connections=3&connect_timeout=5&timeout=2.5"
    place = named(f"postgresql://one/coats?{options}")
    assert (place._options.schema, place._options.size, place._options.timeout) == ("shop", 3, 2.5)
    assert {"sslmode=verify-full", "connect_timeout=5", "dbname=coats"} <= set(place._options.conninfo.split())
    assert place.made_with["schema"] == "shop"


@pytest.mark.parametrize("url", NO_URLS)
def test_any_other_url_is_a_configuration_error_that_tells_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        store_from_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable_and_no_password_is_told() -> None:
    store = PostgresStore("postgresql://name:hunter2@127.0.0.1:1/coats")
    with pytest.raises(StoreUnavailable) as caught:
        run(store.open())
    with pytest.raises(StoreUnavailable):
        run(store.load(make_record().id))
    assert "hunter2" not in chain(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"schema": ""},
        {"schema": "pg_own"},
        {"schema": 'x"; DROP TABLE users; --'},
        {"schema": "Upper"},
        {"schema": "x" * 64},
        {"connections": 0},
        {"connections": 1001},
        {"timeout": timedelta(0)},
        {"timeout": timedelta(hours=1)},
    ],
)
def test_options_that_cannot_be_are_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        PostgresStore("postgresql://localhost/coats", **options)


def test_without_the_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "coatcheck.stores.postgres_pool")
    with pytest.raises(ConfigurationError, match=r'pip install "coatcheck\[postgres\]"'):
        PostgresStore("postgresql://localhost/coats")


SERVERS: list[tuple[tuple[Any, ...], Durability]] = [
    ((180000, "UTF8", False, "on", "on", ""), "power-safe"),
    ((140000, "UTF8", False, "on", "on", " "), "power-safe"),
    ((140000, "UTF8", False, "on", "on", "ANY 1 (*)"), "failover-safe"),
    ((140000, "UTF8", False, "of", "on", "ANY 1 (*)"), "crash-safe"),
    ((140000, "UTF8", False, "on", "of", ""), "crash-safe"),
]


@pytest.mark.parametrize(("row", "level"), SERVERS)
def test_durability_is_what_the_server_is_set_to(row: tuple[Any, ...], level: Durability) -> None:
    assert judge(row) == level


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ((139999, "UTF8", False, "on", "on", ""), ConfigurationError),
        ((180000, "SQL_ASCII", False, "on", "on", ""), ConfigurationError),
        ((180000, "UTF8", True, "on", "on", ""), psycopg.OperationalError),
    ],
)
def test_a_server_that_cannot_keep_the_promises_is_refused(row: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        judge(row)


def test_durability_is_claimed_only_when_the_server_was_asked(make: Make) -> None:
    store = make()
    before, after = [store.durability], run(store.open())
    assert [*before, after, store.durability] == ["crash-safe", None, "power-safe"]
    run(store.close())


def test_a_servers_default_does_not_make_our_commits_asynchronous(make: Make, own_server: Any) -> None:
    own_server.ask("ALTER ROLE coatcheck SET synchronous_commit = off")
    try:
        assert own_server.ask("SHOW synchronous_commit") == [("off",)]
        store = make()
        run(store.open())
        assert store._threads is not None
        assert store._threads.answer("SHOW synchronous_commit", ()).rows == [("on",)]
        run(store.close())
    finally:
        own_server.ask("ALTER ROLE coatcheck RESET synchronous_commit")


def test_a_newer_schema_is_a_configuration_error(make: Make, server: Any, schema: str) -> None:
    store = make()
    run(store.open())
    run(store.close())
    server.ask("UPDATE coatcheck_schema SET version = version + 1")
    with pytest.raises(ConfigurationError, match="newer"):
        run(make().open())


def test_several_schemas_in_one_database_know_nothing_of_each_other(make: Make, server: Any, schema: str) -> None:
    one, other = make(), PostgresStore(server.url, schema=f"{schema}_other")
    record = make_record("alice")
    try:
        assert run(one.create(record))
        assert run(other.load(record.id)) is None
        assert run(other.revoke_subject("alice", record.created_at + 1)) == []
        assert run(one.create(make_record("alice")))
        assert run(other.create(record)) is False
        assert len(run(one.list("alice"))) == 2
    finally:
        run(one.close())
        run(other.close())
        server.ask(f"DROP SCHEMA {schema}_other CASCADE")


def test_a_role_without_the_right_to_make_tables_is_enough_once_they_are_there(
    make: Make, own_server: Any, schema: str
) -> None:
    own_server.ask(f"CREATE ROLE {schema} LOGIN")
    url = own_server.url.replace("coatcheck:hunter2", schema)
    try:
        with pytest.raises(StoreUnavailable, match="may not make or migrate"):
            run(PostgresStore(url, schema=schema).open())
        run((first := make()).open())
        run(first.close())
        with pytest.raises(StoreUnavailable, match="may not make or migrate"):  # tables that it may not see
            run(PostgresStore(url, schema=schema).open())
        own_server.ask(f"GRANT USAGE ON SCHEMA {schema} TO {schema}")
        own_server.ask(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}")
        store = PostgresStore(url, schema=schema)
        record = make_record()
        assert run(store.create(record))
        assert run(store.delete(record.id)) == record
        run(store.close())
    finally:
        own_server.ask(f"DROP OWNED BY {schema}")
        own_server.ask(f"DROP ROLE {schema}")
