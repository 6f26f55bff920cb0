"""Status lists: where a session's tokens stand in them, that none is missed, and how they are handed out."""

from __future__ import annotations

import asyncio
import gzip
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hearing import until

from coatcheck import Key, SessionGone, StoreUnavailable
from coatcheck.core import jws, status_list
from coatcheck.errors import ConfigurationError, Revoked
from coatcheck.server import status_lists
from coatcheck.server.settings import Settings
from coatcheck.server.status_lists import ENTRIES

if TYPE_CHECKING:
    from coatcheck import Session
    from coatcheck.server.server import Server
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio

MakeServer = Callable[..., Awaitable["Server"]]
TTL = timedelta(seconds=10)
JWT = "application/statuslist+jwt"
HERE = "http://localhost:8000/status-lists/"


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    return await make_server(status_ttl=TTL)


@pytest.fixture
def client(server: Server, client_of: Callable[..., Client]) -> Client:
    return client_of(server)


async def session_of(server: Server, subject: str = "ann") -> Session:
    return await server.coat.sessions.create(subject, amr=("pwd",))


async def place_of(server: Server, session: Session) -> Any:
    """Return where a new access token of a session says that its status stands."""
    return claim(server, (await server.coat.sessions.issue(session)).access_token)


def claim(server: Server, token: str) -> Any:
    payload = jws.verify(token, server.coat.keyring, typ="at+jwt")
    return msgspec.json.decode(payload)["status"]["status_list"]


async def fetched(server: Server, client: Client, uri: str) -> status_list.StatusListToken:
    """Fetch a list when there is one, as whoever polls does."""
    path = uri.removeprefix("http://localhost:8000")
    async with asyncio.timeout(30):
        while (answer := await client("GET", path)).status == 503:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)
    assert answer.status == 200, answer.body
    now = server.coat.clock() / 1000
    return status_list.verify(answer.body, server.coat.keyring, uri=uri, now=now, leeway=0)


async def refused(server: Server, client: Client, place: Any) -> None:
    """Return when a list says that the tokens of a place are no good any more."""

    async def status() -> int:
        return (await fetched(server, client, place["uri"])).statuses.status(place["idx"])

    async with asyncio.timeout(30):
        while await status() == status_list.VALID:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


async def test_r2_tokens_name_a_place_whose_status_follows_the_session(
    make_server: MakeServer, client_of: Callable[..., Client]
) -> None:
    """However long a list may be kept by others: the server's own copy is always of now."""
    server = await make_server(status_ttl=timedelta(hours=1))
    client = client_of(server)
    ann, bob = await session_of(server), await session_of(server, "bob")
    places = [await place_of(server, session) for session in (ann, bob)]
    assert [place["uri"] for place in places] == [f"{HERE}0"] * 2
    found = await fetched(server, client, f"{HERE}0")
    assert (len(found.statuses), found.statuses.bits, sum(found.statuses.octets)) == (ENTRIES, 1, 0)
    await server.coat.sessions.revoke(ann)
    await refused(server, client, places[0])
    found = await fetched(server, client, f"{HERE}0")
    with pytest.raises(Revoked):
        found.require_valid(status_list.Reference(**places[0]), now=server.coat.clock() / 1000)
    found.require_valid(status_list.Reference(**places[1]), now=server.coat.clock() / 1000)
    await server.coat.sessions.revoke_all("bob")
    await refused(server, client, places[1])


async def test_without_the_setting_there_are_none(make_server: MakeServer, client_of: Callable[..., Client]) -> None:
    server = await make_server()
    token = (await server.coat.sessions.issue(await session_of(server))).access_token
    assert "status" not in msgspec.json.decode(jws.verify(token, server.coat.keyring, typ="at+jwt"))
    assert (await client_of(server)("GET", "/status-lists/0")).status == 404


async def test_r4_no_place_comes_twice_and_none_shows_an_order(
    server: Server, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers and a restart; from one list to the next."""
    monkeypatch.setattr(status_lists, "ENTRIES", 256)
    monkeypatch.setattr(status_lists, "_BLOCK", 16)
    found: list[tuple[str, int]] = []
    other = await make_server(status_ttl=TTL)
    for each in (server, other, await make_server(status_ttl=TTL)):
        for _ in range(90):
            place = await place_of(each, await session_of(each))
            found.append((place["uri"], place["idx"]))
    assert len(set(found)) == len(found) == 270
    assert {uri for uri, _ in found} == {f"{HERE}0", f"{HERE}1"}
    order = [index for _, index in found[:90]]
    rising = sum(one < two for one, two in pairwise(order))
    assert 20 < rising < 70
    assert all(0 <= index < 256 for _, index in found)


async def test_all_tokens_of_a_session_share_a_place_and_a_new_id_has_a_new_one(server: Server) -> None:
    session = await session_of(server)
    place = await place_of(server, session)
    grant = await server.coat.sessions.issue(session)
    refreshed = await server.coat.sessions.refresh(grant.refresh_token)
    assert claim(server, grant.access_token) == claim(server, refreshed.access_token) == place
    await server.coat.sessions.rotate(session)
    assert await place_of(server, session) != place


async def test_a_place_is_kept_for_as_long_as_a_token_may_live(make_server: MakeServer, clock: Any) -> None:
    """However long the session goes on; and its end is still found when its record is long gone."""
    server = await make_server(status_ttl=TTL, clock=clock)
    session = await session_of(server)
    key = f"status/of/{session.id}"
    place = await place_of(server, session)
    for _ in range(30):
        clock.advance(timedelta(minutes=5))
        assert await place_of(server, session) == place
        clock.advance(server.coat.policy.access_lifetime)
        await server._documents.sweep(clock())
        assert await server._documents.get(key) != [None]
    clock.advance(timedelta(hours=2))
    await server._documents.sweep(clock())
    assert await server._documents.get(key) == [None]


# -- none is missed


async def test_p1_a_token_whose_place_was_noted_while_its_session_was_ended_is_refused_too(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list's maker has heard of the end, and found no place, before there was one: it looks again."""
    monkeypatch.setattr(status_lists, "_AGAIN_MS", 300)
    lists = server.status_lists
    assert lists is not None
    ended, noted = await session_of(server), await session_of(server, "bob")
    assert ended.id is not None
    await server.coat.sessions.revoke(ended.id)
    await until(lambda: bool(lists._later))
    place = await place_of(server, noted)
    [stored] = await server._documents.get(f"status/of/{noted.id}")
    assert await server._documents.commit({}, {f"status/of/{ended.id}": stored})
    await refused(server, client, place)


async def test_p1_no_token_is_made_of_a_session_that_was_ended_meanwhile(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await session_of(server)
    assert session.id is not None
    placed = server.status_lists._placed  # type: ignore[union-attr]

    async def late(session_id: str) -> Any:
        found = await placed(session_id)
        await server.coat.sessions.revoke(session_id)
        return found

    monkeypatch.setattr(server.status_lists, "_placed", late)
    with pytest.raises(SessionGone):
        await server.coat.sessions.issue(session)


async def test_p6_without_news_no_token_is_made_and_no_list(server: Server, client: Client) -> None:
    await place_of(server, await session_of(server))
    await fetched(server, client, f"{HERE}0")
    lists = server.status_lists
    assert lists is not None
    await lists.stop()
    lists._heard_at = None
    answer = await client("GET", "/status-lists/0")
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.coat.verifier, "is_stale", lambda: True)
        with pytest.raises(StoreUnavailable, match="silent"):
            await server.coat.sessions.issue(await session_of(server))


async def test_p1_a_server_that_begins_knows_what_was_ended_before(
    server: Server, make_server: MakeServer, client_of: Callable[..., Client]
) -> None:
    sessions = [await session_of(server) for _ in range(20)]
    places = [await place_of(server, session) for session in sessions]
    for session in sessions[:19]:
        await server.coat.sessions.revoke(session)
    other = await make_server(status_ttl=TTL)
    found = await fetched(other, client_of(other), f"{HERE}0")
    assert [found.statuses.status(place["idx"]) for place in places] == [1] * 19 + [0]


async def test_p9_lists_whose_tokens_have_all_expired_are_forgotten(make_server: MakeServer, clock: Any) -> None:
    server = await make_server(status_ttl=TTL, clock=clock)
    lists = server.status_lists
    assert lists is not None
    session = await session_of(server)
    await place_of(server, session)
    await server.coat.sessions.revoke(session)
    await until(lambda: bool(lists._lists))
    clock.advance(timedelta(hours=2))
    await until(lambda: not lists._lists)


# -- how they are handed out


async def test_r2_the_answer_is_what_the_draft_says(server: Server, client: Client) -> None:
    """Media type, claims, caching, CORS, gzip, and what is negotiated."""
    await place_of(server, await session_of(server))
    await fetched(server, client, f"{HERE}0")
    plain = await client("GET", "/status-lists/0", headers={"accept": f"text/html, {JWT};q=0.5"})
    assert (plain.status, plain.header("content-type")) == (200, JWT)
    assert plain.header("cache-control") == "public, max-age=10"
    assert plain.header("vary") == "Accept, Accept-Encoding"
    assert plain.header("access-control-allow-origin") == "*"
    assert plain.header("cross-origin-resource-policy") == "cross-origin"
    assert plain.header("content-encoding") is None
    claims = msgspec.json.decode(jws.verify(plain.body, server.coat.keyring, typ="statuslist+jwt"))
    assert set(claims) == {"sub", "iat", "exp", "ttl", "status_list"}
    assert (claims["sub"], claims["ttl"], claims["exp"] - claims["iat"]) == (f"{HERE}0", 10, 30)
    assert set(claims["status_list"]) == {"bits", "lst"}
    zipped = await client("GET", "/status-lists/0", headers={"accept-encoding": "br, gzip;q=1.0"})
    assert zipped.header("content-encoding") == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    for wanted in ("*/*", "application/*", "", "APPLICATION/statuslist+jwt"):
        assert (await client("GET", "/status-lists/0", headers={"accept": wanted})).status == 200
    for other in ("application/statuslist+cwt", f"{JWT};q=0", "text/html"):
        assert (await client("GET", "/status-lists/0", headers={"accept": other})).status == 406
    assert (await client("GET", "/status-lists/0", headers={"accept-encoding": "gzip;q=0"})).body == plain.body
    assert (await client("GET", "/status-lists/0?time=1")).status == 501
    assert (await client("POST", "/status-lists/0", json={})).status == 405


async def test_a_list_that_is_not_there_is_not_made(server: Server, client: Client) -> None:
    assert (await client("GET", "/status-lists/0")).status == 404
    await place_of(server, await session_of(server))
    await fetched(server, client, f"{HERE}0")
    for number in ("1", "00", "-1", "1e3", "999999999999", "²", "0/x"):
        assert (await client("GET", f"/status-lists/{number}")).status == 404


async def test_a_list_that_has_not_changed_is_not_signed_again(make_server: MakeServer, clock: Any) -> None:
    """P9: anybody may fetch it, as often as they like; and nobody gets one that is about to expire."""
    server = await make_server(status_ttl=TTL, clock=clock)
    lists = server.status_lists
    assert lists is not None
    await place_of(server, await session_of(server))
    await until(lambda: lists._heard_at is not None)
    first = await lists.token(0)
    clock.advance(timedelta(seconds=5))
    assert await lists.token(0) == first
    clock.advance(timedelta(seconds=1))
    assert await lists.token(0) != first


def test_p9_a_full_list_fits_into_a_token() -> None:
    """Whatever it says: here, of each two tokens one is refused, at random."""
    statuses = status_list.StatusList(1, secrets.token_bytes(ENTRIES // 8))
    claims = status_list.build(statuses, uri=HERE + "9" * 9, issued_at=1, lifetime=30, ttl=10)
    assert len(status_list.sign(claims, Key.generate("RS256"))) < 16 * 1024


@pytest.mark.parametrize(("ended", "most"), [(0, 700), (65, 1_000), (655, 2_400)])
def test_r5_lists_have_the_sizes_that_the_documentation_quotes(ended: int, most: int) -> None:
    """Of 65 536 sessions none, one in a thousand, and one in a hundred have ended (docs/concepts/revocation.md)."""
    indexes = dict.fromkeys((status_list.nth_index(b"k" * 32, n, ENTRIES) for n in range(ended)), 1)
    statuses = status_list.pack(indexes, bits=1, entries=ENTRIES)
    claims = status_list.build(statuses, uri=HERE + "0", issued_at=1, lifetime=30, ttl=10)
    assert len(status_list.sign(claims, Key.generate("RS256"))) < most


@pytest.mark.parametrize("text", ["0s", "1500ms", "61m", "10", "s", "1h", "-1s"])
def test_a_ttl_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="COATCHECK_STATUS_TTL"):
        Settings.read({}, {"COATCHECK_STATUS_TTL": text})


async def test_keys_that_nobody_could_check_with_are_refused_at_the_start(make_server: MakeServer) -> None:
    with pytest.raises(ConfigurationError, match="HS256"):
        await make_server(status_ttl=TTL, algorithm="HS256")
