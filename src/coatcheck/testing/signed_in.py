"""signed_in(): a test client becomes somebody's browser, in one line."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coatcheck import Coatcheck, Session
from coatcheck.core.record import pack
from coatcheck.errors import InvalidValue
from coatcheck.run import run, running_loop


def signed_in(
    client: Any,
    coatcheck: Coatcheck,
    subject: str,
    *,
    amr: Collection[str] = ("pwd",),
    scopes: Collection[str] = (),
    data: Mapping[str, Any] | None = None,
) -> Session:
    """Give a test client the cookie of a new session, and return that.

    Args:
        client: of Starlette, FastAPI, Litestar or httpx (`client.cookies`), of Flask or Quart
            (`client.set_cookie`), or of Django (`client.cookies[name] = value`).
        coatcheck: that of the application under test.
        subject: who is signed in.
        amr, scopes: as for `Exchange.sign_in`.
        data: what the session holds.

    Not checked: that the client asks by https, or at localhost; elsewhere it keeps a Secure cookie to itself.

    Raises:
        InvalidValue: the subject cannot be one, or the client is of none of these kinds.
        StoreUnavailable
    """
    packed = {key: pack(value) for key, value in (data or {}).items()}

    def create() -> Session:
        return run(coatcheck.sessions.create(subject, amr=amr, scopes=scopes, data=packed))

    if running_loop() is None:
        session = create()
    else:  # of an asynchronous test: a store would wait for its loop, and this function cannot
        with ThreadPoolExecutor(1) as pool:
            session = pool.submit(create).result()
    assert session.cookie is not None
    for cookie, value in zip(coatcheck.policy.session_cookies, session.cookie.values, strict=False):
        _put(client, cookie.name, value)
    return session


def _put(client: Any, name: str, value: str) -> None:
    if hasattr(client, "set_cookie"):
        # Quart's asks for the server's name first, Werkzeug's takes it to be localhost.
        server = ["localhost"] if "server_name" in inspect.signature(client.set_cookie).parameters else []
        client.set_cookie(*server, key=name, value=value, secure=True, httponly=True)
    elif hasattr(getattr(client, "cookies", None), "jar"):
        for old in [cookie for cookie in client.cookies.jar if cookie.name == name]:  # of two, none would count (C13)
            client.cookies.jar.clear(old.domain, old.path, old.name)
        client.cookies.set(name, value)
    elif hasattr(client, "cookies"):
        client.cookies[name] = value
    else:
        raise InvalidValue(f"no way to give a {type(client).__name__} a cookie: send it yourself")
