"""Answers that hand out tokens: kept by nobody, and taken back by a sign-out."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck import Coatcheck
from coatcheck.web.asgi import CoatcheckMiddleware

pytestmark = pytest.mark.anyio


async def _issuing(scope: Any, _: Any, send: Any) -> None:
    body = (await scope["coatcheck"].issue()).access_token.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public, max-age=60")]})
    await send({"type": "http.response.body", "body": body})


async def test_c18_an_answer_that_may_hold_tokens_is_kept_by_nobody(browser: type[Any]) -> None:
    coat = Coatcheck()
    session = await coat.sessions.create("ann")
    assert session.cookie is not None
    client = browser(CoatcheckMiddleware(_issuing, coatcheck=coat))
    answer = await client("POST", "/", cookies=f"__Host-session={session.cookie.value}")
    assert answer.all("cache-control") == ["no-store"]
    assert answer.all("set-cookie") == []
    await coat.close()


async def _in_and_out(scope: Any, _: Any, send: Any) -> None:
    found = scope["coatcheck"]
    await found.sign_in("ann")
    found.hand_out_tokens(await found.issue())
    await found.sign_out()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_c2_tokens_that_were_handed_out_are_taken_back_by_a_sign_out_in_the_same_request(
    browser: type[Any],
) -> None:
    answer = await browser(CoatcheckMiddleware(_in_and_out, coatcheck=Coatcheck()))("POST", "/")
    lines = answer.all("set-cookie")
    assert sorted(line.partition("=")[0] for line in lines) == ["__Host-access", "__Host-refresh"]
    assert all("Max-Age=0" in line for line in lines)
