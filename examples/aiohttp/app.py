"""An aiohttp app that people sign in to: `python examples/aiohttp/app.py`."""

import os

from aiohttp import web

from coatcheck import Coatcheck
from coatcheck.web.aiohttp import exchange, init_app

PASSWORDS = {"ann": "four words of mine"}  # a toy: your app has accounts, and hashes of passwords

routes = web.RouteTableDef()


@routes.get("/")
async def hello(request: web.Request) -> web.Response:
    principal = exchange(request).principal
    return web.Response(text=f"hello {principal.subject if principal else 'stranger'}")


@routes.post("/sign-in")
async def sign_in(request: web.Request) -> web.Response:
    form = await request.post()
    if PASSWORDS.get(str(form["name"])) != form["password"]:
        raise web.HTTPForbidden(text="name or password is wrong")
    await exchange(request).sign_in(str(form["name"]), amr=("pwd",))
    return web.Response(text="signed in")


@routes.post("/sign-out")
async def sign_out(request: web.Request) -> web.Response:
    await exchange(request).sign_out()
    return web.Response(text="signed out")


app = web.Application()
init_app(app, Coatcheck())
app.add_routes(routes)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
