"""A Starlette app that people sign in to. The form needs python-multipart: `python examples/starlette/app.py`."""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coatcheck import Coatcheck
from coatcheck.web.starlette import CoatcheckMiddleware, exchange

PASSWORDS = {"ann": "four words of mine"}  # a toy: your app has accounts, and hashes of passwords

coat = Coatcheck()


async def hello(request: Request) -> Response:
    principal = exchange(request).principal
    return PlainTextResponse(f"hello {principal.subject if principal else 'stranger'}")


async def sign_in(request: Request) -> Response:
    form = await request.form()
    if PASSWORDS.get(str(form["name"])) != form["password"]:
        return PlainTextResponse("name or password is wrong", status_code=403)
    await exchange(request).sign_in(str(form["name"]), amr=("pwd",))
    return PlainTextResponse("signed in")


async def sign_out(request: Request) -> Response:
    await exchange(request).sign_out()
    return PlainTextResponse("signed out")


app = Starlette(
    routes=[
        Route("/", hello),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
    ],
    middleware=[Middleware(CoatcheckMiddleware, coatcheck=coat)],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
