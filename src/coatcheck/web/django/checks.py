"""System checks: what of the settings cannot work, and what of Django's own has no effect any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from coatcheck.compose import Coatcheck
from coatcheck.errors import ConfigurationError
from coatcheck.web.django import project
from coatcheck.web.django.middleware import CoatcheckMiddleware
from coatcheck.web.django.store import SessionStore

ENGINE: Final = "coatcheck.web.django"
MIDDLEWARE: Final = f"{ENGINE}.CoatcheckMiddleware"
DJANGOS_OWN: Final = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"

_NOT_USED: Final = {
    "SESSION_COOKIE_AGE": "Policy(idle=..., absolute=...)",
    "SESSION_SAVE_EVERY_REQUEST": "Policy(touch_every=...)",
    "SESSION_COOKIE_DOMAIN": "Policy(cookie=Cookie(..., domain=...))",
    "SESSION_COOKIE_PATH": "Policy(cookie=Cookie(..., path=...))",
    "SESSION_COOKIE_SAMESITE": "Policy(cookie=Cookie(..., same_site=...))",
    "SESSION_COOKIE_HTTPONLY": "Policy(cookie=Cookie(..., http_only=...))",
    "SESSION_SERIALIZER": "nothing: session data is plain data",
}


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with the settings, as `manage.py check` shows it."""
    if not _has(settings.SESSION_ENGINE + ".SessionStore", SessionStore):
        return [checks.Error(f'SESSION_ENGINE must be "{ENGINE}"', id="coatcheck.E001")]
    try:
        coat = project.coatcheck()
    except ConfigurationError as error:
        return [checks.Error(str(error), id="coatcheck.E002")]
    return [*_middleware(settings.MIDDLEWARE), *_cookie(coat), *_origins(coat), *_without_effect()]


def _middleware(paths: Sequence[str]) -> Iterator[checks.CheckMessage]:
    ours = [place for place, path in enumerate(paths) if _has(path, CoatcheckMiddleware)]
    if not ours:
        yield checks.Error(f'MIDDLEWARE must have "{MIDDLEWARE}" in it', id="coatcheck.E003")
    # Imported by name: Django's cannot be before the models are there.
    elif any(_has(path, import_string(AUTHENTICATION)) for path in paths[: ours[0]]):
        yield checks.Error(f'"{MIDDLEWARE}" must come before the AuthenticationMiddleware', id="coatcheck.E008")
    if DJANGOS_OWN in paths:
        hint = f'Put "{MIDDLEWARE}" in its place.'
        yield checks.Error(f'MIDDLEWARE must not have "{DJANGOS_OWN}" in it', hint=hint, id="coatcheck.E004")


def _has(path: str, kind: type) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False  # of which Django itself says so
    return isinstance(found, type) and issubclass(found, kind)


def _cookie(coat: Coatcheck) -> Iterator[checks.CheckMessage]:
    name = coat.policy.cookie.name
    if name != settings.SESSION_COOKIE_NAME:
        hint = f'Set SESSION_COOKIE_NAME = "{name}".'
        yield checks.Warning("Django's test client would send another cookie than ours", hint=hint, id="coatcheck.W005")


def _origins(coat: Coatcheck) -> Iterator[checks.CheckMessage]:
    unknown = sorted(set(settings.CSRF_TRUSTED_ORIGINS) - coat.policy.trusted_origins)
    if unknown:
        hint = f"Policy(trusted_origins={unknown!r}); wildcards are not known there."
        yield checks.Warning(
            "Not all of CSRF_TRUSTED_ORIGINS are trusted by the policy", hint=hint, id="coatcheck.W006"
        )


def _without_effect() -> Iterator[checks.CheckMessage]:
    for name, instead in _NOT_USED.items():
        if settings.is_overridden(name):
            yield checks.Warning(
                f"{name} has no effect on sessions", hint=f"In its place: {instead}.", id="coatcheck.W007"
            )
