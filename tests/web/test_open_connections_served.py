"""F11 over real connections: uvicorn serves, and a client of somebody else's is cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from coatcheck import Coatcheck, SQLiteStore
from coatcheck.web.starlette import CoatcheckMiddleware, exchange

pytestmark = pytest.mark.anyio

DEADLINE = 20  # seconds


async def sign_in(request: Request) -> Response:
    await exchange(request).sign_in("ann", amr=("pwd",))
    return PlainTextResponse("signed in")


async def events(request: Request) -> Response:
    """One event, and then none for ever."""

    async def body() -> AsyncIterator[bytes]:
        yield b"data: hello\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(body(), media_type="text/event-stream")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async for message in socket.iter_text():
        await socket.send_text(message)


async def push(socket: WebSocket) -> None:
    """Does not listen."""
    await socket.accept()
    while True:
        await socket.send_text("tick")
        await asyncio.sleep(0.05)


ROUTES = [
    Route("/sign-in", sign_in, methods=["POST"]),
    Route("/events", events),
    WebSocketRoute("/talk", talk),
    WebSocketRoute("/push", push),
]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[str, Coatcheck]]:
    """Where the server is, and a coatcheck that stands for another process."""
    path = tmp_path / "sessions.db"
    app = Starlette(routes=ROUTES, middleware=[Middleware(CoatcheckMiddleware, coatcheck=Coatcheck(SQLiteStore(path)))])
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, ws="wsproto", log_level="critical", timeout_graceful_shutdown=5)
    )
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(DEADLINE), Coatcheck(SQLiteStore(path)) as elsewhere:
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}", elsewhere
        server.should_exit = True
        await serving


async def test_f11_sockets_and_streams_are_cut_within_a_second_of_a_sign_out_in_another_process(
    served: tuple[str, Coatcheck],
) -> None:
    """Whether the application listens or not; the client knows why, and of a stream that it is not whole."""
    url, elsewhere = served
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        async with client.post(f"{url}/sign-in") as answer:
            cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        talking = await client.ws_connect(f"{url}/talk", headers=cookie)
        pushed = await client.ws_connect(f"{url}/push", headers=cookie)
        streamed = await client.get(f"{url}/events", headers=cookie)
        anonymous = await client.ws_connect(f"{url}/talk")
        await talking.send_str("hello")
        assert (await talking.receive_str(), await pushed.receive_str()) == ("hello", "tick")
        assert await streamed.content.readline() == b"data: hello\n"

        assert await elsewhere.sessions.revoke_all("ann") == 1
        said = time.monotonic()
        seconds = {}
        closed = await talking.receive()
        seconds["talk"] = time.monotonic() - said
        assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "revoked")
        while (last := await pushed.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        seconds["push"] = time.monotonic() - said
        assert (last.type, last.data, last.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "revoked")
        with pytest.raises(aiohttp.ClientPayloadError):
            await streamed.content.read()
        streamed.close()
        seconds["events"] = time.monotonic() - said
        print(seconds)  # noqa: T201 - for whoever wants to know; a machine that is busy must not fail a test

        await anonymous.send_str("still here")
        assert await anonymous.receive_str() == "still here"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{url}/talk", headers={**cookie, "origin": "https://evil.example"})
        assert refused.value.status == 403
        await anonymous.close()
