"""Requests that are cancelled at a random await while replies are on their way: nobody gets what is another's (P4)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from asgi_browser import Browser
from outages import application, coat_on, signed_in
from sites import Site

from coatcheck import Coatcheck
from coatcheck.core.credentials import SessionCookie
from coatcheck.testing import FaultProxy
from coatcheck.web.asgi import App

PEOPLE: Final = 40
_AT_ONCE: Final = 100
_KEYS: Final = 20  # that each of them writes


@dataclass(frozen=True)
class Cancelled:
    """What came of it."""

    answered: int
    cancelled: int


def dawdle(proxy: FaultProxy) -> None:
    """Let replies come late and in pieces, so that requests are cancelled in front of them and amid them."""
    proxy.delay(0.001)
    proxy.drip(300_000)


async def cancelled_requests(site: Site, count: int, chance: random.Random) -> Cancelled:
    """Send so many requests of people with a tag each, some cancelled at a random await, and check whose tag comes."""
    outcomes: Counter[str] = Counter()
    async with coat_on(site.store()) as coat:
        app = application(coat)
        people = [await signed_in(app, f"user{number}") for number in range(PEOPLE)]
        site.spoil(dawdle)
        for start in range(0, count, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, count))
            outcomes.update(await asyncio.gather(*(_one(app, people, number, chance) for number in numbers)))
        site.heal()
        assert [
            number for number, person in enumerate(people) if await _stored(coat, person) != {f"user{number}"}
        ] == []
    return Cancelled(outcomes["answered"], outcomes["cancelled"])


async def _one(app: App, people: list[Browser], number: int, chance: random.Random) -> str:
    who = number % PEOPLE
    browser = Browser(app)
    browser.jar = dict(people[who].jar)
    method, path = ("POST", f"/write?key=k{chance.randrange(_KEYS)}") if number % 3 else ("GET", "/me")
    task = asyncio.create_task(browser(method, path))
    if chance.random() < 0.75:
        if chance.random() < 0.5:
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(chance.random() * 0.02)
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return "cancelled"
    answer = task.result()
    assert (answer.status, answer.body.decode()) == (200, f"user{who} user{who}")
    return "answered"


async def _stored(coat: Coatcheck, person: Browser) -> set[object]:
    """Return the tags that are stored in one's session; each of its keys holds one."""
    [cookie] = person.jar.values()
    session = await coat.sessions.load(SessionCookie.parse(cookie.encode()))
    return {session.subject, *dict(session).values()}
