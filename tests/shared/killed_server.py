"""An auth server that is killed with -9 right after it has acknowledged the end of a session."""

from __future__ import annotations

import signal
from pathlib import Path

from auth_server import TOKEN, is_refused, until
from serving import NAME, PASSWORD, Served, Visitor, cli

from coatcheck import StoreUnavailable, Verifier


def end_and_kill(data: Path, rounds: int) -> None:
    """End sessions and kill the server, again and again: two verifiers must miss none, and refuse nobody else (P1).

    Args:
        data: where the server keeps everything; made anew.
        rounds: how often.
    """
    environment = {"COATCHECK_FEED_TOKEN": TOKEN}
    served = Served(data, environment=environment).ready()
    port = served.port
    added = cli("accounts", "add", NAME, "--password-stdin", "--data-dir", str(data), stdin=PASSWORD + "\n")
    assert added.returncode == 0, added.stderr
    verifiers = [Verifier.from_issuer(f"http://localhost:{port}", feed_token=TOKEN) for _ in range(2)]
    try:
        kept, *ended = [_token(served) for _ in range(rounds + 1)]
        for verifier in verifiers:
            verifier.open()
        for number, token in enumerate(ended):
            assert not any(is_refused(verifier, each) for verifier in verifiers for each in (kept, token))
            assert Visitor(served)("POST", "/api/sign-out", {}, bearer=token) == (200, {"ended": 1})
            served.end(signal.SIGKILL)
            served = Served(data, "--port", str(port), environment=environment).ready()
            for verifier in verifiers:
                until(lambda verifier=verifier, token=token: _knows(verifier, token))  # type: ignore[misc]
                assert all(is_refused(verifier, each) for each in ended[: number + 1])
                assert verifier.verify(kept).subject
    finally:
        for verifier in verifiers:
            verifier.close()
        served.end()


def _knows(verifier: Verifier, token: str) -> bool:
    try:
        return is_refused(verifier, token)
    except StoreUnavailable:  # the server took longer to begin than the verifier bears
        return False


def _token(served: Served) -> str:
    found: str = Visitor(served).sign_in(deliver="token")["access_token"]
    return found
