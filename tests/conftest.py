"""Fixtures that every floor's tests may use."""

from __future__ import annotations

import pytest

# Before anybody imports it: its assertions then say what was compared.
pytest.register_assert_rewrite("coatcheck.testing.contract")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: it is what the servers that carry us run on."""
    return "asyncio"
