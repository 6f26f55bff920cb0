"""The scenario app on the WSGI middleware alone: PEP 3333, and no framework."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from coatcheck import Coatcheck, Exchange, Grant
from coatcheck.run import run
from coatcheck.web.wsgi import App, CoatcheckWSGI, Environ, StartResponse, exchange

Query = Mapping[str, str]
Handler = Callable[[Coatcheck, Exchange, Query], object]
OK = {"ok": True}


def plain(_coat: Coatcheck, _found: Exchange, _query: Query) -> object:
    return OK


def sign_in(_coat: Coatcheck, found: Exchange, query: Query) -> object:
    return {"subject": run(found.sign_in(query["subject"], amr=("pwd",), scopes=("notes",))).subject}


def me(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    principal = found.require()
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": list(principal.scopes)}


def read(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    return {**found.session}


def write(_coat: Coatcheck, found: Exchange, query: Query) -> object:
    found.session[query["key"]] = query["value"]
    return OK


def append(_coat: Coatcheck, found: Exchange, query: Query) -> object:
    items = found.session.setdefault("items", [])
    items.append(query["value"])
    return {"items": len(items)}


def count(coat: Coatcheck, found: Exchange, _query: Query) -> object:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    run(coat.sessions.update(found.session.id or "", one_more))
    return OK


def rotate(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    run(found.rotate())
    return OK


def tokens(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    return both(run(found.issue()))


def token_cookies(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    found.hand_out_tokens(run(found.issue()))
    return OK


def refresh(coat: Coatcheck, _found: Exchange, query: Query) -> object:
    return both(run(coat.sessions.refresh(query["token"])))


def both(grant: Grant) -> object:
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


def sign_out(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    return {"ended": run(found.sign_out())}


def sign_out_everywhere(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    return {"ended": run(found.sign_out_everywhere())}


def sign_out_others(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    return {"ended": run(found.sign_out_others())}


def notes(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    found.require(scopes=("notes",))
    return OK


def admin(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    found.require(scopes=("admin",))
    return OK


def fail(_coat: Coatcheck, found: Exchange, _query: Query) -> object:
    found.session["lost"] = "1"
    raise RuntimeError("this handler fails")


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("GET", "/plain"): plain,
    ("POST", "/sign-in"): sign_in,
    ("GET", "/me"): me,
    ("GET", "/read"): read,
    ("POST", "/write"): write,
    ("POST", "/append"): append,
    ("POST", "/count"): count,
    ("POST", "/rotate"): rotate,
    ("POST", "/tokens"): tokens,
    ("POST", "/token-cookies"): token_cookies,
    ("POST", "/refresh"): refresh,
    ("POST", "/sign-out"): sign_out,
    ("POST", "/sign-out-everywhere"): sign_out_everywhere,
    ("POST", "/sign-out-others"): sign_out_others,
    ("GET", "/notes"): notes,
    ("GET", "/admin"): admin,
    ("POST", "/hook"): plain,
    ("POST", "/fail"): fail,
}


def make(coatcheck: Coatcheck) -> App:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        handler = ROUTES.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        status = HTTPStatus.NOT_FOUND if handler is None else HTTPStatus.OK
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        found = {} if handler is None else handler(coatcheck, exchange(environ), query)
        body = json.dumps(found).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    return CoatcheckWSGI(app, coatcheck=coatcheck, csrf_exempt=["/hook"])
