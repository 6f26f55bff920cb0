"""A Django project in one file, whose users sign in: `python examples/django/app.py`.

Under ASGI it works as well: `get_asgi_application()` in place of the other.
"""

import os
import tempfile

import django
from django.conf import settings
from django.contrib import auth
from django.core.management import call_command
from django.core.servers.basehttp import run
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_POST

from coatcheck import Coatcheck

settings.configure(
    SECRET_KEY="a toy",  # noqa: S106 - as it says
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "coatcheck.web.django"],
    MIDDLEWARE=[
        "coatcheck.web.django.CoatcheckMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="coatcheck.web.django",
    SESSION_COOKIE_NAME="__Host-session",
    COATCHECK=Coatcheck(),
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{tempfile.mkdtemp()}/users.sqlite"},
    },
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.user.get_username() or 'stranger'}")


@require_POST
def sign_in(request: HttpRequest) -> HttpResponse:
    user = auth.authenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return HttpResponse("name or password is wrong", status=403)
    auth.login(request, user)
    return HttpResponse("signed in")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    auth.logout(request)
    return HttpResponse("signed out")


urlpatterns = [path("", hello), path("sign-in", sign_in), path("sign-out", sign_out)]

if __name__ == "__main__":
    django.setup()
    call_command("migrate", verbosity=0)
    auth.get_user_model().objects.create_user("ann", password="four words of mine")  # noqa: S106 - a toy
    run("127.0.0.1", int(os.environ.get("PORT", "8000")), get_wsgi_application(), threading=True)
