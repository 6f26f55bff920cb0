"""The scenario app on Django under WSGI: views are functions, and our coroutines are driven by `run`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt

from coatcheck import Coatcheck
from coatcheck.run import run
from coatcheck.web.django import exchange

View = Callable[[HttpRequest], object]
OK = {"ok": True}

urlpatterns: list[URLPattern] = []


def desk() -> Coatcheck:
    found: Coatcheck = settings.COATCHECK
    return found


def plain(request: HttpRequest) -> object:
    return OK


def sign_in(request: HttpRequest) -> object:
    session = run(exchange(request).sign_in(request.GET["subject"], amr=("pwd",), scopes=("notes",)))
    return {"subject": session.subject}


def me(request: HttpRequest) -> object:
    principal = exchange(request).require()
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": list(principal.scopes)}


def read(request: HttpRequest) -> object:
    return {**request.session}


def write(request: HttpRequest) -> object:
    request.session[request.GET["key"]] = request.GET["value"]
    return OK


def append(request: HttpRequest) -> object:
    items = request.session.setdefault("items", [])
    items.append(request.GET["value"])
    return {"items": len(items)}


def count(request: HttpRequest) -> object:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    run(desk().sessions.update(request.session.session_key or "", one_more))
    return OK


def rotate(request: HttpRequest) -> object:
    run(exchange(request).rotate())
    return OK


def tokens(request: HttpRequest) -> object:
    grant = run(exchange(request).issue())
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


def token_cookies(request: HttpRequest) -> object:
    exchange(request).hand_out_tokens(run(exchange(request).issue()))
    return OK


def refresh(request: HttpRequest) -> object:
    grant = run(desk().sessions.refresh(request.GET["token"]))
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


def sign_out(request: HttpRequest) -> object:
    return {"ended": run(exchange(request).sign_out())}


def sign_out_everywhere(request: HttpRequest) -> object:
    return {"ended": run(exchange(request).sign_out_everywhere())}


def sign_out_others(request: HttpRequest) -> object:
    return {"ended": run(exchange(request).sign_out_others())}


def notes(request: HttpRequest) -> object:
    exchange(request).require(scopes=("notes",))
    return OK


def admin(request: HttpRequest) -> object:
    exchange(request).require(scopes=("admin",))
    return OK


@csrf_exempt
def hook(request: HttpRequest) -> object:
    return OK


def fail(request: HttpRequest) -> object:
    request.session["lost"] = "1"
    raise RuntimeError("this view fails")


ROUTES: Mapping[tuple[str, str], View] = {
    ("GET", "plain"): plain,
    ("POST", "sign-in"): sign_in,
    ("GET", "me"): me,
    ("GET", "read"): read,
    ("POST", "write"): write,
    ("POST", "append"): append,
    ("POST", "count"): count,
    ("POST", "rotate"): rotate,
    ("POST", "tokens"): tokens,
    ("POST", "token-cookies"): token_cookies,
    ("POST", "refresh"): refresh,
    ("POST", "sign-out"): sign_out,
    ("POST", "sign-out-everywhere"): sign_out_everywhere,
    ("POST", "sign-out-others"): sign_out_others,
    ("GET", "notes"): notes,
    ("GET", "admin"): admin,
    ("POST", "hook"): hook,
    ("POST", "fail"): fail,
}


def in_json(method: str, handler: View) -> Callable[[HttpRequest], HttpResponseBase]:
    def view(request: HttpRequest) -> HttpResponseBase:
        return JsonResponse(handler(request)) if request.method == method else HttpResponseNotAllowed([method])

    view.csrf_exempt = getattr(handler, "csrf_exempt", False)  # type: ignore[attr-defined] # Django's own marking
    return view


def make(coatcheck: Coatcheck) -> Any:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        COATCHECK=coatcheck,
        SESSION_ENGINE="coatcheck.web.django",
        SESSION_COOKIE_NAME=coatcheck.policy.cookie.name,
        INSTALLED_APPS=["coatcheck.web.django"],
        MIDDLEWARE=["coatcheck.web.django.CoatcheckMiddleware"],
        ROOT_URLCONF=sys.modules[__name__],
        LOGGING_CONFIG=None,
    )
    django.setup()
    urlpatterns[:] = [path(name, in_json(method, handler)) for (method, name), handler in ROUTES.items()]
    return get_wsgi_application()
