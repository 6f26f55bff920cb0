"""The pages: sign in, account with its devices, change password, set up; rendered here, no script needed.

A POST that did what it was for answers 303, so that going back or reloading does nothing twice. One that was
refused shows its form again, under the status that says why.

Cross-site requests do not come this far: the middleware judges every POST, sign-in and sign-out included (F6).
Errors that a handler lets pass become pages in `coatcheck.server.app`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from coatcheck.core.redirects import local_path
from coatcheck.errors import InvalidValue, StoreUnavailable
from coatcheck.server.account_pages import (
    account,
    change_password,
    end_device,
    end_other_devices,
    password_page,
    sign_out_everywhere,
)
from coatcheck.server.answers import (
    ACCOUNT,
    BUSY,
    NOTICES,
    SIGN_IN,
    go,
    present,
    read_form,
    refusal_words,
    sentence,
    signed_out,
    to_wait,
    unfinished,
)
from coatcheck.server.api import RECENT, server_of
from coatcheck.server.attempts import TooMany
from coatcheck.server.passwords import MIN_LENGTH, Busy
from coatcheck.server.proof import WrongPassword
from coatcheck.server.rendering import error_page, render, static_file
from coatcheck.server.set_up import Gone
from coatcheck.web.asgi import exchange

__all__ = ["error_page", "routes"]

Handler = Callable[[Request], Awaitable[Response]]


async def start(request: Request) -> Response:
    """GET /: on to where the visitor belongs; before there is any account, a word about the set-up link."""
    if exchange(request).principal is not None:
        return go(ACCOUNT)
    if not await server_of(request).accounts.exist():
        return render(request, "no_account.html")
    return go(SIGN_IN)


async def set_up(request: Request) -> Response:
    """GET and POST of the one-time link: make the first account, and sign in with it."""
    server, token = server_of(request), request.path_params["token"]
    try:
        if request.method != "POST":
            await server.set_up.check(token)
            return _set_up_form(request)
        form = await read_form(request)
        name = form.get("account", "")
        try:
            proof = await server.set_up.use(token, name, form.get("password", ""))
        except InvalidValue as error:
            return _set_up_form(request, name=name, trouble=sentence(error), status=422)
        except Busy as error:
            return _set_up_form(request, name=name, trouble=BUSY, status=503, wait=error.retry_after)
        await server.proof.sign_in(exchange(request), proof)
    except Gone:
        return error_page(request, 410)
    return go(ACCOUNT, notice="welcome")


def _set_up_form(request: Request, *, name: str = "", trouble: str = "", status: int = 200, wait: int = 0) -> Response:
    page = render(request, "set_up.html", status=status, name=name, trouble=trouble, shortest=MIN_LENGTH)
    return to_wait(page, wait)


async def sign_in_page(request: Request) -> Response:
    """GET /sign-in: the form; for who is signed in already, on to `next`, unless they are to confirm who they are."""
    here = await present(request)
    onward = _onward(request.query_params.get("next", ""))
    if here is None:
        notice = NOTICES.get(request.query_params.get("notice", ""), "")
        return _sign_in_form(request, onward, notice=notice)
    if "confirm" not in request.query_params:
        return go(onward)
    return _sign_in_form(request, onward, confirming=here[1].name)


async def sign_in(request: Request) -> Response:
    """POST /sign-in: a session for who proves to be an account's owner."""
    server, found, form = server_of(request), exchange(request), await read_form(request)
    name, remember, onward = form.get("account", ""), "remember" in form, _onward(form.get("next", ""))
    # Whoever only confirms keeps the kind of cookie that they have.
    record = found.session.record if found.principal is not None and "confirm" in form else None
    persistent = remember if record is None else record.persistent
    confirming = "" if record is None else name
    try:
        proof = await server.proof.prove(name, form.get("password", ""), address=found.head.address)
        await server.proof.sign_in(found, proof, persistent=persistent)
    except (WrongPassword, TooMany, Busy) as error:
        return _sign_in_form(request, onward, name=name, remember=remember, refused=error, confirming=confirming)
    return go(onward)


async def sign_out(request: Request) -> Response:
    """POST /sign-out: end the session; also for who has none any more."""
    try:
        await exchange(request).sign_out()
    except StoreUnavailable as error:
        return unfinished(request, error, "signing out")
    return signed_out("signed-out")


def _sign_in_form(
    request: Request,
    onward: str,
    *,
    name: str = "",
    remember: bool = False,
    notice: str = "",
    refused: WrongPassword | TooMany | Busy | None = None,
    confirming: str = "",
) -> Response:
    page = render(
        request,
        "sign_in.html",
        status=_refusal_status(refused),
        name=confirming or name,
        remember=remember,
        next=onward,
        notice_text=notice,
        trouble=refusal_words(refused),
        wrong=isinstance(refused, WrongPassword),
        confirming=bool(confirming),
        recent_minutes=RECENT // timedelta(minutes=1),
    )
    return to_wait(page, getattr(refused, "retry_after", 0))


async def change_password_well_known(_: Request) -> Response:
    """GET /.well-known/change-password: where password managers send people (W3C, a Well-Known URL for ...)."""
    return RedirectResponse("/account/password", 302)


def _onward(target: str) -> str:
    """Return where to go after the sign-in: on our own origin (F12), and not back to the sign-in."""
    path = local_path(target, ACCOUNT)
    return ACCOUNT if path.partition("?")[0].partition("#")[0] == SIGN_IN else path


def _refusal_status(refused: WrongPassword | TooMany | Busy | None) -> int:
    if refused is None:
        return 200
    # Not 401: it would have to carry a challenge (RFC 9110, 15.5.2), and there is none for a form.
    return 422 if isinstance(refused, WrongPassword) else refused.status


def _either(get: Handler, post: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        return await (post if request.method == "POST" else get)(request)

    return answer


routes: list[BaseRoute] = [
    Route("/", start, methods=["GET"]),
    Route("/set-up/{token}", set_up, methods=["GET", "POST"]),
    Route("/sign-in", _either(sign_in_page, sign_in), methods=["GET", "POST"]),
    Route("/sign-out", sign_out, methods=["POST"]),
    Route("/account", account, methods=["GET"]),
    Route("/account/devices/end", end_device, methods=["POST"]),
    Route("/account/devices/end-others", end_other_devices, methods=["POST"]),
    Route("/account/sign-out-everywhere", sign_out_everywhere, methods=["POST"]),
    Route("/account/password", _either(password_page, change_password), methods=["GET", "POST"]),
    Route("/.well-known/change-password", change_password_well_known, methods=["GET"]),
    Route("/static/{name}", static_file, methods=["GET"]),
]
