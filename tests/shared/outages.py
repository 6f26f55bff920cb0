"""What people see while a store is away, slow or forgetful: through the real middleware, all the time, by the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from asgi_browser import Browser
from sites import Site, Spoil
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coatcheck import Coatcheck, Keyring
from coatcheck.events import Event
from coatcheck.store import Store
from coatcheck.testing import FaultProxy
from coatcheck.web.asgi import App, CoatcheckMiddleware, exchange

KEYS: Final = Keyring.generate("HS256")
CLIENTS: Final = 6  # of each kind
PUBLIC: Final = "nobody"
PAUSE: Final = 0.005  # seconds between one's requests
PATIENCE: Final = 60.0  # seconds in which what must come has come
LONG: Final = 10.0  # seconds in which what was used has been given back


def quiet(_: Event) -> None: ...


def coat_on(store: Store) -> Coatcheck:
    return Coatcheck(store, KEYS, on_event=quiet)


async def _public(_: Request) -> Response:
    return PlainTextResponse("hello")


async def _me(request: Request) -> Response:
    found = exchange(request)
    return PlainTextResponse(f"{found.require().subject} {found.session['owner']}")


async def _write(request: Request) -> Response:
    found = exchange(request)
    subject = found.require().subject
    found.session[request.query_params["key"]] = subject
    return PlainTextResponse(f"{subject} {found.session['owner']}")


async def _sign_in(request: Request) -> Response:
    subject = request.query_params["subject"]
    found = exchange(request)
    await found.sign_in(subject)
    found.session["owner"] = subject
    return PlainTextResponse("welcome")


async def _sign_out(request: Request) -> Response:
    await exchange(request).sign_out()
    return PlainTextResponse("goodbye")


def application(coat: Coatcheck) -> App:
    return Starlette(
        routes=[
            Route("/public", _public),
            Route("/me", _me),
            Route("/write", _write, methods=["POST"]),
            Route("/sign-in", _sign_in, methods=["POST"]),
            Route("/sign-out", _sign_out, methods=["POST"]),
        ],
        middleware=[Middleware(CoatcheckMiddleware, coatcheck=coat)],
    )


async def signed_in(app: App, subject: str) -> Browser:
    browser = Browser(app)
    deadline = time.monotonic() + 20
    # A disk that other tests keep busy makes an acknowledgement wait, perhaps for longer than a short time limit.
    while (status := (await browser("POST", f"/sign-in?subject={subject}")).status) == 503:
        assert time.monotonic() < deadline
    assert status == 200
    return browser


@dataclass(frozen=True)
class Fault:
    """How a store goes away, and comes back."""

    begin: Callable[[Site], None]
    end: Callable[[Site], None]


AWAY: Final[Mapping[str, Fault]] = {
    "cut": Fault(lambda site: site.spoil(FaultProxy.cut), Site.heal),
    "held": Fault(lambda site: site.spoil(FaultProxy.hold), Site.heal),
    "replies held": Fault(lambda site: site.spoil(FaultProxy.hold_replies), Site.heal),
    "paused": Fault(Site.pause, Site.resume),
    "killed": Fault(Site.kill, Site.start),
}
"""Nothing can be answered while these last."""


class Answered(NamedTuple):
    """One request, and the moments at which it was sent and answered."""

    who: str
    sent: float
    at: float
    status: int
    body: str
    set_cookies: list[str]


class Crowd:
    """People who send one request after another: readers and writers with sessions, and some who have none."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._going = True
        self.log: list[Answered] = []

    async def __aenter__(self) -> Self:
        for number in range(CLIENTS):
            for kind, method, path in (("reader", "GET", "/me"), ("writer", "POST", "/write?key=last")):
                who = f"{kind}{number}"
                self._start(who, await signed_in(self._app, who), method, path)
        self._start(PUBLIC, Browser(self._app), "GET", "/public")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks.values())

    def _start(self, who: str, browser: Browser, method: str, path: str) -> None:
        self._tasks[who] = asyncio.create_task(self._visit(who, browser, method, path))

    async def _visit(self, who: str, browser: Browser, method: str, path: str) -> None:
        while self._going:
            sent = time.monotonic()
            answer = await browser(method, path)
            body, set_cookies = answer.body.decode(), answer.all("set-cookie")
            self.log.append(Answered(who, sent, time.monotonic(), answer.status, body, set_cookies))
            await asyncio.sleep(PAUSE)

    async def answered(self, since: float, times: int, statuses: Container[int] = (200, 503)) -> None:
        """Wait until each of them has had so many such answers to what was sent since then."""
        async with asyncio.timeout(PATIENCE):
            while min(self._counts(since, statuses).values()) < times:  # noqa: ASYNC110 (no event: the log grows)
                await asyncio.sleep(PAUSE)

    def _counts(self, since: float, statuses: Container[int]) -> Counter[str]:
        later = takewhile(lambda each: each.at >= since, reversed(self.log))
        counts = Counter(dict.fromkeys(self._tasks, 0))
        counts.update(each.who for each in later if each.sent >= since and each.status in statuses)
        return counts


@dataclass(frozen=True)
class Outage:
    """What came of it; in seconds."""

    refused: int
    slowest: float
    recovery: float


async def outage(site: Site, fault: Fault, *, seconds: float = 0, **options: Any) -> Outage:
    """Have a crowd on a site while its store is away for so long, and check every answer.

    While it is away, a protected page is 503 and nothing else, no cookie is touched, and public pages are served.
    Before and after, there is 200, or 503 for what was under way; everybody sees their own session only.
    """
    async with coat_on(site.store(**options)) as coat, Crowd(application(coat)) as crowd:
        await crowd.answered(0, 3, (200,))
        begun = time.monotonic()
        await asyncio.to_thread(fault.begin, site)
        gone = time.monotonic()
        await asyncio.sleep(seconds)
        await crowd.answered(gone, 2)
        back = time.monotonic()
        await asyncio.to_thread(fault.end, site)
        healed = time.monotonic()
        await crowd.answered(healed, 20, (200,))
    assert [each for each in crowd.log if is_wrong(each)] == []
    away = [each for each in crowd.log if each.sent >= gone and each.at <= back]
    assert [each for each in away if each.status != (200 if each.who == PUBLIC else 503)] == []
    refused = [each for each in crowd.log if each.status == 503]
    return Outage(
        refused=len(refused),
        slowest=max(each.at - max(each.sent, begun) for each in refused),
        recovery=max(0, max(each.at for each in refused) - healed),
    )


async def shaken(site: Site, shake: Spoil, times: int, **options: Any) -> Outage:
    """Have a crowd on a site whose network is shaken so often, each time after everybody has been answered again."""
    async with coat_on(site.store(**options)) as coat, Crowd(application(coat)) as crowd:
        await crowd.answered(0, 3, (200,))
        for _ in range(times):
            shook = time.monotonic()
            await asyncio.to_thread(site.spoil, shake)
            await crowd.answered(shook, 2)
        await asyncio.to_thread(site.heal)
        healed = time.monotonic()
        await crowd.answered(healed, 20, (200,))
    assert [each for each in crowd.log if is_wrong(each)] == []
    refused = [each for each in crowd.log if each.status == 503]
    return Outage(
        refused=len(refused),
        slowest=max((each.at - each.sent for each in refused), default=0),
        recovery=max(0, max((each.at for each in refused), default=healed) - healed),
    )


def is_wrong(answered: Answered) -> bool:
    """Say whether an answer is one that nobody may get, whatever the store does: not 401, and no cookie is touched."""
    expected = {200: "hello" if answered.who == PUBLIC else f"{answered.who} {answered.who}", 503: None}
    if answered.status not in expected or answered.set_cookies:
        return True
    return answered.status == 200 and answered.body != expected[200]


def held() -> Counter[str]:
    """Count what a process could leak: descriptors, threads but for the event loop's own helpers, and tasks."""
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    descriptors = len(list(Path("/dev/fd").iterdir()))
    return Counter(descriptors=descriptors, threads=len(threads), tasks=len(asyncio.all_tasks()))


@asynccontextmanager
async def nothing_leaked() -> AsyncIterator[None]:
    """Check that as much is held afterwards as before, soon at least."""
    before = held()
    logging.disable()  # pytest keeps what is logged: errors, and with them the connections that they came from
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
    deadline = time.monotonic() + LONG
    while not (after := held()) <= before and time.monotonic() < deadline:  # noqa: ASYNC110 (no event to wait for)
        await asyncio.sleep(PAUSE)
    assert after <= before
