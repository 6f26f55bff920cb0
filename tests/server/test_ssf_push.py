"""Security Event Tokens that are pushed (RFC 8935): how, to whom, and what becomes of them after each answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from receiving import PushReceiver, answer, read, receiving, settings

from coatcheck.errors import ConfigurationError
from coatcheck.server import transmitter
from coatcheck.server.receivers import MOST_RECEIVERS, read_receivers
from coatcheck.server.settings import Settings
from coatcheck.server.transmitter import judge

if TYPE_CHECKING:
    from coatcheck.server.server import Server
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio

AUDIENCE = "https://pushed.example"
SECRET = "Bearer what-the-receiver-wants-to-see"


@pytest.fixture
async def receiver() -> PushReceiver:
    return PushReceiver()


@pytest.fixture
async def server(
    make_server: Callable[..., Awaitable[Server]], receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    monkeypatch.setattr(transmitter, "_PAUSE_SECONDS", 0.01)
    async with receiving(receiver) as port:
        url = f"http://127.0.0.1:{port}/events?of=coatcheck"
        pushed = {"name": "pushed", "audience": AUDIENCE, "push_url": url, "push_authorization": SECRET}
        yield await make_server(ssf_receivers=settings({**pushed, "token": "a-token-to-ask-for-a-verification"}))


async def signed_out(server: Server) -> str:
    session = await server.coat.sessions.create("ann", amr=("pwd",))
    assert session.id is not None
    await server.coat.sessions.revoke(session.id)
    return session.id


async def emptied(server: Server) -> None:
    """Return when nothing waits for the receiver any more."""
    async with asyncio.timeout(30):
        while await server.sets.waiting("pushed", 1):  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


async def test_r8_a_token_is_posted_as_the_rfc_says_and_not_again_when_it_was_taken(
    server: Server, receiver: PushReceiver
) -> None:
    session_id = await signed_out(server)
    await receiver.until(1)
    await emptied(server)
    await signed_out(server)
    await receiver.until(2)
    first, fields, body = receiver.requests[0]
    assert first == "POST /events?of=coatcheck HTTP/1.1"
    assert (fields["content-type"], fields["accept"]) == ("application/secevent+jwt", "application/json")
    assert fields["authorization"] == SECRET
    assert read(server, body.decode(), AUDIENCE)["sub_id"]["session"]["id"] == session_id
    await emptied(server)
    assert len({read(server, token, AUDIENCE)["jti"] for token in receiver.tokens}) == len(receiver.tokens) == 2
    assert len(await server.sets.waiting("poller", 10)) == 2


@pytest.mark.parametrize(
    ("status", "err", "outcome"),
    [
        (202, "", "delivered"),
        (200, "", "delivered"),
        (204, "", "delivered"),
        (400, "invalid_request", "dropped"),
        (400, "invalid_issuer", "dropped"),
        (400, "invalid_audience", "dropped"),
        (400, "one of a later specification", "dropped"),
        (400, "invalid_key", "later"),
        (400, "authentication_failed", "later"),
        (400, "access_denied", "later"),
        (400, "", "later"),
        (401, "invalid_request", "later"),
        (404, "", "later"),
        (307, "", "later"),
        (429, "", "later"),
        (500, "", "later"),
        (503, "", "later"),
    ],
)
def test_r8_what_becomes_of_a_token_after_each_answer(status: int, err: str, outcome: str) -> None:
    """RFC 8935, sections 2.2 to 2.4. What can be mended is sent again; what cannot is not sent for ever."""
    assert judge(status, answer(status, err).partition(b"\r\n\r\n")[2]).outcome == outcome


@pytest.mark.parametrize("body", [b"\xff", b"[", b"[]", b'{"err": 1}', b"[" * 10_000])
def test_r8_an_answer_that_cannot_be_read_drops_nothing(body: bytes) -> None:
    assert judge(400, body).outcome == "later"


async def test_r8_what_fails_is_sent_again_until_it_is_taken_and_what_is_refused_is_not(
    server: Server, receiver: PushReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """P6: trouble is logged once, and so is its end; no secret is in a log."""
    receiver.answers = [answer(503), answer(400, "invalid_key"), b"nonsense\r\n\r\n", b"", answer(202)]
    with caplog.at_level(logging.INFO):
        await signed_out(server)
        await receiver.until(5)
        await emptied(server)
        receiver.answers = [answer(400, "invalid_audience")]
        await signed_out(server)
        await receiver.until(6)
        await emptied(server)
    tokens = [read(server, token, AUDIENCE)["jti"] for token in receiver.tokens]
    assert len(set(tokens[:5])) == 1
    assert len(set(tokens)) == 2
    words = [record.message for record in caplog.records if record.name == "coatcheck.server"]
    assert words[0] == "receiver pushed: trying again: the answer was 503"
    assert words[1] == "receiver pushed: trying again: the answer was 400 invalid_key"
    assert "receiver pushed: all is well again" in words
    assert words[-1] == f"receiver pushed: it refused the security event {tokens[-1]}: invalid_audience"
    assert SECRET not in caplog.text
    assert "/events" not in caplog.text


async def test_r8_a_receiver_that_is_away_is_told_when_it_is_back(
    make_server: Callable[..., Awaitable[Server]], receiver: PushReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was not delivered when the server was killed is delivered by the next one, as the same token."""
    monkeypatch.setattr(transmitter, "_PAUSE_SECONDS", 0.01)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(receiving(receiver))
        await stack.aclose()
        pushed = {"name": "pushed", "audience": AUDIENCE, "push_url": f"http://127.0.0.1:{port}/"}
        first = await make_server(ssf_receivers=settings(pushed))
        await signed_out(first)
        async with asyncio.timeout(30):
            while not (waiting := await first.sets.waiting("pushed", 10)):  # noqa: ASYNC110 (there is no event)
                await asyncio.sleep(0.01)
        await first.close()
        await stack.enter_async_context(receiving(receiver, port))
        second = await make_server(ssf_receivers=settings(pushed))
        await receiver.until(1)
        await emptied(second)
    assert [read(second, token, AUDIENCE)["jti"] for token in receiver.tokens] == [waiting[0].token_id]


async def test_r10_a_verification_event_is_pushed(
    server: Server, receiver: PushReceiver, client_of: Callable[..., Client]
) -> None:
    """As openid-ssf-transmitter-stream-verification-push asks; who is pushed to has nothing to poll."""
    client, mine = client_of(server), "a-token-to-ask-for-a-verification"
    asked: dict[str, Any] = {"stream_id": "pushed"}
    assert (await client("POST", "/ssf/verify", json=asked, bearer=mine)).status == 204
    await receiver.until(1)
    assert list(read(server, receiver.tokens[0], AUDIENCE)["events"].values()) == [{}]
    assert (await client("POST", "/ssf/poll", json={}, bearer=mine)).status == 404
    delivery = (await client("GET", "/ssf/streams", bearer=mine)).json[0]["delivery"]
    assert delivery["method"] == "urn:ietf:rfc:8935"
    assert set(delivery) == {"method", "endpoint_url"}


# -- who is told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ("{}", "not an array"),
        ('[{"name": "a"}]', "not an array"),
        ('[{"name": "A b", "audience": "x"}]', "not an array"),
        ('[{"name": "a", "audience": "x", "pushurl": "y"}]', "not an array"),
        ('[{"name": "a", "audience": "x"}]', "needs a token"),
        ('[{"name": "a", "audience": "x", "push_url": "http://receiver.example/"}]', "https"),
        ('[{"name": "a", "audience": "x", "push_url": "https://receiver.example/a b"}]', "not an array"),
        ('[{"name": "a", "audience": "x", "push_url": "https://[/"}]', "https"),
        (
            '[{"name": "a", "audience": "x", "push_url": "https://x/", "push_authorization": "a\\r\\nb"}]',
            "not an array",
        ),
        ('[{"name": "a", "audience": "x", "token": "1"}, {"name": "a", "audience": "x", "token": "2"}]', "twice"),
        ('[{"name": "a", "audience": "x", "token": "1"}, {"name": "b", "audience": "x", "token": "1"}]', "of its own"),
        ("[" + ",".join(['{"name": "a", "audience": "x"}'] * (MOST_RECEIVERS + 1)) + "]", "at most 10"),
    ],
)
def test_receivers_that_cannot_be_are_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"COATCHECK_SSF_RECEIVERS.*{words}"):
        read_receivers(text)


def test_a_receivers_token_that_could_be_guessed_is_refused_and_nothing_is_shown(tmp_path: Any) -> None:
    short = '[{"name": "a", "audience": "x", "token": "short"}]'
    with pytest.raises(ConfigurationError, match="COATCHECK_SSF_RECEIVERS") as refused:
        Settings.read({}, {"COATCHECK_SSF_RECEIVERS": short})
    assert "short" not in str(refused.value)
    (tmp_path / "receivers.json").write_text(settings())
    found = Settings.read({}, {"COATCHECK_SSF_RECEIVERS_FILE": str(tmp_path / "receivers.json")})
    assert [each.name for each in found.receivers] == ["poller"]
    assert "token-of" not in repr(found) + repr(found.receivers)
