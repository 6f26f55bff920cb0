"""What `INSTALLED_APPS` finds: the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from coatcheck.web.django.checks import check_settings


class CoatcheckConfig(AppConfig):
    """The app: it has no models."""

    name = "coatcheck.web.django"
    label = "coatcheck"
    verbose_name = "coatcheck"

    def ready(self) -> None:
        """Let `manage.py check`, and so `runserver` and `migrate`, look at the settings."""
        checks.register(check_settings)
