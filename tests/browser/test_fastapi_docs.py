"""FastAPI's interactive documentation page in a real Chromium: it signs in, calls what is protected, and is signed out.

Swagger UI's files come from the package fastapi-offline; without it these tests fail, they are not skipped.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Annotated

import pytest
import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordRequestForm
from playwright.sync_api import Page, expect

from coatcheck import Coatcheck, Grant
from coatcheck.web.fastapi import CurrentExchange, CurrentPrincipal, Token, init_app, require

PASSWORD = "nine purple umbrellas"
ALLOWED = ("notes",)


def make(coat: Coatcheck) -> FastAPI:
    from fastapi_offline import FastAPIOffline

    app = FastAPIOffline(redoc_url=None)
    init_app(app, coat, token_url="token", scopes={"notes": "read your notes", "admin": "everything"})

    @app.post("/token", response_model=Token)
    async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()], exchange: CurrentExchange) -> Grant:
        if form.password != PASSWORD:
            raise HTTPException(400, "name or password is wrong")
        granted = [scope for scope in form.scopes if scope in ALLOWED]
        session = await coat.sessions.create(form.username, amr=("pwd",), scopes=granted, device=exchange.head.device)
        return await exchange.issue(session)

    @app.post("/sign-in")
    async def sign_in(exchange: CurrentExchange) -> str:
        return (await exchange.sign_in("bob")).subject or ""

    @app.get("/me")
    async def me(principal: CurrentPrincipal) -> str:
        return principal.subject

    @app.get("/notes", dependencies=[Depends(require(scopes=["notes"]))])
    async def notes() -> str:
        return "an umbrella"

    @app.get("/admin", dependencies=[Depends(require(scopes=["admin"]))])
    async def admin() -> str:
        return "everything"

    @app.post("/sign-out-everywhere")
    async def sign_out_everywhere(_principal: CurrentPrincipal, exchange: CurrentExchange) -> int:
        return await exchange.sign_out_everywhere()

    return app


@pytest.fixture
def docs() -> Iterator[str]:
    """The address of the documentation page, served by uvicorn in a thread."""
    server = uvicorn.Server(uvicorn.Config(make(Coatcheck()), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the app was not served"
        thread.join(0.01)
    [listener] = server.servers[0].sockets
    yield f"http://localhost:{listener.getsockname()[1]}/docs"
    server.should_exit = True
    thread.join()


def test_the_docs_page_signs_in_and_calls_what_is_protected(page: Page, docs: str) -> None:
    """Issue 5, done when 2: the Authorize button, the scopes, the refusals, and a sign-out everywhere at once."""
    page.goto(docs)
    expect_answer(page, "get", "/me", 401, "missing")
    authorize(page, "ann", "not this one")
    expect(page.locator(".auth-container .errors")).to_contain_text("Bad Request")
    close(page)
    authorize(page, "ann", PASSWORD)
    expect(page.locator(".dialog-ux")).to_contain_text("Authorized")
    close(page)
    expect_answer(page, "get", "/me", 200, "ann")
    expect_answer(page, "get", "/notes", 200, "an umbrella")
    expect_answer(page, "get", "/admin", 403, "insufficient_scope")
    expect_answer(page, "post", "/sign-out-everywhere", 200, "1")
    expect_answer(page, "get", "/me", 401, "revoked")


def test_the_docs_page_sends_the_session_cookie_of_its_own_origin(page: Page, docs: str) -> None:
    """Without a token the cookie counts; the page says the cookie's real name."""
    page.goto(docs)
    expect_answer(page, "post", "/sign-in", 200, "bob")
    expect_answer(page, "get", "/me", 200, "bob")
    page.click("button.authorize")
    expect(page.locator(".dialog-ux")).to_contain_text("__Host-session")


def authorize(page: Page, name: str, password: str) -> None:
    page.locator(".auth-wrapper button.authorize").first.click()
    dialog = page.locator(".auth-container", has_text="OAuth2, password")
    dialog.locator("#oauth_username").fill(name)
    dialog.locator("#oauth_password").fill(password)
    for scope in ("notes", "admin"):
        dialog.locator("label", has_text=scope).first.click()
    dialog.locator("button.authorize").click()


def close(page: Page) -> None:
    page.locator(".dialog-ux .close-modal").click()


def expect_answer(page: Page, method: str, path: str, status: int, body: str) -> None:
    operation = page.locator(f".opblock-{method}", has=page.locator(f"[data-path='{path}']"))
    execute = operation.locator("button.execute")
    if not execute.is_visible():
        operation.locator(".opblock-summary-control").first.click()
        operation.locator("button.try-out__btn").click()
    execute.click()
    answer = operation.locator(".live-responses-table tbody")
    expect(answer.locator(".response-col_status")).to_contain_text(str(status))
    expect(answer.locator(".response-col_description")).to_contain_text(body)
