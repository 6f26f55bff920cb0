"""The transmitter's addresses (Shared Signals Framework 1.0, section 8; poll: RFC 8936), where there are receivers.

    GET   /.well-known/ssf-configuration   what there is, for anybody
    GET   /ssf/streams                     the receiver's stream: each has one, which the settings make
    GET   /ssf/status                      "enabled": it cannot be paused
    POST  /ssf/verify                      let a verification event come on the stream
    POST  /ssf/poll                        acknowledge tokens, and fetch those that wait

All but the first take the receiver's token, as a bearer token. Streams are made and ended by the settings only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coatcheck.clock import monotonic_clock
from coatcheck.core import security_event
from coatcheck.core.security_event import SESSION_REVOKED
from coatcheck.errors import CoatcheckError
from coatcheck.server.api import BadRequest, NotFound, NotJson
from coatcheck.server.messages import Poll, Polled, Verify
from coatcheck.server.receivers import Receiver
from coatcheck.server.server import Server
from coatcheck.server.service_tokens import ServiceTokens
from coatcheck.server.set_queue import Waiting

T = TypeVar("T", bound=msgspec.Struct)

CONFIGURATION: Final = "/.well-known/ssf-configuration"
MOST_SETS: Final = 32  # in one answer; each is signed
MOST_POLLING: Final = 4  # requests of one receiver that wait at once, at one server
POLL_SECONDS: Final = 25.0
LOOK_SECONDS: Final = 0.25
LEAST_BETWEEN_SECONDS: Final = 5  # verifications
PUSH: Final = "urn:ietf:rfc:8935"
POLL: Final = "urn:ietf:rfc:8936"
_STATUSES: Final = {"status": "enabled"}

_log = logging.getLogger("coatcheck.server")


class TooOften(CoatcheckError):
    """A receiver asks for more than it may."""

    status = 429
    code = "too_many_requests"
    oauth_error = "invalid_request"
    retry_after = LEAST_BETWEEN_SECONDS


class SsfEndpoint:
    """Serves the addresses of `routes`.

    Args:
        server: whose receivers these are.
    """

    def __init__(self, server: Server) -> None:
        receivers = server.settings.receivers
        self._server = server
        self._url = server.settings.url
        self._receivers = {receiver.name: receiver for receiver in receivers}
        self._tokens = ServiceTokens(((each.token, each.name) for each in receivers if each.token), "receiver's")
        self._polling = dict.fromkeys(self._receivers, 0)
        self._verified: dict[str, int] = {}

    @property
    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route(CONFIGURATION, self.configuration, methods=["GET"]),
            Route("/ssf/streams", self.streams, methods=["GET"]),
            Route("/ssf/status", self.status, methods=["GET"]),
            Route("/ssf/verify", self.verify, methods=["POST"]),
            Route("/ssf/poll", self.poll, methods=["POST"]),
        ]

    async def configuration(self, _: Request) -> Response:
        """Say what there is (section 7.1)."""
        found = {
            "spec_version": "1_0",
            "issuer": self._url,
            "jwks_uri": f"{self._url}/.well-known/jwks.json",
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": f"{self._url}/ssf/streams",
            "status_endpoint": f"{self._url}/ssf/status",
            "verification_endpoint": f"{self._url}/ssf/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6750"}],
            "default_subjects": "ALL",
        }
        return _json(found, caching="public, max-age=300")

    async def streams(self, request: Request) -> Response:
        """Describe the receiver's stream; without `stream_id`, in an array (section 8.1.1.2)."""
        receiver = self._authenticated(request)
        found = self._described(receiver)
        if "stream_id" not in request.query_params:
            return _json([found])
        _require_own(receiver, request.query_params["stream_id"])
        return _json(found)

    async def status(self, request: Request) -> Response:
        """Say that the stream is enabled (section 8.1.2.1)."""
        receiver = self._authenticated(request)
        _require_own(receiver, request.query_params.get("stream_id", ""))
        return _json({"stream_id": receiver.name, **_STATUSES})

    async def verify(self, request: Request) -> Response:
        """Put a verification event into the stream (section 8.1.4.2)."""
        receiver, asked = self._authenticated(request), await _body(request, Verify)
        _require_own(receiver, asked.stream_id)
        now = monotonic_clock()
        if now - self._verified.get(receiver.name, -(10**9)) < LEAST_BETWEEN_SECONDS * 1000:
            raise TooOften(f"a stream is verified once in {LEAST_BETWEEN_SECONDS} seconds")
        self._verified[receiver.name] = now
        state = None if asked.state is UNSET else asked.state
        await self._server.sets.verify(receiver, state, self._server.coat.clock())
        self._server.transmitter.wake(receiver.name)
        return Response(status_code=204)

    async def poll(self, request: Request) -> Response:
        """Forget what the receiver has acknowledged or refused, and hand out what waits (RFC 8936)."""
        receiver, asked = self._authenticated(request), await _body(request, Poll)
        if receiver.push_url:
            raise NotFound("this receiver's tokens are pushed")
        for token_id, error in asked.setErrs.items():
            words = "".join(c for c in f"{token_id[:64]}: {error.err[:64]}" if c.isprintable())
            _log.warning("receiver %s: it refused the security event %s", receiver.name, words)
        await self._server.sets.done(receiver.name, [*asked.ack, *asked.setErrs])
        most = MOST_SETS if asked.maxEvents is UNSET else min(asked.maxEvents, MOST_SETS)
        found = await self._waiting(request, receiver, most, patient=most > 0 and not asked.returnImmediately)
        sets = {each.token_id: await self._signed(each) for each in found[:most]}
        return _json(Polled(sets, len(found) > most))

    async def _waiting(self, request: Request, receiver: Receiver, most: int, *, patient: bool) -> list[Waiting]:
        """Return up to `most` tokens and one more, if there is one; with patience, wait for the first."""
        queue, name = self._server.sets, receiver.name
        found = await queue.waiting(name, most + 1)
        if found or not patient:
            return found
        if self._polling[name] >= MOST_POLLING:
            raise TooOften(f"{MOST_POLLING} requests of this receiver are waiting already")
        self._polling[name] += 1
        try:
            ends = monotonic_clock() + POLL_SECONDS * 1000
            while not found and monotonic_clock() < ends and not self._server.is_ending:
                await asyncio.sleep(LOOK_SECONDS)
                if await request.is_disconnected():
                    break
                found = await queue.waiting(name, most + 1)
            return found
        finally:
            self._polling[name] -= 1

    async def _signed(self, waiting: Waiting) -> str:
        await asyncio.sleep(0)  # a signature takes a millisecond, and others want to be served
        return security_event.sign(waiting.claims, self._server.coat.keyring.signing_key())

    def _authenticated(self, request: Request) -> Receiver:
        return self._receivers[self._tokens.owner(request.headers.raw)]

    def _described(self, receiver: Receiver) -> Mapping[str, Any]:
        delivery = {"method": PUSH, "endpoint_url": receiver.push_url}
        if not receiver.push_url:
            delivery = {"method": POLL, "endpoint_url": f"{self._url}/ssf/poll"}
        return {
            "stream_id": receiver.name,
            "iss": self._url,
            "aud": receiver.audience,
            "events_supported": [SESSION_REVOKED],
            "events_requested": [SESSION_REVOKED],
            "events_delivered": [SESSION_REVOKED],
            "delivery": delivery,
            "min_verification_interval": LEAST_BETWEEN_SECONDS,
        }


def _require_own(receiver: Receiver, stream_id: str) -> None:
    if stream_id != receiver.name:
        raise NotFound("you have no such stream")


async def _body(request: Request, kind: type[T]) -> T:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise NotJson("the body must be JSON, and the Content-Type must say so")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError:
        raise BadRequest("a member of the body is missing, or of the wrong type") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotJson("the body is not JSON") from None


def _json(content: object, *, caching: str = "no-store") -> Response:
    body = msgspec.json.encode(content)
    return Response(body, media_type="application/json", headers={"cache-control": caching})
