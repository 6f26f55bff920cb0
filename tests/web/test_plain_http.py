"""Plain http: whoever signs in there is told why it has no effect."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck import Coatcheck
from coatcheck.web.asgi import CoatcheckMiddleware

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("scheme", "host", "told"),
    [
        ("http", "testserver", 1),
        ("http", "10.0.0.7:8000", 1),
        ("http", "localhost:8000", 0),
        ("http", "app.localhost", 0),
        ("http", "[::1]:8000", 0),
        ("https", "app.example", 0),
    ],
)
async def test_whoever_signs_in_over_plain_http_is_told_once_why_it_has_no_effect(
    browser: type[Any], scheme: str, host: str, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    ann = browser(CoatcheckMiddleware(_signing_in, coatcheck=Coatcheck()), scheme=scheme, host=host)
    for _ in range(2):
        assert (await ann("POST", "/")).status == 200
    assert sum("will be dropped" in record.getMessage() for record in caplog.records) == told


async def _signing_in(scope: Any, _: Any, send: Any) -> None:
    await scope["coatcheck"].sign_in("ann")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
