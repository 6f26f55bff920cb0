"""The JSON API for first-party clients; `openapi.py` describes it.

    POST   /api/sign-in                name and password -> cookie, or tokens, or both
    POST   /api/refresh                refresh token -> new tokens, the way it came
    GET    /api/session                whom the request acts as
    GET    /api/sessions               your devices
    DELETE /api/sessions/{id}          end one of them; the sign-in must be recent (S14)
    POST   /api/sign-out               end this session
    POST   /api/sign-out-everywhere    end all of them, or all but this one
    GET    /.well-known/jwks.json      what access tokens are verified with (J19)
    GET    /livez, /readyz             for whoever watches the process

Errors are {"error", "code", "error_description"}: the word of RFC 6749, 6750 or 9470, a stable code of ours, and
words for people. A body is JSON and says so: a form of another site cannot (F7).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from coatcheck.core.challenge import headers as challenge_headers
from coatcheck.core.challenge import status as challenge_status
from coatcheck.core.cookies import find_cookie
from coatcheck.errors import CoatcheckError, CredentialError, Missing
from coatcheck.keyfile import PUBLISH_AHEAD
from coatcheck.server.messages import (
    CurrentSession,
    Device,
    Devices,
    Ended,
    Health,
    Problem,
    Refresh,
    Refreshed,
    SignIn,
    SignOut,
    SignOutEverywhere,
    Tokens,
)
from coatcheck.server.openapi import describe
from coatcheck.server.server import Server
from coatcheck.web.asgi import exchange

T = TypeVar("T", bound=msgspec.Struct)
Headers = list[tuple[bytes, bytes]]

RECENT: Final = timedelta(minutes=30)

_JSON: Final = b"application/json"
_NO_STORE: Final = (b"cache-control", b"no-store")


class BadRequest(CoatcheckError):
    """What was sent is not what this address takes."""

    status = 400
    code = "bad_request"
    oauth_error = "invalid_request"


class NotJson(BadRequest):
    """The body is not JSON, or does not say that it is (F7)."""

    status = 415
    code = "not_json"


class NotFound(CoatcheckError):
    """There is no such thing, or it is not yours."""

    status = 404
    code = "not_found"
    oauth_error = "invalid_request"


def server_of(request: Request) -> Server:
    """Return what the handlers share."""
    found: Server = request.app.state.server
    return found


def refusal(error: CoatcheckError) -> Response:
    """Return an error's answer: JSON, with the right status, challenge and Retry-After."""
    problem = Problem(error.oauth_error, error.code, str(error))
    response = _json(problem, challenge_status(error), challenge_headers(error))
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        response.headers["retry-after"] = str(retry_after)
    return response


async def sign_in(request: Request) -> Response:
    """Sign in with name and password."""
    server, current, asked = server_of(request), exchange(request), await _body(request, SignIn)
    proof = await server.proof.prove(asked.account, asked.password, address=current.head.address)
    if asked.deliver == "token":
        return _json(Tokens.of(await server.proof.grant(current, proof, persistent=asked.remember)))
    await server.proof.sign_in(current, proof, persistent=asked.remember)
    if asked.tokens:
        current.hand_out_tokens(await current.issue())
    return await _whoami(request)


async def refresh(request: Request) -> Response:
    """Spend a refresh token; the new ones go back the way it came."""
    server, asked = server_of(request), await _body(request, Refresh)
    presented = asked.refresh_token or _refresh_cookie(request)
    if presented is None:
        raise Missing("this needs a refresh token")
    try:
        grant = await server.coat.sessions.refresh(presented)
        await server.proof.may_refresh(grant)
    except CredentialError as error:
        error.oauth_error = "invalid_grant"
        raise
    if asked.refresh_token is not None:
        return _json(Tokens.of(grant))
    exchange(request).hand_out_tokens(grant)
    return _json(Refreshed(grant.expires_in))


async def session(request: Request) -> Response:
    """Say whom the request acts as."""
    exchange(request).require()
    return await _whoami(request)


async def sessions(request: Request) -> Response:
    """List the subject's sessions."""
    principal = exchange(request).require()
    found = await server_of(request).coat.sessions.list(principal.subject)
    devices = [
        Device(
            id=each.id or "",
            current=each.id == principal.session_id,
            signed_in_at=each.signed_in_at // 1000,
            last_seen_at=each.seen_at // 1000,
            user_agent=each.device.user_agent,
            address=each.device.address,
        )
        for each in found
    ]
    return _json(Devices(devices))


async def end_session(request: Request) -> Response:
    """End one of the subject's sessions."""
    server, current = server_of(request), exchange(request)
    principal = current.require(max_age=RECENT)
    # The record and not the list: it also leads from an id that was rotated meanwhile to the session's new one.
    record = await server.coat.store.load(str(request.path_params["id"]))
    if record is None or record.subject != principal.subject:
        raise NotFound("you have no session with this id")
    if record.id == principal.session_id:
        ended = await current.sign_out()
    else:
        ended = await server.coat.sessions.revoke(record.id, reason="ended from another device")
    return _json(Ended(int(ended)))


async def sign_out(request: Request) -> Response:
    """End the session that the request acts for, by whatever it presents; who has none is signed out already."""
    current, asked = exchange(request), await _body(request, SignOut)
    by_token = asked.refresh_token or _refresh_cookie(request)
    if current.refusal is not None and by_token is None and current.head.value(b"authorization") is not None:
        # An access token that has expired ends nothing: to say "signed out" would leave its session alive.
        raise current.refusal
    return _json(Ended(int(await current.sign_out(refresh_token=asked.refresh_token))))


async def sign_out_everywhere(request: Request) -> Response:
    """End the subject's sessions; to end those of others only takes a recent sign-in (S14)."""
    current, asked = exchange(request), await _body(request, SignOutEverywhere)
    if asked.keep_current:
        current.require(max_age=RECENT)
        return _json(Ended(await current.sign_out_others()))
    return _json(Ended(await current.sign_out_everywhere()))


async def jwks(request: Request) -> Response:
    """Publish the keys that access tokens are verified with."""
    # A key is published this long before it signs (P8): whoever caches as told knows it by then.
    caching = f"public, max-age={PUBLISH_AHEAD // timedelta(seconds=1)}"
    document = msgspec.json.encode(server_of(request).coat.keyring.jwks())
    return Response(document, media_type="application/jwk-set+json", headers={"cache-control": caching})


async def livez(_: Request) -> Response:
    """Say that the process answers; nothing else is asked."""
    return _json(Health("ok"))


async def readyz(request: Request) -> Response:
    """Say whether store and feed answer too."""
    problems = await server_of(request).problems()
    if problems:
        return _json(Health("unavailable", tuple(problems)), 503, [(b"retry-after", b"1")])
    return _json(Health("ok"))


async def openapi(request: Request) -> Response:
    """Describe this API."""
    return Response(msgspec.json.encode(describe(server_of(request).settings.url)), media_type="application/json")


routes: list[BaseRoute] = [
    Route("/api/sign-in", sign_in, methods=["POST"]),
    Route("/api/refresh", refresh, methods=["POST"]),
    Route("/api/session", session, methods=["GET"]),
    Route("/api/sessions", sessions, methods=["GET"]),
    Route("/api/sessions/{id}", end_session, methods=["DELETE"]),
    Route("/api/sign-out", sign_out, methods=["POST"]),
    Route("/api/sign-out-everywhere", sign_out_everywhere, methods=["POST"]),
]

# These look at no credential, so they answer whatever the store does.
open_routes: list[BaseRoute] = [
    Route("/.well-known/jwks.json", jwks, methods=["GET"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/openapi.json", openapi, methods=["GET"]),
]


async def _whoami(request: Request) -> Response:
    principal = exchange(request).require()
    account = await server_of(request).accounts.get(principal.subject)
    return _json(
        CurrentSession(
            subject=principal.subject,
            account=account.name if account else "",
            admin=account.admin if account else False,
            session_id=principal.session_id,
            auth_time=principal.auth_time,
            amr=tuple(principal.amr),
            scopes=tuple(sorted(principal.scopes)),
        )
    )


def _refresh_cookie(request: Request) -> str | None:
    name = server_of(request).coat.policy.refresh_cookie.name.encode("ascii")
    found = find_cookie(exchange(request).head.values(b"cookie"), name)
    return None if found is None else found.decode("latin-1")


async def _body(request: Request, kind: type[T]) -> T:
    """Return the request's body as what is expected; where there is neither a body nor a type, that is an empty object.

    Raises:
        NotJson: it is something else, or does not say what it is.
        BadRequest: a member is missing, unknown, or of the wrong type.
    """
    declared, body = exchange(request).head.value(b"content-type"), await request.body()
    if (declared or b"").partition(b";")[0].strip().lower() != _JSON and (body or declared is not None):
        raise NotJson("the body must be JSON, and the Content-Type must say so")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(_words(str(error))) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotJson("the body is not JSON") from None


def _words(problem: str) -> str:
    """Return what is wrong with a body, without what was sent: it may be a secret in the wrong place."""
    place = problem.rpartition(" - at `")[2].rstrip("`") if " - at `" in problem else "$"
    if problem.startswith("Object contains unknown field"):
        return "a member that is not known here"
    if problem.startswith("Invalid enum value"):
        return f"not one of the known words: {place}"
    return problem


def _json(content: msgspec.Struct, status: int = 200, headers: Headers | None = None) -> Response:
    response = Response(msgspec.json.encode(content), status, media_type="application/json")
    extra: dict[bytes, Any] = dict([_NO_STORE, *(headers or [])])
    for name, value in extra.items():
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response
