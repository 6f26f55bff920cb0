"""The scenario app on Django under ASGI: views are coroutines."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt

from coatcheck import Coatcheck
from coatcheck.web.django import exchange

View = Callable[[HttpRequest], Awaitable[object]]
OK = {"ok": True}

urlpatterns: list[URLPattern] = []


def desk() -> Coatcheck:
    found: Coatcheck = settings.COATCHECK
    return found


async def plain(request: HttpRequest) -> object:
    return OK


async def sign_in(request: HttpRequest) -> object:
    session = await exchange(request).sign_in(request.GET["subject"], amr=("pwd",), scopes=("notes",))
    return {"subject": session.subject}


async def me(request: HttpRequest) -> object:
    principal = exchange(request).require()
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": list(principal.scopes)}


async def read(request: HttpRequest) -> object:
    return {**request.session}


async def write(request: HttpRequest) -> object:
    request.session[request.GET["key"]] = request.GET["value"]
    return OK


async def append(request: HttpRequest) -> object:
    items = request.session.setdefault("items", [])
    items.append(request.GET["value"])
    return {"items": len(items)}


async def count(request: HttpRequest) -> object:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await desk().sessions.update(request.session.session_key or "", one_more)
    return OK


async def rotate(request: HttpRequest) -> object:
    await exchange(request).rotate()
    return OK


async def tokens(request: HttpRequest) -> object:
    grant = await exchange(request).issue()
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


async def token_cookies(request: HttpRequest) -> object:
    exchange(request).hand_out_tokens(await exchange(request).issue())
    return OK


async def refresh(request: HttpRequest) -> object:
    grant = await desk().sessions.refresh(request.GET["token"])
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


async def sign_out(request: HttpRequest) -> object:
    return {"ended": await exchange(request).sign_out()}


async def sign_out_everywhere(request: HttpRequest) -> object:
    return {"ended": await exchange(request).sign_out_everywhere()}


async def sign_out_others(request: HttpRequest) -> object:
    return {"ended": await exchange(request).sign_out_others()}


async def notes(request: HttpRequest) -> object:
    exchange(request).require(scopes=("notes",))
    return OK


async def admin(request: HttpRequest) -> object:
    exchange(request).require(scopes=("admin",))
    return OK


@csrf_exempt
async def hook(request: HttpRequest) -> object:
    return OK


async def fail(request: HttpRequest) -> object:
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


def in_json(method: str, handler: View) -> Callable[..., Coroutine[Any, Any, HttpResponseBase]]:
    async def view(request: HttpRequest) -> HttpResponseBase:
        return JsonResponse(await handler(request)) if request.method == method else HttpResponseNotAllowed([method])

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
    return get_asgi_application()
