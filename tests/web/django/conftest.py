"""A Django project over a coatcheck, for each test, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from counting_store import CountingStore
from django_site import Site, site

from coatcheck import Coatcheck
from coatcheck.testing import SettableClock


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def coat(store: CountingStore, clock: SettableClock) -> Coatcheck:
    return Coatcheck(store, clock=clock)


@pytest.fixture(params=["wsgi", "asgi"])
def here(request: pytest.FixtureRequest, coat: Coatcheck) -> Iterator[Site]:
    with site(request.param, coat) as served:
        yield served


@pytest.fixture
def alone(coat: Coatcheck) -> Iterator[Site]:
    """What does not depend on the protocol."""
    with site("wsgi", coat) as served:
        yield served
