"""Verifiers and receivers that have nothing of ours: they poll, over real HTTP, and read with other libraries."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from auth_server import DEADLINE, AuthServer, until
from receiving import TOKEN, read, settings

from coatcheck.server import ssf_endpoint

STATUS_LIST = "application/statuslist+jwt"


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=DEADLINE) as answer:  # noqa: S310
        return bytes(answer.read())


def poll(auth: AuthServer, **asked: Any) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{auth.url}/ssf/poll", json.dumps(asked).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:  # noqa: S310
        return dict(json.load(answer)["sets"])


class PollingVerifier:
    """PyJWT for signatures, zlib and a shift for the list: what a service in another language would do."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._keys = jwt.PyJWKSet.from_dict(json.loads(get(f"{issuer}/.well-known/jwks.json")))

    def is_good(self, token: str) -> bool:
        claims = self._read(token, "at+jwt", audience=self._issuer)
        place = claims["status"]["status_list"]
        listed = self._read(get(place["uri"], Accept=STATUS_LIST).decode(), "statuslist+jwt", subject=place["uri"])
        packed = listed["status_list"]["lst"]
        octets = zlib.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        assert listed["status_list"]["bits"] == 1
        return not octets[place["idx"] // 8] >> (place["idx"] % 8) & 1

    def _read(self, token: str, kind: str, **more: Any) -> Any:
        header = jwt.get_unverified_header(token)
        assert header["typ"] == kind
        return jwt.decode(token, self._keys[header["kid"]], algorithms=["ES256"], **more)


@pytest.fixture
def polled(make_server: Callable[..., AuthServer]) -> AuthServer:
    return make_server(status_ttl=timedelta(seconds=1), ssf_receivers=settings())


def test_r2_r5_a_verifier_that_can_only_poll_refuses_what_was_ended_and_nothing_else(polled: AuthServer) -> None:
    """And what it fetches is small: blank, and with a revocation in a hundred; see R5 for others' sizes."""
    tokens = [polled.token(f"subject{number}") for number in range(20)]
    verifier = PollingVerifier(polled.url)
    until(lambda: _is_there(f"{polled.url}/status-lists/0"))
    assert all(verifier.is_good(token) for token in tokens)
    assert len(get(f"{polled.url}/status-lists/0")) < 500
    for number in range(0, 20, 2):
        polled.revoke_all(f"subject{number}")
    until(lambda: not any(verifier.is_good(token) for token in tokens[::2]))
    assert all(verifier.is_good(token) for token in tokens[1::2])


def _is_there(url: str) -> bool:
    try:
        return bool(get(url))
    except urllib.error.HTTPError as error:
        assert error.code == 503
        return False


def test_r9_a_poll_waits_for_what_comes_and_for_no_longer_than_it_should(
    polled: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`returnImmediately` is false unless it is asked for (RFC 8936, section 2.2)."""
    began = time.monotonic()
    assert poll(polled, returnImmediately=True) == {}
    assert time.monotonic() - began < DEADLINE
    monkeypatch.setattr(ssf_endpoint, "POLL_SECONDS", 0.3)
    assert poll(polled) == {}
    monkeypatch.setattr(ssf_endpoint, "POLL_SECONDS", DEADLINE)
    found: list[dict[str, str]] = []
    waits = threading.Thread(target=lambda: found.append(poll(polled)), daemon=True)
    waits.start()
    until(lambda: polled.requests["/ssf/poll"] == 3)
    session_id, _ = polled.do(polled.issue("ann"))
    polled.do(polled.server.coat.sessions.revoke(session_id))
    waits.join(DEADLINE)
    [token] = found[0].values()
    assert read(polled.server, token)["sub_id"]["session"]["id"] == session_id


def test_a_server_that_ends_lets_those_go_who_poll(polled: AuthServer) -> None:
    found: list[dict[str, str]] = []
    waits = threading.Thread(target=lambda: found.append(poll(polled)), daemon=True)
    waits.start()
    until(lambda: polled.requests["/ssf/poll"] == 1)
    assert polled.stop() < 5
    waits.join(DEADLINE)
    assert found == [{}]


def test_p9_more_polls_than_may_wait_are_told_to_come_later(
    polled: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssf_endpoint, "MOST_POLLING", 0)
    with pytest.raises(urllib.error.HTTPError, match="429"):
        poll(polled)
