"""OpenAPI 3.1: the JSON API's description, from a table of operations and the messages' own types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

import coatcheck
from coatcheck.server.messages import (
    CurrentSession,
    Devices,
    Ended,
    Health,
    Poll,
    Polled,
    Problem,
    Refresh,
    Refreshed,
    SignIn,
    SignOut,
    SignOutEverywhere,
    Tokens,
    Verify,
)

_REF: Final = "#/components/schemas/{name}"
_Security = tuple[Mapping[str, Sequence[str]], ...]
_ANY_OF_THEM: Final[_Security] = ({"sessionCookie": []}, {"accessToken": []}, {"accessCookie": []})
_NOBODY: Final[_Security] = ({},)
_RECEIVER: Final[_Security] = ({"receiverToken": []},)
_IF_RECEIVERS: Final = "Only where the server has receivers (COATCHECK_SSF_RECEIVERS)."
_COOKIES: Final = "Cookies are set: __Host-session, and where tokens were asked for, __Host-access and __Host-refresh."

# What the statuses of errors mean; each operation names those that it can have.
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "A member of the body is missing, unknown, or of the wrong type.",
    401: "Nothing was presented, or it is no good; WWW-Authenticate says which. The cookie is left alone.",
    403: "A browser sent this on behalf of another site, or the token's scope does not suffice.",
    404: "There is no such thing, or it is not yours.",
    406: "It is wanted in a form that it does not have.",
    408: "The body took longer than 10 seconds to arrive.",
    413: "The body is larger than 64 KiB.",
    415: "The body is not JSON, or its Content-Type does not say so.",
    429: "Too many attempts; Retry-After says when to come back. Sign-ins are counted by account and by address.",
    501: "Lists of the past are not kept.",
    503: "The store does not answer, or too many passwords are being checked. Nobody has been signed out.",
}
_WITH_BODY: Final = (400, 408, 413, 415)


@dataclass(frozen=True, kw_only=True)
class _Operation:
    method: str
    path: str
    id: str
    summary: str
    answers: tuple[type, ...]
    problems: tuple[int, ...] = ()
    body: type | None = None
    note: str = ""
    security: _Security = _ANY_OF_THEM
    media_type: str = "application/json"
    success: int = 200
    query: tuple[str, ...] = ()


_OPERATIONS: Final = (
    _Operation(
        method="post",
        path="/api/sign-in",
        id="signIn",
        summary="Sign in with name and password",
        note=f"deliver=cookie answers with the session; deliver=token with tokens. {_COOKIES}",
        body=SignIn,
        answers=(CurrentSession, Tokens),
        problems=(*_WITH_BODY, 401, 403, 429, 503),
        security=_NOBODY,
    ),
    _Operation(
        method="post",
        path="/api/refresh",
        id="refresh",
        summary="Spend a refresh token for new tokens",
        note=f"From the body, or else from the cookie; the new tokens go back the same way. {_COOKIES}",
        body=Refresh,
        answers=(Tokens, Refreshed),
        problems=(*_WITH_BODY, 401, 403, 503),
        security=_NOBODY,
    ),
    _Operation(
        method="get",
        path="/api/session",
        id="getSession",
        summary="Whom the request acts as",
        answers=(CurrentSession,),
        problems=(401, 503),
    ),
    _Operation(
        method="get",
        path="/api/sessions",
        id="listSessions",
        summary="Your sessions on all devices, last seen first",
        answers=(Devices,),
        problems=(401, 503),
    ),
    _Operation(
        method="delete",
        path="/api/sessions/{id}",
        id="endSession",
        summary="End one of your sessions",
        note="Needs a sign-in that is not older than 30 minutes: else 401 insufficient_user_authentication.",
        answers=(Ended,),
        problems=(401, 403, 404, 503),
    ),
    _Operation(
        method="post",
        path="/api/sign-out",
        id="signOut",
        summary="End this session: its cookie and its tokens die together",
        body=SignOut,
        answers=(Ended,),
        problems=(*_WITH_BODY, 401, 403, 503),
    ),
    _Operation(
        method="post",
        path="/api/sign-out-everywhere",
        id="signOutEverywhere",
        summary="End all your sessions, or all but this one",
        body=SignOutEverywhere,
        answers=(Ended,),
        problems=(*_WITH_BODY, 401, 403, 503),
    ),
    _Operation(
        method="get",
        path="/.well-known/jwks.json",
        id="getKeys",
        summary="The public keys that access tokens are verified with (RFC 7517)",
        answers=(dict,),
        security=_NOBODY,
        media_type="application/jwk-set+json",
    ),
    _Operation(
        method="get",
        path="/livez",
        id="isAlive",
        summary="Whether the process answers",
        answers=(Health,),
        security=_NOBODY,
    ),
    _Operation(
        method="get",
        path="/readyz",
        id="isReady",
        summary="Whether store and feed answer too; 503 if not",
        answers=(Health,),
        security=_NOBODY,
    ),
    _Operation(
        method="get",
        path="/status-lists/{number}",
        id="getStatusList",
        summary="Which tokens are still good, as a Token Status List",
        note="Only where the server has status lists (COATCHECK_STATUS_TTL). Tokens name their list in `status`.",
        answers=(str,),
        problems=(404, 406, 501, 503),
        security=_NOBODY,
        media_type="application/statuslist+jwt",
    ),
    _Operation(
        method="get",
        path="/.well-known/ssf-configuration",
        id="getTransmitter",
        summary="What the transmitter of security events offers (Shared Signals Framework 1.0)",
        note=_IF_RECEIVERS,
        answers=(dict,),
        problems=(404,),
        security=_NOBODY,
    ),
    _Operation(
        method="get",
        path="/ssf/streams",
        id="getStreams",
        summary="The receiver's stream of security events",
        note=f"With stream_id the one stream, else an array. {_IF_RECEIVERS}",
        answers=(dict, list),
        problems=(401, 404),
        security=_RECEIVER,
        query=("stream_id",),
    ),
    _Operation(
        method="get",
        path="/ssf/status",
        id="getStreamStatus",
        summary="Whether the stream is enabled, which it is",
        note=_IF_RECEIVERS,
        answers=(dict,),
        problems=(401, 404),
        security=_RECEIVER,
        query=("stream_id",),
    ),
    _Operation(
        method="post",
        path="/ssf/verify",
        id="verifyStream",
        summary="Let a verification event come on the stream",
        note=_IF_RECEIVERS,
        body=Verify,
        answers=(),
        problems=(*_WITH_BODY, 401, 404, 429, 503),
        security=_RECEIVER,
        success=204,
    ),
    _Operation(
        method="post",
        path="/ssf/poll",
        id="poll",
        summary="Acknowledge security events, and fetch those that wait (RFC 8936)",
        note=_IF_RECEIVERS,
        body=Poll,
        answers=(Polled,),
        problems=(*_WITH_BODY, 401, 404, 429, 503),
        security=_RECEIVER,
    ),
)


@cache
def describe(url: str) -> dict[str, Any]:
    """Return the description of the API at `url`."""
    named = {kind for operation in _OPERATIONS for kind in (*operation.answers, operation.body) if kind is not None}
    kinds = sorted(named - _PLAIN.keys() | {Problem}, key=lambda kind: kind.__name__)
    schemas = msgspec.json.schema_components(kinds, ref_template=_REF)[1]
    paths: dict[str, dict[str, Any]] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "coatcheck", "version": coatcheck.__version__, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
    }


_SECURITY: Final = {
    "sessionCookie": {"type": "apiKey", "in": "cookie", "name": "__Host-session"},
    "accessCookie": {"type": "apiKey", "in": "cookie", "name": "__Host-access"},
    "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "receiverToken": {"type": "http", "scheme": "bearer"},
}


def _described(operation: _Operation) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if operation.note:
        found["description"] = operation.note
    parameters = [_parameter(name, "path") for name in re.findall(r"{(\w+)}", operation.path)]
    parameters += [_parameter(name, "query") for name in operation.query]
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": _schema(operation.body)}}
        found["requestBody"] = {"required": True, "content": content}
    found["responses"] = _responses(operation)
    found["security"] = operation.security
    return found


def _parameter(name: str, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}


def _responses(operation: _Operation) -> dict[str, Any]:
    schemas = [_schema(kind) for kind in operation.answers]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    good: dict[str, Any] = {"description": operation.summary}
    if schemas:
        good["content"] = {operation.media_type: {"schema": schema}}
    found: dict[str, Any] = {str(operation.success): good}
    for status in sorted(operation.problems):
        content = {"application/json": {"schema": _schema(Problem)}}
        found[str(status)] = {"description": _PROBLEMS[status], "content": content}
    if operation.path == "/readyz":
        found["503"] = {**good, "description": "Something does not answer."}
    return found


_PLAIN: Final[Mapping[type, dict[str, str]]] = {
    dict: {"type": "object"},
    list: {"type": "array"},
    str: {"type": "string"},
}


def _schema(kind: type) -> dict[str, str]:
    return _PLAIN.get(kind) or {"$ref": _REF.format(name=kind.__name__)}
