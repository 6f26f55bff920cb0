"""The issuer's keys: known before they sign, fetched rarely, and never lost to nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from auth_server import AuthServer, until

from coatcheck import BadSignature, Key, Keyring
from coatcheck.remote import keys, listener
from coatcheck.remote.keys import IssuerKeys
from coatcheck.remote.origin import Origin
from coatcheck.verifier import RemoteVerifier

Make = Callable[..., RemoteVerifier]


def test_a_rotation_is_adopted_before_its_first_token_comes(auth: AuthServer, make: Make) -> None:
    """P8: the upcoming key is published already, so nobody meets a token whose key is not known."""
    verifier = make(auth)
    old, coat = auth.token(), auth.server.coat
    upcoming = coat.keyring.upcoming
    assert upcoming is not None
    assert verifier.keyring.find(upcoming.kid) is not None
    auth.do(_rotate(auth))
    new = auth.token("zoe")
    assert coat.keyring.signing_key().kid == upcoming.kid
    assert (verifier.verify(old).subject, verifier.verify(new).subject) == ("ann", "zoe")
    assert auth.requests[keys.PATH] == 1


def test_a_key_that_is_not_known_is_fetched_once_for_all_who_ask_and_the_token_refused_meanwhile(
    auth: AuthServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice "--now": the signing key was not published when the verifier fetched the keys."""
    monkeypatch.setattr(keys, "COOL_DOWN", 0.2)
    verifier = make(auth)
    for _ in range(2):
        auth.do(_rotate(auth))
    token = auth.token()

    def verified(_: int = 0) -> bool:
        try:
            return verifier.verify(token).subject == "ann"
        except BadSignature:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert not all(pool.map(verified, range(100)))
    until(verified)
    assert auth.requests[keys.PATH] <= 3


def test_strangers_with_made_up_keys_have_the_keys_fetched_rarely(
    auth: AuthServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9, J11: not more than once in five seconds, however many tokens they send."""
    verifier = make(auth)
    header, rest = auth.token().split(".", 1)
    stranger = f"eyJhbGciOiJFUzI1NiIsImtpZCI6Im5vIiwidHlwIjoiYXQrand0In0.{rest}"
    for _ in range(300):
        with pytest.raises(BadSignature):
            verifier.verify(stranger)
    assert auth.requests[keys.PATH] <= 2
    monkeypatch.setattr(listener._Life, "want_keys", lambda _: pytest.fail("its key is known"))
    with pytest.raises(BadSignature):
        verifier.verify(f"{header}.{rest[:-8]}AAAAAAAA")


async def _rotate(auth: AuthServer) -> None:
    auth.server.coat.keyring.adopt(await auth.server.keys.rotate(published_for=timedelta(0)))


# -- what an issuer may publish instead


class Issuer:
    """A server that publishes what it is told to."""

    def __init__(self) -> None:
        self.url, self.answer, self.asked = "", b"", 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        writer.write(self.answer)
        writer.close()

    def publish(self, document: object, *, fields: str = "", status: int = 200) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/jwk-set+json\r\n{fields}\r\n"
        self.answer = head.encode() + body


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with await asyncio.start_server(issuer.serve, "127.0.0.1", 0) as server:
        issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield issuer


@pytest.fixture
def watched(issuer: Issuer) -> tuple[IssuerKeys, Keyring]:
    ring = Keyring(None, secret=bytes(range(32)))
    return IssuerKeys(Origin(issuer.url), ring), ring


RSA = Key.generate("RS256")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("document", "fields", "status"),
    [
        (b"<html>", "", 200),
        ({"keys": []}, "", 200),
        ({"keys": [RSA.private_jwk()]}, "", 200),
        ({"keys": [Key.from_secret(bytes(range(32))).private_jwk()]}, "", 200),
        ({"keys": [RSA.jwk(), RSA.jwk()]}, "", 200),
        ({"keys": [{**RSA.jwk(), "n": "AQAB"}]}, "", 200),
        (b'{"keys":[],"keys":[]}', "", 200),
        (b" " * 300_000, "", 200),
        ({"keys": [RSA.jwk()]}, "", 500),
        ({"keys": [RSA.jwk()]}, "location: http://127.0.0.1:1/\r\n", 302),
        ({"keys": [RSA.jwk()]}, "content-length: 9999\r\n", 200),
        ({"keys": [RSA.jwk()]}, "content-type: text/html\r\n", 200),
    ],
)
async def test_nonsense_takes_no_keys_away_and_adds_none(
    document: object, fields: str, status: int, issuer: Issuer, watched: tuple[IssuerKeys, Keyring]
) -> None:
    found, ring = watched
    issuer.publish(document, fields=fields, status=status)
    wait = await found._fetch()
    assert wait < 1, "there are no keys yet: it is tried again soon"
    assert not found.known.is_set()
    good = Key.generate("ES256")
    issuer.publish({"keys": [good.jwk()]})
    await found._fetch()
    assert found.known.is_set()
    issuer.publish(document, fields=fields, status=status)
    assert await found._fetch() == keys.COOL_DOWN
    assert [key.kid for key in ring.verification_keys] == [good.kid]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ("", 150),
        ("cache-control: public, max-age=300\r\n", 150),
        ("cache-control: max-age=60\r\nage: 20\r\n", 20),
        ("cache-control: max-age=99999\r\n", 150),
        ("cache-control: max-age=300\r\nage: 299\r\n", 5),
        ("cache-control: no-store, max-age=0\r\n", 5),
        ("cache-control: max-age=soon\r\nage: -1\r\n", 150),
        ("cache-control: x-max-age=60\r\n", 150),
    ],
)
async def test_keys_are_fetched_again_when_half_of_their_time_is_over(
    fields: str, seconds: float, issuer: Issuer, watched: tuple[IssuerKeys, Keyring]
) -> None:
    """P8: so a failed try does not lead past the time for which a key is published ahead."""
    found, _ = watched
    issuer.publish({"keys": [RSA.jwk()]}, fields=fields)
    assert await found._fetch() == seconds


@pytest.mark.anyio
async def test_a_set_that_has_not_changed_is_not_taken_over_again(
    issuer: Issuer, watched: tuple[IssuerKeys, Keyring]
) -> None:
    """What verifying has learned of the keys stays."""
    found, ring = watched
    issuer.publish({"keys": [RSA.jwk()]})
    await found._fetch()
    roles = ring.roles
    await found._fetch()
    assert ring.roles is roles
    issuer.publish({"keys": [RSA.jwk(), Key.generate("ES256").jwk()]})
    await found._fetch()
    assert len(ring.verification_keys) == 2


@pytest.mark.anyio
async def test_after_a_failure_and_when_they_are_wanted_keys_are_fetched_after_the_cool_down(
    issuer: Issuer, watched: tuple[IssuerKeys, Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = watched
    monkeypatch.setattr(keys, "COOL_DOWN", 0.02)
    issuer.publish({"keys": [RSA.jwk()]})
    watching = asyncio.create_task(found.watch())
    async with asyncio.timeout(30):
        await found.known.wait()
        for number in range(2, 5):
            found.want()
            while issuer.asked < number:  # noqa: ASYNC110 (there is no event to wait for)
                await asyncio.sleep(0.005)
        issuer.publish(b"<html>")
        found.want()
        while issuer.asked < 10:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.005)
    watching.cancel()
