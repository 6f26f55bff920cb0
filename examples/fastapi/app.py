"""A FastAPI app that people sign in to. The forms need python-multipart: `python examples/fastapi/app.py`.

The "Authorize" button of its page /docs works, too.
"""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Form, HTTPException
from fastapi.responses import PlainTextResponse
from fastapi.security import OAuth2PasswordRequestForm

from coatcheck import Coatcheck
from coatcheck.web.fastapi import CurrentExchange, Token, init_app

PASSWORDS = {"ann": "four words of mine"}  # a toy: your app has accounts, and hashes of passwords

app, coat = FastAPI(), Coatcheck()
init_app(app, coat, token_url="token")  # noqa: S106 - the path of a route


def check(name: str, password: str) -> None:
    if PASSWORDS.get(name) != password:
        raise HTTPException(403, "name or password is wrong")


@app.get("/", response_class=PlainTextResponse)
async def hello(exchange: CurrentExchange) -> str:
    return f"hello {exchange.principal.subject if exchange.principal else 'stranger'}"


@app.post("/sign-in", response_class=PlainTextResponse)
async def sign_in(name: Annotated[str, Form()], password: Annotated[str, Form()], exchange: CurrentExchange) -> str:
    check(name, password)
    await exchange.sign_in(name, amr=("pwd",))
    return "signed in"


@app.post("/token", response_model=Token)
async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()], exchange: CurrentExchange) -> object:
    check(form.username, form.password)
    return await exchange.issue(await coat.sessions.create(form.username, amr=("pwd",)))


@app.post("/sign-out", response_class=PlainTextResponse)
async def sign_out(exchange: CurrentExchange) -> str:
    await exchange.sign_out()
    return "signed out"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
