"""A Quart app that people sign in to: `python examples/quart/app.py`."""

import os

from quart import Quart, request

from coatcheck import Coatcheck
from coatcheck.web.quart import current_exchange, init_app

PASSWORDS = {"ann": "four words of mine"}  # a toy: your app has accounts, and hashes of passwords

app = Quart(__name__)
init_app(app, Coatcheck())


@app.get("/")
async def hello() -> str:
    principal = current_exchange().principal
    return f"hello {principal.subject if principal else 'stranger'}"


@app.post("/sign-in")
async def sign_in() -> tuple[str, int]:
    form = await request.form
    if PASSWORDS.get(form["name"]) != form["password"]:
        return "name or password is wrong", 403
    await current_exchange().sign_in(form["name"], amr=("pwd",))
    return "signed in", 200


@app.post("/sign-out")
async def sign_out() -> str:
    await current_exchange().sign_out()
    return "signed out"


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
