"""Security Event Tokens over the Shared Signals Framework: offered by poll, what is said of them, and what is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from receiving import AUDIENCE, OTHER, TOKEN, read, settings

from coatcheck.core import security_event
from coatcheck.core.security_event import SESSION_REVOKED, VERIFICATION
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError
from coatcheck.server import set_queue, ssf_endpoint, transmitter
from coatcheck.server.set_queue import KEPT_MS, SetQueue
from coatcheck.server.turn import LASTS_MS, Turn
from coatcheck.testing import SettableClock
from coatcheck.testing.clock import START

if TYPE_CHECKING:
    from coatcheck.server.server import Server
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio

MakeServer = Callable[..., Awaitable["Server"]]
ClientOf = Callable[..., "Client"]
SECOND = {"name": "second", "audience": "https://second.example", "token": OTHER}


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    return await make_server(ssf_receivers=settings(SECOND))


@pytest.fixture
def client(server: Server, client_of: ClientOf) -> Client:
    return client_of(server)


async def signed_out(server: Server, subject: str = "ann") -> str:
    """End a session, and return its id."""
    session = await server.coat.sessions.create(subject, amr=("pwd",))
    assert session.id is not None
    assert await server.coat.sessions.revoke(session.id)
    return session.id


async def polled(client: Client, *, bearer: str = TOKEN, **asked: Any) -> Any:
    answer = await client("POST", "/ssf/poll", json={"returnImmediately": True, **asked}, bearer=bearer)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.header("cache-control") == "no-store"
    return answer.json


async def waiting(client: Client, count: int = 1, **asked: Any) -> dict[str, str]:
    """Poll until so many tokens wait."""
    async with asyncio.timeout(30):
        while len(found := (await polled(client, **asked))["sets"]) < count:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)
    return dict(found)


# -- what there is


async def test_r10_the_metadata_say_what_there_is(client: Client) -> None:
    answer = await client("GET", "/.well-known/ssf-configuration")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    here = "http://localhost:8000"
    assert answer.json == {
        "spec_version": "1_0",
        "issuer": here,
        "jwks_uri": f"{here}/.well-known/jwks.json",
        "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
        "configuration_endpoint": f"{here}/ssf/streams",
        "status_endpoint": f"{here}/ssf/status",
        "verification_endpoint": f"{here}/ssf/verify",
        "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6750"}],
        "default_subjects": "ALL",
    }


async def test_r10_a_receiver_reads_its_stream_and_no_other(client: Client) -> None:
    """As openid-ssf-stream-control-error-read-unknown-stream and ...-read-stream-with-invalid-token ask."""
    [stream] = (await client("GET", "/ssf/streams", bearer=TOKEN)).json
    assert stream == (await client("GET", "/ssf/streams?stream_id=poller", bearer=TOKEN)).json
    assert stream == {
        "stream_id": "poller",
        "iss": "http://localhost:8000",
        "aud": AUDIENCE,
        "events_supported": [SESSION_REVOKED],
        "events_requested": [SESSION_REVOKED],
        "events_delivered": [SESSION_REVOKED],
        "delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": "http://localhost:8000/ssf/poll"},
        "min_verification_interval": 5,
    }
    assert (await client("GET", "/ssf/status?stream_id=poller", bearer=TOKEN)).json["status"] == "enabled"
    for path in ("/ssf/streams?stream_id=second", "/ssf/status?stream_id=second", "/ssf/status"):
        assert (await client("GET", path, bearer=TOKEN)).status == 404
    assert [each["stream_id"] for each in (await client("GET", "/ssf/streams", bearer=OTHER)).json] == ["second"]


async def test_r10_streams_are_not_made_nor_changed_by_requests(client: Client) -> None:
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        assert (await client(method, "/ssf/streams", bearer=TOKEN, json={})).status == 405


ADDRESSES = [("GET", "/ssf/streams"), ("GET", "/ssf/status"), ("POST", "/ssf/verify"), ("POST", "/ssf/poll")]


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
async def test_r10_who_has_no_receivers_token_is_refused(
    client: Client, server: Server, method: str, path: str
) -> None:
    session = await server.coat.sessions.create("ann", amr=("pwd",))
    access = (await server.coat.sessions.issue(session)).access_token
    for bearer, challenge in ((None, "Bearer"), (f"{TOKEN}x", 'Bearer error="invalid_token"'), (access, None)):
        answer = await client(method, path, bearer=bearer, json={} if method == "POST" else None)
        assert answer.status == 401
        assert challenge in (None, answer.header("www-authenticate"))
        assert TOKEN not in answer.body.decode()


async def test_without_receivers_there_is_none_of_it(make_server: MakeServer, client_of: ClientOf) -> None:
    client = client_of(await make_server())
    for method, path in [*ADDRESSES, ("GET", "/.well-known/ssf-configuration")]:
        assert (await client(method, path, bearer=TOKEN)).status == 404


async def test_keys_that_nobody_could_check_with_are_refused_at_the_start(make_server: MakeServer) -> None:
    with pytest.raises(ConfigurationError, match="HS256"):
        await make_server(ssf_receivers=settings(), algorithm="HS256")


# -- poll


async def test_r6_r7_r9_a_sign_out_is_a_session_revoked_event_for_each_receiver(client: Client, server: Server) -> None:
    session_id = await signed_out(server)
    [(token_id, token)] = (await waiting(client)).items()
    claims = read(server, token)
    [[kind, event]] = claims.pop("events").items()
    assert (kind, set(event)) == (SESSION_REVOKED, {"event_timestamp", "reason_admin"})
    assert abs(event["event_timestamp"] * 1000 - server.coat.clock()) < 60_000
    assert claims.pop("iat") == event["event_timestamp"]
    transaction = claims.pop("txn")
    assert claims == {
        "iss": "http://localhost:8000",
        "aud": AUDIENCE,
        "jti": token_id,
        "sub_id": {"format": "complex", "session": {"format": "opaque", "id": session_id}},
    }
    [(other_id, other)] = (await waiting(client, bearer=OTHER)).items()
    assert other_id != token_id
    assert read(server, other, "https://second.example")["txn"] == transaction
    now, ring = server.coat.clock() / 1000, server.coat.keyring
    ours = security_event.verify(token, ring, issuer=server.settings.url, audience=AUDIENCE, now=now, leeway=5)
    assert ours.revokes() == (session_id, None)


async def test_r9_signing_out_everywhere_names_the_subject_as_well(client: Client, server: Server) -> None:
    for _ in range(2):
        await server.coat.sessions.create("ann", amr=("pwd",))
    await server.coat.sessions.revoke_all("ann")
    found = [read(server, token)["sub_id"] for token in (await waiting(client, 3)).values()]
    assert {"format": "iss_sub", "iss": "http://localhost:8000", "sub": "ann"} in found
    assert sum(each["format"] == "complex" for each in found) == 2


async def test_r9_what_is_not_acknowledged_comes_again_and_what_is_does_not(client: Client, server: Server) -> None:
    """A crash of the receiver between poll and acknowledgement loses nothing."""
    for _ in range(3):
        await signed_out(server)
    first = await waiting(client, 3)
    assert (await polled(client))["sets"].keys() == first.keys()
    one, two, three = first
    assert (await polled(client, ack=[two, "no such token", "../position"]))["sets"].keys() == {one, three}
    refused = {one: {"err": "invalid_key", "description": "words"}}
    assert (await polled(client, setErrs=refused))["sets"].keys() == {three}
    assert (await polled(client, ack=[three]))["sets"] == {}
    assert len(await waiting(client, 3, bearer=OTHER)) == 3


async def test_r9_a_receiver_takes_as_many_as_it_wants(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`maxEvents` 0 only acknowledges; the server has a limit of its own (P9)."""
    for _ in range(5):
        await signed_out(server)
    oldest = list(await waiting(client, 5))
    for most, more in ((0, True), (1, True), (4, True), (5, False), (10**9, False)):
        found = await polled(client, maxEvents=most)
        assert (list(found["sets"]), found["moreAvailable"]) == (oldest[:most], more)
    monkeypatch.setattr(ssf_endpoint, "MOST_SETS", 2)
    assert len((await polled(client))["sets"]) == 2
    found = await polled(client, maxEvents=0, ack=oldest)
    assert found == {"sets": {}, "moreAvailable": False}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"maxEvents": -1}', b'{"ack": [1]}', b'{"setErrs": {"a": 1}}', b'{"ack": "a"}']
)
async def test_r9_a_body_that_is_none_is_refused(client: Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert (await client("POST", "/ssf/poll", body=body, bearer=TOKEN, headers=headers)).status in (400, 415)


async def test_r9_members_that_are_not_known_are_ignored(client: Client) -> None:
    assert (await polled(client, another={"member": 1}))["sets"] == {}


async def test_r9_why_a_receiver_refuses_a_token_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await polled(client, setErrs={"x": {"err": "invalid_audience\n", "description": "words"}})
    assert "receiver poller: it refused the security event x: invalid_audience" in caplog.text


# -- nothing is lost


async def test_p1_r9_what_was_ended_before_a_crash_is_found_by_the_next_server(
    make_server: MakeServer, client_of: ClientOf
) -> None:
    """Killed after the sign-out was acknowledged, and before it was turned into a token."""
    first = await make_server(ssf_receivers=settings())
    before = await signed_out(first)
    await waiting(client_of(first))
    await first.transmitter.stop()
    after = await signed_out(first)
    await first.close()
    second = await make_server(ssf_receivers=settings())
    found = [read(second, token) for token in (await waiting(client_of(second), 2)).values()]
    assert [claims["sub_id"]["session"]["id"] for claims in found] == [before, after]


async def test_p1_r9_where_the_feed_cannot_say_what_came_after_all_that_counts_is_told(
    make_server: MakeServer, client_of: ClientOf
) -> None:
    """After a restored backup, say; what was told before comes again as the same token."""
    first = await make_server(ssf_receivers=settings())
    session_id = await signed_out(first)
    told = await waiting(client_of(first))
    await first.transmitter.stop()
    reached = await first.sets.reached()
    assert reached.stored is not None
    assert await first._documents.commit({}, {"ssf/position": reached.stored[:1] + b"\xce\x7f\xff\xff\xff"})
    other = await signed_out(first)
    await polled(client_of(first), ack=list(told))
    await first.transmitter.start()
    again = await waiting(client_of(first), 2)
    assert told.keys() <= again.keys()
    assert {read(first, token)["sub_id"]["session"]["id"] for token in again.values()} == {session_id, other}


async def test_p1_a_step_that_was_broken_off_is_done_again_with_the_same_tokens(
    server: Server, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every point in it; and of two servers at the same step, one goes on."""
    queue, receivers = SetQueue(documents, server.coat.policy), server.settings.receivers
    await server.transmitter.stop()
    for _ in range(20):
        await signed_out(server)
    batch = (await server.feed_hub.snapshot()).batch()
    await queue.begin(7)
    began, commit, left = await queue.reached(), documents.commit, 0

    async def until_broken_off(*arguments: Any, **named: Any) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            raise InterruptedError
        return await commit(*arguments, **named)

    monkeypatch.setattr(documents, "commit", until_broken_off)
    for step in (1, 2, 3):
        left = step
        with pytest.raises(InterruptedError):
            await queue.take(batch, receivers, began, START)
        assert await queue.reached() == began
    reached = await queue.take(batch, receivers, began, START)
    assert reached is not None
    assert reached == await queue.reached()
    assert reached.position == batch.position
    assert len(await queue.waiting("poller", 100)) == len(batch.revoked) == 20
    assert await queue.take(batch, receivers, began, START) is None
    assert len(await queue.waiting("poller", 100)) == 20


async def test_p9_what_nobody_takes_is_bounded_in_number_and_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go first, and what a receiver that is not known here has keeps its place."""
    receivers = server.settings.receivers
    await server.transmitter.stop()
    for _ in range(6):
        await signed_out(server)
    batch = (await server.feed_hub.snapshot()).batch()
    assert await server.sets.take(batch, receivers, await server.sets.reached(), server.coat.clock())
    all_of = await server.sets.waiting("poller", 100)
    monkeypatch.setattr(set_queue, "MOST_WAITING", 4)
    monkeypatch.setattr(set_queue, "_PAGE", 5)
    now = server.coat.clock()
    assert await server.sets.trim(receivers[:1], now) == {"poller": 2}
    assert await server.sets.waiting("poller", 100) == all_of[2:]
    assert len(await server.sets.waiting("second", 100)) == 6
    assert await server.sets.trim(receivers, now + 2 * KEPT_MS) == {"poller": 4, "second": 6}
    assert await server.sets.waiting("second", 100) == []


async def test_of_several_servers_one_at_a_time_has_the_turn(documents: Documents) -> None:
    """Whoever was killed loses it after some seconds; a clock that was far ahead keeps nobody waiting."""
    clock = SettableClock()
    one, two = Turn(documents, "turn", clock=clock), Turn(documents, "turn", clock=clock)
    assert [await one.take(), await two.take(), await one.take()] == [True, False, True]
    clock.advance(timedelta(milliseconds=LASTS_MS))
    assert [await two.take(), await one.take()] == [True, False]
    await one.give_up()
    assert await one.take() is False
    await two.give_up()
    assert [await one.take(), await two.take()] == [True, False]
    clock.advance(-timedelta(hours=1))
    assert await two.take() is True


async def test_another_server_goes_on_when_one_is_closed(
    make_server: MakeServer, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transmitter, "RENEW_SECONDS", 0.02)
    one = await make_server(ssf_receivers=settings())
    two = await make_server(ssf_receivers=settings())
    await signed_out(two)
    await waiting(client_of(two), 1)
    await one.close()
    await signed_out(two)
    await waiting(client_of(two), 2)


# -- verification


async def test_r10_a_verification_event_comes_when_it_is_asked_for(client: Client, server: Server) -> None:
    """As openid-ssf-transmitter-stream-verification-poll-and-ack asks."""
    asked = {"stream_id": "poller", "state": "a state of the receiver's"}
    answer = await client("POST", "/ssf/verify", json=asked, bearer=TOKEN)
    assert (answer.status, answer.body) == (204, b"")
    [(token_id, token)] = (await waiting(client)).items()
    claims = read(server, token)
    assert claims["events"] == {VERIFICATION: {"state": "a state of the receiver's"}}
    assert claims["sub_id"] == {"format": "opaque", "id": "poller"}
    assert (await polled(client, ack=[token_id]))["sets"] == {}
    assert (await polled(client, bearer=OTHER))["sets"] == {}
    often = await client("POST", "/ssf/verify", json=asked, bearer=TOKEN)
    assert (often.status, often.header("retry-after")) == (429, "5")
    assert (await client("POST", "/ssf/verify", json=asked, bearer=OTHER)).status == 404
    for state in ("", "x" * 2049):
        asked = {"stream_id": "second", "state": state}
        assert (await client("POST", "/ssf/verify", json=asked, bearer=OTHER)).status == 400
