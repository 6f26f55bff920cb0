"""A Django project with its admin, served by Django's own server: `django_admin.py DIRECTORY` prints its port."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

NAME: Final = "ann"
PASSWORD: Final = "four words of my own"


def main(directory: Path) -> None:
    """Make the project's database in a directory, and serve until the process is ended."""
    _configure(directory)
    from django.contrib.auth.models import User
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.management import call_command
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
            pass

    call_command("migrate", verbosity=0)
    call_command("check", fail_level="WARNING", stdout=sys.stderr)
    User.objects.create_superuser(NAME, password=PASSWORD)
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


def _configure(directory: Path) -> None:
    import django
    from django.conf import settings
    from django.contrib import admin
    from django.urls import path

    from coatcheck import Coatcheck, SQLiteStore

    settings.configure(
        SECRET_KEY="of this test alone",
        DEBUG=True,
        ALLOWED_HOSTS=["localhost"],
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            "coatcheck.web.django",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "coatcheck.web.django.CoatcheckMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        SESSION_ENGINE="coatcheck.web.django",
        SESSION_COOKIE_NAME="__Host-session",
        COATCHECK=Coatcheck(SQLiteStore(directory / "sessions.sqlite")),
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        ROOT_URLCONF=__name__,
        STATIC_URL="static/",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "project.sqlite"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
    )
    django.setup()
    globals()["urlpatterns"] = [path("admin/", admin.site.urls)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
