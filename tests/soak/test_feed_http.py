"""Figures of the feed over HTTP: servers that are killed, and connections that are cut, held and delayed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from auth_server import TOKEN, AuthServer, is_refused, until
from killed_server import end_and_kill
from soaking import MINUTES, Soak

from coatcheck import StoreUnavailable, Verifier
from coatcheck.testing import FaultProxy

RECOVERY = 2.0  # seconds until all is as usual, once the connection is back
FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "cut": FaultProxy.cut,
    "held": FaultProxy.hold,
    "held on the way back": FaultProxy.hold_replies,
    "dripping": lambda proxy: proxy.drip(20),
    "20 s late": lambda proxy: proxy.delay(20),
}


@pytest.fixture
def soak() -> Soak:
    return Soak("HTTP")


def test_p1_kill_9_of_the_auth_server(tmp_path: Path, soak: Soak) -> None:
    rounds = 100 if MINUTES >= 10 else 10
    end_and_kill(tmp_path / "data", rounds)
    soak.report(f"kill -9 of the auth server, {rounds} times", f"{rounds} sign-outs", "0 missed by 2 verifiers")


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[AuthServer, FaultProxy]]:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with FaultProxy("127.0.0.1", port) as proxy:
        server = AuthServer(tmp_path / "data", issuer=f"http://127.0.0.1:{proxy.port}", port=port)
        server.start()
        yield server, proxy
        server.stop()


@pytest.mark.parametrize("fault", FAULTS)
def test_r11_p6_the_feed_is_away(fault: str, behind: tuple[AuthServer, FaultProxy], soak: Soak) -> None:
    """Each of two processes knows within its bound of five seconds, and is back by itself with nothing missed."""
    seconds = min(MINUTES, 30)
    server, proxy = behind
    verifiers = [Verifier.from_issuer(server.url, feed_token=TOKEN) for _ in range(2)]
    for verifier in verifiers:
        verifier.open(wait=timedelta(seconds=30))
    kept, ended = server.token("ann"), server.token("bob")
    FAULTS[fault](proxy)
    began = time.monotonic()
    server.revoke_all("bob")
    noticed = until(lambda: all(verifier.is_stale() for verifier in verifiers))
    for verifier in verifiers:
        with pytest.raises(StoreUnavailable):
            verifier.verify(kept)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    proxy.heal()
    recovery = until(lambda: not any(verifier.is_stale() for verifier in verifiers))
    assert all(is_refused(verifier, ended) and verifier.verify(kept).subject == "ann" for verifier in verifiers)
    for verifier in verifiers:
        verifier.close()
    soak.report(f"feed {fault} for {seconds} s", f"noticed after {noticed:.2f} s", f"{recovery:.2f} s to recover")
    assert noticed < 5.5
    assert recovery < RECOVERY
