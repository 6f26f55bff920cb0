"""The page /compare: the table that everyone is taught, measured here, with the visitor's own browser as a witness.

    GET   /compare                 the page; it works without its script, as far as it can
    POST  /compare/measure         measure the table: once in the life of this process
    POST  /compare/cookies         set a cookie of every kind
    POST  /compare/session         begin a session of the demonstration
    POST  /compare/session/end     end it, and its token with it
    POST  /compare/remove          take back all cookies of the demonstration
    GET   /compare/check           is the demonstration's cookie, or token, any good? 200 or 401, in JSON

Nothing here reads or changes the visitor's real session. Cross-site requests are judged by the middleware, as
everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coatcheck import Exchange
from coatcheck.clock import monotonic_clock
from coatcheck.comparison import KINDS, Report, compare, proofs_of, report, taught
from coatcheck.errors import StoreUnavailable
from coatcheck.run import retrieved
from coatcheck.server.answers import go
from coatcheck.server.compare_cookies import COOKIES, PROOFS, browser_session, new_lines, received
from coatcheck.server.compare_demo import LIFETIME, Demo, record_facts, token_facts
from coatcheck.server.guard import POLICY
from coatcheck.server.rendering import render
from coatcheck.server.server import Server

PAGE: Final = "/compare"
CHECK: Final = "/compare/check"
# The one page with a script, which asks this server and nobody else.
_POLICY: Final = f"{POLICY}; script-src 'self'; connect-src 'self'"
_AGAIN_AFTER: Final = 60_000  # milliseconds after a failure


class ComparePage:
    """Serves the addresses of `routes`.

    Args:
        server: whose page it is.
    """

    def __init__(self, server: Server) -> None:
        self._demo = Demo(server.settings.url, server.coat.clock)
        self._table = _Table()

    @property
    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route(PAGE, self.page, methods=["GET"]),
            Route("/compare/measure", self.measure, methods=["POST"]),
            Route("/compare/cookies", self.set_cookies, methods=["POST"]),
            Route("/compare/session", self.start, methods=["POST"]),
            Route("/compare/session/end", self.end, methods=["POST"]),
            Route("/compare/remove", self.remove, methods=["POST"]),
            Route(CHECK, self.check, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """GET /compare."""
        visit = await self._demo.visit(request.scope)
        came = received(visit.head.values(b"cookie"))
        measured = self._table.report
        words = taught() if measured is None else measured.words
        proofs = dict.fromkeys((*(proofs_of(words) if measured is None else measured.proofs), *PROOFS))
        token = (await visit.issue()).access_token if visit.principal is not None else ""
        page = render(
            request,
            "compare.html",
            kinds=KINDS,
            report=measured,
            words=words,
            numbers={proof: number for number, proof in enumerate(proofs, 1)},
            cookies=COOKIES,
            cookie_proofs=PROOFS,
            came=came,
            browser_session=browser_session(came),
            record=record_facts(visit.session),
            token=token,
            claims=token_facts(token) if token else [],
            ended=visit.refusal is not None,
            minutes=LIFETIME.seconds // 60,
        )
        page.headers["content-security-policy"] = _POLICY
        return page

    async def measure(self, _: Request) -> Response:
        """POST /compare/measure: whoever comes meanwhile waits for the same figures."""
        await self._table.measure()
        return _back("table")

    async def set_cookies(self, _: Request) -> Response:
        """POST /compare/cookies."""
        return _with_lines(_back("cookies"), new_lines())

    async def start(self, request: Request) -> Response:
        """POST /compare/session."""
        visit = await self._demo.visit(request.scope)
        await self._demo.start(visit)
        return _dressed(_back("session"), visit)

    async def end(self, request: Request) -> Response:
        """POST /compare/session/end: the cookie stays, so that the browser can see it refused."""
        await self._demo.end(await self._demo.visit(request.scope))
        return _back("session")

    async def remove(self, request: Request) -> Response:
        """POST /compare/remove."""
        visit = await self._demo.visit(request.scope)
        await self._demo.end(visit)
        await visit.sign_out()
        return _with_lines(_dressed(_back("cookies"), visit), [cookie.deletion for cookie in COOKIES])

    async def check(self, request: Request) -> Response:
        """GET /compare/check: as any API would, with the cookie or the token that the request presents."""
        principal = (await self._demo.visit(request.scope)).require()
        body = msgspec.json.encode({"subject": principal.subject, "session_id": principal.session_id})
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})


class _Table:
    """The measured table: made once in the life of a process; after a failure, again a minute later."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._again_at = 0

    async def measure(self) -> None:
        """Have the figures, made by a thread that takes two seconds: one, however many wait.

        Raises:
            StoreUnavailable: there is no room for temporary files.
        """
        if self.report is not None:
            return
        if self._measuring is None:
            if monotonic_clock() < self._again_at:
                raise StoreUnavailable("measuring has just failed")
            self._measuring = asyncio.create_task(self._measure())
            self._measuring.add_done_callback(retrieved)
        # Shielded: that one of them goes away is no reason to begin anew.
        await asyncio.shield(self._measuring)

    async def _measure(self) -> None:
        try:
            self.report = report(await asyncio.to_thread(compare))
        finally:
            self._measuring = None
            self._again_at = monotonic_clock() + _AGAIN_AFTER


def _back(place: str) -> Response:
    return go(f"{PAGE}#{place}")


def _with_lines(response: Response, lines: Sequence[str]) -> Response:
    response.raw_headers += [(b"set-cookie", line.encode("ascii")) for line in lines]
    return response


def _dressed(response: Response, visit: Exchange) -> Response:
    response.raw_headers = visit.dress(response.raw_headers)
    return response
