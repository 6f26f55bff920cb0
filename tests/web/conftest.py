"""The client that speaks ASGI itself."""

from __future__ import annotations

import pytest
from asgi_browser import Browser


@pytest.fixture
def browser() -> type[Browser]:
    return Browser
