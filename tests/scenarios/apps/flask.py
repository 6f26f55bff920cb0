"""The scenario app in Flask."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, request, session

from coatcheck import Coatcheck, Grant
from coatcheck.web.flask import csrf_exempt, current_exchange, init_app, run

Answer = dict[str, Any]
OK = {"ok": True}


def plain() -> Answer:
    return OK


def sign_in() -> Answer:
    return {
        "subject": run(current_exchange().sign_in(request.args["subject"], amr=("pwd",), scopes=("notes",))).subject
    }


def me() -> Answer:
    principal = current_exchange().require()
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": list(principal.scopes)}


def read() -> Answer:
    return {**session}


def write() -> Answer:
    session[request.args["key"]] = request.args["value"]
    return OK


def append() -> Answer:
    items = session.setdefault("items", [])
    items.append(request.args["value"])
    return {"items": len(items)}


def count() -> Answer:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    run(coat().sessions.update(current_exchange().session.id or "", one_more))
    return OK


def rotate() -> Answer:
    run(current_exchange().rotate())
    return OK


def tokens() -> Answer:
    return both(run(current_exchange().issue()))


def token_cookies() -> Answer:
    current_exchange().hand_out_tokens(run(current_exchange().issue()))
    return OK


def refresh() -> Answer:
    return both(run(coat().sessions.refresh(request.args["token"])))


def sign_out() -> Answer:
    return {"ended": run(current_exchange().sign_out())}


def sign_out_everywhere() -> Answer:
    return {"ended": run(current_exchange().sign_out_everywhere())}


def sign_out_others() -> Answer:
    return {"ended": run(current_exchange().sign_out_others())}


def notes() -> Answer:
    current_exchange().require(scopes=("notes",))
    return OK


def admin() -> Answer:
    current_exchange().require(scopes=("admin",))
    return OK


@csrf_exempt
def hook() -> Answer:
    return OK


def fail() -> Answer:
    session["lost"] = "1"
    raise RuntimeError("this handler fails")


READING = [plain, me, read, notes, admin]
CHANGING = [sign_in, write, append, count, rotate, tokens, token_cookies, refresh, hook, fail]
CHANGING += [sign_out, sign_out_everywhere, sign_out_others]


def coat() -> Coatcheck:
    found: Coatcheck = current_app.extensions["coatcheck"]
    return found


def both(grant: Grant) -> Answer:
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


def make(coatcheck: Coatcheck) -> Flask:
    app = Flask(__name__)
    app.extensions["coatcheck"] = coatcheck
    for views, method in ((READING, "GET"), (CHANGING, "POST")):
        for view in views:
            app.add_url_rule(f"/{view.__name__.replace('_', '-')}", view_func=view, methods=[method])
    init_app(app, coatcheck)
    return app
