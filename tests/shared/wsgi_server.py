"""Serves one small WSGI application by a real server: `wsgi_server.py gunicorn|werkzeug SQLITE-FILE`; prints its port.

By gunicorn it is served by two processes, forked after the coatcheck was opened and used: the hardest case.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from coatcheck import Coatcheck, SQLiteStore
from coatcheck.run import run
from coatcheck.web.wsgi import CoatcheckWSGI, Environ, StartResponse, exchange

HOST = "127.0.0.1"


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Sign in, issue a token, sign out, go on for ever, or say who it is, and which process says so."""
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [])
        return stream()
    found, words = exchange(environ), [str(os.getpid())]
    if environ["PATH_INFO"] == "/sign-in":
        run(found.sign_in("ann"))
        words.append(run(found.issue()).access_token)
    elif environ["PATH_INFO"] == "/sign-out":
        words.append(str(run(found.sign_out())))
    else:
        words.append(found.principal.subject if found.principal else "nobody")
    body = " ".join(words).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def stream() -> Iterator[bytes]:
    """Send something again and again."""
    while True:
        yield b"tick"
        time.sleep(0.01)


def gunicorn(wsgi: CoatcheckWSGI, listener: socket.socket) -> None:
    """Serve by two processes, with four threads each."""
    from gunicorn.app.base import BaseApplication

    class Gunicorn(BaseApplication):  # type: ignore[misc]  # it has no types
        def load_config(self) -> None:
            settings = {"workers": 2, "worker_class": "gthread", "threads": 4, "preload_app": True}
            for name, value in {**settings, "loglevel": "critical", "control_socket_disable": True}.items():
                self.cfg.set(name, value)
            self.cfg.set("bind", [f"fd://{listener.fileno()}"])

        def load(self) -> Any:
            wsgi.background.open(10)
            session = run(wsgi.coatcheck.sessions.create("somebody"))
            run(wsgi.coatcheck.sessions.revoke(session.id or ""))
            return wsgi

    Gunicorn().run()


def werkzeug(wsgi: CoatcheckWSGI, listener: socket.socket) -> None:
    """Serve by one process, with a thread for each connection."""
    from werkzeug.serving import make_server

    make_server(HOST, 0, wsgi, threaded=True, fd=listener.fileno()).serve_forever()


SERVERS: dict[str, Callable[[CoatcheckWSGI, socket.socket], None]] = {"gunicorn": gunicorn, "werkzeug": werkzeug}

if __name__ == "__main__":
    with socket.create_server((HOST, 0), backlog=128) as opened:
        sys.stdout.write(f"{opened.getsockname()[1]}\n")
        sys.stdout.flush()
        SERVERS[sys.argv[1]](CoatcheckWSGI(app, coatcheck=Coatcheck(SQLiteStore(sys.argv[2]))), opened)
