"""The account: who is signed in and where, ending sessions, and the password."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from coatcheck import Principal, Session
from coatcheck.errors import Conflict, CredentialError, Insufficient, InvalidValue, StoreUnavailable
from coatcheck.server.accounts import Account
from coatcheck.server.answers import (
    ACCOUNT,
    NOTICES,
    SIGN_IN,
    go,
    present,
    read_form,
    refusal_words,
    sentence,
    signed_out,
    thrown_out,
    to_wait,
    unfinished,
)
from coatcheck.server.api import RECENT, server_of
from coatcheck.server.attempts import TooMany
from coatcheck.server.devices import UNKNOWN, describe
from coatcheck.server.passwords import MIN_LENGTH, Busy
from coatcheck.server.proof import WrongPassword
from coatcheck.server.rendering import absolute, relative, render
from coatcheck.web.asgi import exchange

_LONGEST_CLAIM = 96


async def account(request: Request) -> Response:
    """GET /account: who is signed in, and where."""
    server = server_of(request)
    here = await present(request)
    if here is None:
        return await thrown_out(request)
    principal, owner = here
    sessions = await server.coat.sessions.list(principal.subject)
    devices = await _devices(sessions, principal, server.coat.clock())
    this = next((device for device in devices if device["this"]), None)
    if this is None:
        # It ended while we looked, or goes on under another id that this very browser is just being given: so it
        # must not be ended here.
        return await thrown_out(request)
    return render(
        request,
        "account.html",
        name=owner.name,
        admin=owner.admin,
        this_device=this,
        others=[device for device in devices if not device["this"]],
        notice_text=NOTICES.get(request.query_params.get("notice", ""), ""),
    )


async def end_device(request: Request) -> Response:
    """POST /account/devices/end: end one session of the account's, after a sign-in that is recent (S14)."""
    form, found, coat = await read_form(request), exchange(request), server_of(request).coat
    try:
        principal = found.require(max_age=RECENT)
    except CredentialError as refusal:
        return await _turned_back(request, refusal)
    # The record and not the list: it also leads from a ticket that was changed meanwhile to the session's new one.
    record = await coat.store.load(form.get("id", ""))
    if record is None or record.subject != principal.subject:
        return go(ACCOUNT, notice="device-unknown")
    try:
        if record.id == principal.session_id:
            await found.sign_out()
            return signed_out("signed-out")
        ended = await coat.sessions.revoke(record.id, reason="ended from another device")
    except StoreUnavailable as error:
        return unfinished(request, error, "signing out that device")
    return go(ACCOUNT, notice="device-ended" if ended else "device-unknown")


async def end_other_devices(request: Request) -> Response:
    """POST /account/devices/end-others: end all sessions but this one, after a sign-in that is recent (S14)."""
    found = exchange(request)
    try:
        found.require(max_age=RECENT)
        await found.sign_out_others()
    except CredentialError as refusal:
        return await _turned_back(request, refusal)
    except StoreUnavailable as error:
        return unfinished(request, error, "signing out the other devices")
    return go(ACCOUNT, notice="others-ended")


async def sign_out_everywhere(request: Request) -> Response:
    """POST /account/sign-out-everywhere: end all sessions, whatever the age of the sign-in: it is the alarm button."""
    try:
        await exchange(request).sign_out_everywhere()
    except CredentialError:
        return await thrown_out(request)
    except StoreUnavailable as error:
        return unfinished(request, error, "signing out everywhere")
    return signed_out("signed-out-everywhere")


async def password_page(request: Request) -> Response:
    """GET /account/password: the form."""
    here = await present(request)
    if here is None:
        return await thrown_out(request, "/account/password")
    return _password_form(request, here[1])


async def change_password(request: Request) -> Response:
    """POST /account/password: a new password for who knows the old one; the other sessions end (S12)."""
    server, found, form = server_of(request), exchange(request), await read_form(request)
    here = await present(request)
    if here is None:
        return await thrown_out(request, "/account/password")
    owner = here[1]
    try:
        proof = await server.proof.prove(owner.name, form.get("current_password", ""), address=found.head.address)
        await server.proof.change_password(found, proof, form.get("new_password", ""))
    except WrongPassword:
        if found.principal is None:
            # It was right, but the account has changed under us.
            return await thrown_out(request)
        return _password_form(request, owner, wrong="current", trouble="The current password is wrong.", status=422)
    except InvalidValue as error:
        return _password_form(request, owner, wrong="new", trouble=sentence(error), status=422)
    except Conflict:
        words = "The password was changed elsewhere meanwhile. Nothing was changed here."
        return _password_form(request, owner, trouble=words, status=409)
    except (TooMany, Busy) as error:
        page = _password_form(request, owner, trouble=refusal_words(error), status=error.status)
        return to_wait(page, error.retry_after)
    except StoreUnavailable as error:
        return unfinished(request, error, "changing the password")
    return go(ACCOUNT, notice="password-changed")


def _password_form(
    request: Request, owner: Account, *, wrong: str = "", trouble: str = "", status: int = 200
) -> Response:
    return render(
        request,
        "password.html",
        status=status,
        name=owner.name,
        wrong=wrong,
        trouble=trouble,
        shortest=MIN_LENGTH,
    )


async def _devices(sessions: list[Session], principal: Principal, now: int) -> list[dict[str, object]]:
    agents = [session.device.user_agent for session in sessions]
    words = await run_in_threadpool(lambda: [describe(agent) for agent in agents])
    return [
        {
            "id": session.id,
            "number": (session.id or "")[:4],
            "this": session.id == principal.session_id,
            "words": words[0].upper() + words[1:] if words.startswith(UNKNOWN) else words,
            "says": _shortened(session.device.user_agent) if words.startswith(UNKNOWN) else "",
            "seen": relative(session.seen_at, now),
            "signed_in": absolute(session.signed_in_at),
            "address": session.device.address,
        }
        for session, words in zip(sessions, words, strict=True)
    ]


async def _turned_back(request: Request, refusal: CredentialError) -> Response:
    """Answer a refusal to decide about devices: sign in, or confirm who you are."""
    if isinstance(refusal, Insufficient):
        return go(SIGN_IN, confirm="1", next=f"{ACCOUNT}?notice=confirmed")
    return await thrown_out(request)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_CLAIM else text[: _LONGEST_CLAIM - 1] + "…"
