"""A Flask app that people sign in to: `python examples/flask/app.py`."""

import os

from flask import Flask, request

from coatcheck import Coatcheck
from coatcheck.web.flask import current_exchange, init_app, run

PASSWORDS = {"ann": "four words of mine"}  # a toy: your app has accounts, and hashes of passwords

app = Flask(__name__)
init_app(app, Coatcheck())


@app.get("/")
def hello() -> str:
    principal = current_exchange().principal
    return f"hello {principal.subject if principal else 'stranger'}"


@app.post("/sign-in")
def sign_in() -> str | tuple[str, int]:
    if PASSWORDS.get(request.form["name"]) != request.form["password"]:
        return "name or password is wrong", 403
    run(current_exchange().sign_in(request.form["name"], amr=("pwd",)))
    return "signed in"


@app.post("/sign-out")
def sign_out() -> str:
    run(current_exchange().sign_out())
    return "signed out"


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
