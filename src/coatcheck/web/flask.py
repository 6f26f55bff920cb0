"""Flask: `flask.session` is the session, `current_exchange()` the request's Exchange.

init_app(app, coatcheck)
...
run(current_exchange().sign_in("ann"))        the Exchange's coroutines, which `run` finishes
current_exchange().require(scopes=["notes"])  an error that a view lets pass is answered: 401, 403, 409 or 503
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from flask import Flask, Request, Response, got_request_exception, request
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException

from coatcheck.compose import Coatcheck
from coatcheck.core.session import Session
from coatcheck.errors import CoatcheckError, ConfigurationError
from coatcheck.exchange import Exchange
from coatcheck.run import run
from coatcheck.web.answer import answer, is_ours_to_answer
from coatcheck.web.background import Background
from coatcheck.web.exempt import csrf_exempt, is_exempt
from coatcheck.web.wsgi import REFUSED, CoatcheckWSGI, Environ, exchange, native

__all__ = ["FlaskSession", "csrf_exempt", "current_exchange", "init_app", "run"]

_ALONE = "coatcheck.alone"  # in an environ: the Exchange that no middleware finishes


def init_app(app: Flask, coatcheck: Coatcheck, *, csrf_exempt: Collection[str] = ()) -> Background:
    """Give a Flask application our sessions in place of its own.

    `app.wsgi_app` is wrapped: what is to come before us, as ProxyFix is, wraps it afterwards. Returns what keeps the
    coatcheck open, for tests that close it; a server need not.

    Args:
        app: the application.
        coatcheck: opened at the first request of a process, in a thread of its own.
        csrf_exempt: paths at which other sites may send unsafe requests; the decorator `csrf_exempt` marks views.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path, or has the template of a route in it.
    """
    # Flask finds its WSGI application by this attribute, and says that it is there to be wrapped.
    wrapped = _FlaskWSGI(app, coatcheck, csrf_exempt)
    app.wsgi_app = wrapped  # type: ignore[method-assign]
    app.session_interface = _Sessions(wrapped)
    app.register_error_handler(CoatcheckError, _answered)
    got_request_exception.connect(_let_out, app)
    return wrapped.background


def current_exchange() -> Exchange:
    """Return the Exchange of the request that is being served.

    Raises:
        ConfigurationError: `init_app` was not called.
    """
    return exchange(request.environ)


class FlaskSession(SessionMixin):
    """What `flask.session` is: the request's session, with the attributes that Flask and its extensions look at.

    Args:
        held: the session.
        unfinished: its exchange, where there is no middleware that finishes it.
    """

    def __init__(self, held: Session, unfinished: Exchange | None = None) -> None:
        self.held = held
        self.unfinished = unfinished

    def __repr__(self) -> str:
        return repr(self.held)

    def __getitem__(self, key: str) -> Any:
        return self.held[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.held[key] = value

    def __delitem__(self, key: str) -> None:
        del self.held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def __contains__(self, key: object) -> bool:
        return key in self.held

    def clear(self) -> None:
        """Remove everything, also what others write before this is saved."""
        self.held.clear()

    @property
    def permanent(self) -> bool:
        """Whether the cookie survives the end of the browser: as `sign_in(..., persistent=True)` said."""
        self.held.accessed = True
        return self.held.record is not None and self.held.record.persistent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if value != self.permanent:
            raise ConfigurationError("a session is permanent from its sign-in on: sign_in(subject, persistent=True)")

    @property
    def new(self) -> bool:  # type: ignore[override]  # Flask has a constant there
        """Whether nothing is stored yet."""
        self.held.accessed = True
        return self.held.record is None

    @property
    def modified(self) -> bool:
        """Whether there is something to save; changes in place are found without anybody saying so."""
        return self.held.is_edited()

    @modified.setter
    def modified(self, value: bool) -> None:
        """Take what Flask's own sessions need to be told after a change in place."""

    @property
    def accessed(self) -> bool:
        """Whether anybody looked: the answer then depends on the cookie (C18)."""
        return self.held.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Take what Flask and Quart say. Quart 0.23 says it of every request; who looked is known without that."""


class _FlaskWSGI(CoatcheckWSGI):
    def __init__(self, app: Flask, coatcheck: Coatcheck, csrf_exempt: Collection[str]) -> None:
        super().__init__(app.wsgi_app, coatcheck=coatcheck, csrf_exempt=csrf_exempt)
        self._flask = app

    def exempts(self, environ: Environ) -> bool:
        return super().exempts(environ) or is_exempt(self._view(environ))

    def _view(self, environ: Environ) -> object:
        """Return the view that the request is for, or None."""
        try:
            adapter = self._flask.create_url_adapter(self._flask.request_class(environ))
            endpoint = adapter.match()[0] if adapter is not None else ""
        except HTTPException:
            return None
        return self._flask.view_functions.get(endpoint)


class _Sessions(SessionInterface):
    """Hands out the session of the exchange. The middleware saves it, and sends its cookie."""

    def __init__(self, wsgi: CoatcheckWSGI) -> None:
        self._wsgi = wsgi

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # noqa: ARG002  Flask says what it takes
        found: Exchange | None = request.environ.get("coatcheck")
        if found is None:  # Flask's test_request_context and session_transaction call no middleware
            request.environ[_ALONE] = self._wsgi.begin(request.environ)
        return FlaskSession(exchange(request.environ).session, request.environ.get(_ALONE))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:  # noqa: ARG002  likewise
        if isinstance(session, FlaskSession) and session.unfinished is not None:
            run(session.unfinished.finish())
            response.headers.extend(native(session.unfinished.dress(())))


def _answered(error: CoatcheckError) -> Response:
    if not is_ours_to_answer(error):
        raise error
    request.environ[REFUSED] = True
    said = answer(error)
    return Response(said.body, said.status, native(said.headers))


def _let_out(_: Flask, exception: BaseException) -> None:
    """Let the middleware answer what Flask asks no error handler about, and would make a 500 of: `after_request`."""
    if isinstance(exception, CoatcheckError) and is_ours_to_answer(exception):
        raise exception
