"""An API that keeps no store: it verifies access tokens by itself, and hears at once when a session has ended.

ISSUER=http://localhost:8000 FEED_TOKEN=... uvicorn api:app --port 8001
"""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from coatcheck import Verifier
from coatcheck.web.bearer import BearerMiddleware, bearer

verifier = Verifier.from_issuer(os.environ["ISSUER"], feed_token=os.environ["FEED_TOKEN"])


async def notes(request: Request) -> JSONResponse:
    """Answer who is signed in; everybody else is refused with 401."""
    principal = bearer(request).require()
    return JSONResponse({"notes_of": principal.subject})


app = Starlette(routes=[Route("/notes", notes)], middleware=[Middleware(BearerMiddleware, verifier=verifier)])
