"""The Coatcheck that the project's settings name, opened once in each process."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings
from django.utils.module_loading import import_string

from coatcheck.compose import Coatcheck
from coatcheck.errors import ConfigurationError
from coatcheck.run import offload
from coatcheck.web.background import Background
from coatcheck.web.opening import OPENING_SECONDS


def coatcheck() -> Coatcheck:
    """Return the project's Coatcheck.

    Raises:
        ConfigurationError: `settings.COATCHECK` is not there, or is something else.
    """
    return _found(getattr(settings, "COATCHECK", None))


def background() -> Background:
    """Return what keeps the project's Coatcheck open in this process, whichever of its event loops come and go.

    Raises:
        ConfigurationError: as `coatcheck`.
    """
    return _background(coatcheck())


async def opened() -> Coatcheck:
    """Return the project's Coatcheck, opened.

    Raises:
        ConfigurationError: as `coatcheck`.
        StoreUnavailable: store or feed cannot be reached.
    """
    keeper = background()
    if not keeper.is_open:
        await offload(lambda: keeper.open(OPENING_SECONDS))
    return coatcheck()


@lru_cache  # of the few that one process names, with tests one for each
def _found(named: object) -> Coatcheck:
    try:
        found = import_string(named) if isinstance(named, str) else named
    except ImportError as error:
        raise ConfigurationError(f"settings.COATCHECK cannot be imported: {error}") from error
    if not isinstance(found, Coatcheck):
        raise ConfigurationError('settings.COATCHECK is the Coatcheck, or where it is: "project.coat.coat"')
    return found


@lru_cache
def _background(found: Coatcheck) -> Background:
    return Background(found)
