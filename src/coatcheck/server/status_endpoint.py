"""GET /status-lists/{number}: a status list, as a signed token that anybody may fetch and keep (draft, section 8).

Accept            application/statuslist+jwt, or anything; 406 where only another form is wanted, such as CWT
Accept-Encoding   gzip is there
?time=            501: lists of the past are not kept
"""

from __future__ import annotations

import gzip
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coatcheck.errors import CoatcheckError
from coatcheck.server.api import NotFound
from coatcheck.server.status_lists import PATH, StatusLists

MEDIA_TYPE: Final = "application/statuslist+jwt"
_WANTED: Final = frozenset({MEDIA_TYPE, "application/*", "*/*"})
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_ZERO: Final = re.compile(r"0(\.0{0,3})?")


class NotAcceptable(CoatcheckError):
    """It is not there in the form that is wanted."""

    status = 406
    code = "not_acceptable"
    oauth_error = "invalid_request"


class NotKept(CoatcheckError):
    """Lists of the past are not kept."""

    status = 501
    code = "not_implemented"
    oauth_error = "invalid_request"


class StatusEndpoint:
    """Serves the address of `routes`.

    Args:
        lists: makes the lists.
    """

    def __init__(self, lists: StatusLists) -> None:
        self._lists = lists

    @property
    def routes(self) -> list[Route]:
        """The address."""
        return [Route(PATH + "{number}", self.status_list, methods=["GET"])]

    async def status_list(self, request: Request) -> Response:
        """Hand out a list."""
        if not _accepts(request.headers.getlist("accept") or ["*/*"], _WANTED):
            raise NotAcceptable(f"a status list is {MEDIA_TYPE}")
        if "time" in request.query_params:
            raise NotKept("lists of the past are not kept")
        number = str(request.path_params["number"])
        token = await self._lists.token(int(number)) if _NUMBER.fullmatch(number) else None
        if token is None:
            raise NotFound("there is no such status list")
        body = token.encode("ascii")
        headers = {
            "cache-control": f"public, max-age={self._lists.ttl}",
            "vary": "Accept, Accept-Encoding",
            "access-control-allow-origin": "*",
            "cross-origin-resource-policy": "cross-origin",
        }
        if _accepts(request.headers.getlist("accept-encoding"), frozenset({"gzip", "*"})):
            body, headers["content-encoding"] = gzip.compress(body, mtime=0), "gzip"
        return Response(body, media_type=MEDIA_TYPE, headers=headers)


def _accepts(values: list[str], wanted: frozenset[str]) -> bool:
    """Say whether a header names one of these (RFC 9110, section 12.5), and not with a weight of 0."""
    for each in ",".join(values).lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if name in wanted and not _ZERO.fullmatch(weight):
            return True
    return False
