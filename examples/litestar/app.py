"""A Litestar app that people sign in to: `python examples/litestar/app.py`."""

import os

import uvicorn
from litestar import Litestar, get, post
from litestar.exceptions import PermissionDeniedException
from litestar.params import URLEncodedBody

from coatcheck import Coatcheck
from coatcheck.web.litestar import CoatcheckPlugin, CurrentExchange

PASSWORDS = {"ann": "four words of mine"}  # a toy: your app has accounts, and hashes of passwords


@get("/")
async def hello(exchange: CurrentExchange) -> str:
    return f"hello {exchange.principal.subject if exchange.principal else 'stranger'}"


@post("/sign-in", status_code=200)
async def sign_in(data: URLEncodedBody[dict[str, str]], exchange: CurrentExchange) -> str:
    if PASSWORDS.get(data["name"]) != data["password"]:
        raise PermissionDeniedException("name or password is wrong")
    await exchange.sign_in(data["name"], amr=("pwd",))
    return "signed in"


@post("/sign-out", status_code=200)
async def sign_out(exchange: CurrentExchange) -> str:
    await exchange.sign_out()
    return "signed out"


app = Litestar([hello, sign_in, sign_out], plugins=[CoatcheckPlugin(Coatcheck())])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
