"""What the handlers of pages share: reading a form, going on, and saying why not."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from coatcheck import Principal
from coatcheck.errors import InvalidValue, StoreUnavailable
from coatcheck.server.accounts import Account
from coatcheck.server.api import server_of
from coatcheck.server.attempts import TooMany
from coatcheck.server.passwords import Busy
from coatcheck.server.proof import WrongPassword
from coatcheck.server.rendering import error_page
from coatcheck.web.asgi import exchange

ACCOUNT: Final = "/account"
SIGN_IN: Final = "/sign-in"
_MAX_FIELDS = 16

BUSY: Final = "The server has many passwords to check right now. Yours was not looked at; try again in a few seconds."

# What a page may be asked to say, by ?notice=: a fixed table, so that a link cannot put words into our mouth.
NOTICES: Final = {
    "signed-out": "You are signed out.",
    "signed-out-everywhere": "You are signed out everywhere.",
    "ended": "Your session has ended. Sign in again to go on.",
    "welcome": "This is your account. Bookmark this page: it is where you see who is signed in.",
    "confirmed": "Thank you. You can sign out devices now.",
    "device-ended": "That device is signed out.",
    "device-unknown": "That ticket is no longer there. Below is who is signed in now.",
    "others-ended": "Your other devices are signed out.",
    "password-changed": "Your password is changed, and your other devices are signed out.",
}


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form as it was posted.

    Raises:
        HTTPException: 415 if it is no form, 400 if it cannot be read or has a field twice.
    """
    # By hand: Starlette's parser wants another package, and forgives more than our own forms ever need.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise HTTPException(400) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HTTPException(400)
    return fields


async def present(request: Request) -> tuple[Principal, Account] | None:
    """Return who is signed in, or None; a session whose account is not there is ended."""
    found = exchange(request)
    principal = found.principal
    if principal is None:
        return None
    owner = await server_of(request).accounts.get(principal.subject)
    if owner is None:
        await found.sign_out()
        return None
    return principal, owner


async def thrown_out(request: Request, onward: str = ACCOUNT) -> Response:
    """Send who is not signed in to the sign-in, and say so if their session has ended."""
    found = exchange(request)
    ended = found.refusal is not None or found.session.record is not None
    return go(SIGN_IN, next=onward, **({"notice": "ended"} if ended else {}))


def signed_out(notice: str) -> Response:
    """Return the way on for who has just signed out."""
    response = go(SIGN_IN, notice=notice)
    # What pages of ours have left in the browser (C19). Not "cookies": that would reach every site of our
    # registrable domain, and our own are taken back one by one.
    response.headers["clear-site-data"] = '"cache", "storage"'
    return response


def unfinished(request: Request, error: StoreUnavailable, what: str) -> Response:
    """Return the page for an ending of sessions that may not be durable; `what` is what was wanted, "signing out"."""
    # Never "done", and never "nothing was done": this process may refuse already what the store still has (P1).
    words = f"The server could not make sure that {what} is complete. Try it again in a few seconds."
    return to_wait(error_page(request, error.status, words), 1)


def go(path: str, **query: str) -> Response:
    """Return a redirect that is always followed by GET (RFC 9110, 15.4.4): 303."""
    target = f"{path}?{urlencode(query)}" if query else path
    return RedirectResponse(target, 303, {"cache-control": "no-store"})


def to_wait(page: Response, seconds: int) -> Response:
    """Return the page with a Retry-After, if there are seconds to wait."""
    if seconds:
        page.headers["retry-after"] = str(seconds)
    return page


def refusal_words(refused: WrongPassword | TooMany | Busy | None) -> str:
    """Return what is said to who was not let in; never whether it was the name or the password."""
    if refused is None:
        return ""
    if isinstance(refused, TooMany):
        minutes = -(refused.retry_after // -60)
        return f"There were too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
    if isinstance(refused, Busy):
        return BUSY
    return "The account name or the password is wrong. Check both, then try again."


def sentence(error: InvalidValue) -> str:
    """Return an error's words as a sentence."""
    words = str(error)
    return f"{words[:1].upper()}{words[1:]}."
