"""See a token revoked: an auth server and two APIs (api.py), each a process of its own.

python examples/revocation/see.py             Ann signs out on one device
python examples/revocation/see.py --outage    and then the auth server goes away for a while
"""

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PASSWORD = "a lantern under the stairs"  # noqa: S105 - of an account that lives for seconds
APIS, DEVICES = ("api 1", "api 2"), ("laptop", "phone")
PATIENCE = 30.0  # seconds


def main() -> None:
    """Show it."""
    with tempfile.TemporaryDirectory() as data, contextlib.ExitStack() as stack:
        environment = {**os.environ, "COATCHECK_DATA_DIR": f"{data}/auth", "FEED_TOKEN": secrets.token_urlsafe(32)}
        environment |= {"COATCHECK_FEED_TOKEN": environment["FEED_TOKEN"], "PYTHONPATH": str(HERE)}
        auth, *apis = free_ports(3)
        environment |= {"COATCHECK_PORT": str(auth), "ISSUER": f"http://localhost:{auth}"}
        serve = ["-m", "coatcheck.cli", "serve"]

        server = stack.enter_context(running(serve, environment, auth))
        for port in apis:
            stack.enter_context(running(["-m", "uvicorn", "api:app", "--port", str(port)], environment, port))
        add = [sys.executable, "-m", "coatcheck.cli", "accounts", "add", "ann", "--password-stdin"]
        subprocess.run(add, input=PASSWORD, text=True, env=environment, check=True, stdout=subprocess.DEVNULL)

        print("Ann signs in on two devices, and shows their tokens to two APIs.")
        tokens = {device: sign_in(auth) for device in DEVICES}
        until(lambda: set(answers(apis, tokens).values()) == {200})
        show(answers(apis, tokens))

        print("\nAnn signs out on the laptop.")
        ask(auth, "POST", "/api/sign-out", tokens["laptop"])
        said = time.monotonic()
        for api, port in zip(APIS, apis, strict=True):
            until(partial(refuses, port, tokens["laptop"]))
            print(f"{api} has refused the laptop {(time.monotonic() - said) * 1000:.0f} ms after that was done")
        show(answers(apis, tokens))

        if "--outage" in sys.argv[1:]:
            print("\nThe auth server goes away. The APIs go on for five seconds; then they say that they know nothing.")
            server.kill()
            took = until(lambda: set(answers(apis, tokens).values()) == {503})
            print(f"after {took:.1f} s:")
            show(answers(apis, tokens))
            print("\nThe auth server is back.")
            stack.enter_context(running(serve, environment, auth))
            took = until(lambda: set(answers(apis, tokens).values()) == {200, 401})
            print(f"after {took:.1f} s:")
            show(answers(apis, tokens))


def show(found: dict[tuple[str, str], int]) -> None:
    """Print what each API answers to each device."""
    print("       ", *(f"{device:>8}" for device in DEVICES))
    for api in APIS:
        print(f"  {api}", *(f"{found[api, device]:>8}" for device in DEVICES))


def answers(ports: list[int], tokens: dict[str, str]) -> dict[tuple[str, str], int]:
    """Return what each API answers to each device."""
    return {
        (api, device): status(port, token)
        for api, port in zip(APIS, ports, strict=True)
        for device, token in tokens.items()
    }


def sign_in(port: int) -> str:
    """Return an access token of a new session."""
    asked = {"account": "ann", "password": PASSWORD, "deliver": "token"}
    token: str = ask(port, "POST", "/api/sign-in", body=asked)[1]["access_token"]
    return token


def status(port: int, token: str) -> int:
    """Return what an API answers."""
    return ask(port, "GET", "/notes", token)[0]


def refuses(port: int, token: str) -> bool:
    """Say whether an API refuses a token."""
    return status(port, token) == 401


def ask(port: int, method: str, path: str, token: str = "", body: object = None) -> tuple[int, Any]:
    """Return the status of an answer, and what it says in JSON."""
    connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body or {}) if method == "POST" else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def running(words: list[str], environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program, from when it listens until it is not needed any more."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=quiet, stderr=quiet)
    try:
        until(lambda: listens(port))
        yield process
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    """Say whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def until(condition: Callable[[], bool]) -> float:
    """Wait until something is so, and return how long that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            raise SystemExit("this did not come about")
        time.sleep(0.002)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
