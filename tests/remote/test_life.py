"""A verifier's thread: it begins, ends and forks without leaving anything, and says nothing secret."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from auth_server import TOKEN, AuthServer, until

from coatcheck import (
    ConfigurationError,
    Expired,
    StoreUnavailable,
    Verifier,
    WrongClaim,
)
from coatcheck.core.revocation import NEVER
from coatcheck.run import run
from coatcheck.testing import SettableClock


def test_close_leaves_no_thread_and_no_descriptor_and_trusts_nothing(auth: AuthServer) -> None:
    def there() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    token = auth.token()
    auth.do(asyncio.sleep(0.05))
    before = there()
    verifier = Verifier.from_issuer(auth.url, feed_token=TOKEN)
    for _ in range(3):
        with verifier:
            assert verifier.verify(token).subject == "ann"
        verifier.close()
        with pytest.raises(StoreUnavailable):
            verifier.verify(token)
        with pytest.raises(StoreUnavailable):
            run(verifier.verify_asking(token))
    until(lambda: there()[0] <= before[0])  # the server's ends of the connections are closed by the server
    assert there()[1] == before[1]
    assert verifier.revocations.heard_at == NEVER


def test_a_closed_verifier_can_be_opened_again(auth: AuthServer) -> None:
    async def both() -> None:
        verifier = Verifier.from_issuer(auth.url, feed_token=TOKEN)
        for _ in range(2):
            async with verifier:
                assert verifier.verify(token).subject == "ann"

    token = auth.token()
    asyncio.run(both())


FORK = """
import os, sys, time
from coatcheck import StoreUnavailable, Verifier

url, feed_token, token = sys.argv[1:]
with Verifier.from_issuer(url, feed_token=feed_token) as verifier:
    assert verifier.verify(token).subject == "ann"
    child = os.fork()
    if not child:
        try:
            verifier.verify(token)
            os._exit(1)  # it heard nothing, and does not know it
        except StoreUnavailable:
            pass
        verifier.open()
        assert verifier.verify(token).subject == "ann"
        print("the child too", verifier.silence() < 3000, flush=True)
        verifier.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.7)
    assert verifier.silence() < 3000
    verifier.verify(token)
    print("and the parent still", flush=True)
"""


def test_a_fork_begins_anew_and_the_parent_goes_on(auth: AuthServer) -> None:
    """A pre-forking WSGI server: what the parent had heard is not taken for what the child hears."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, auth.url, TOKEN, auth.token()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "the child too True\nand the parent still\n", done.stderr
    assert done.stderr == ""


def test_a_program_that_forgets_to_close_ends_without_a_word(auth: AuthServer) -> None:
    program = (
        "import sys\nfrom coatcheck import Verifier\n"
        "v = Verifier.from_issuer(sys.argv[1], feed_token=sys.argv[2])\nv.open()\nprint(v.verify(sys.argv[3]).subject)"
    )
    command = [sys.executable, "-c", program, auth.url, TOKEN, auth.token()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("ann\n", "", 0)


@pytest.mark.parametrize(
    ("issuer", "token"),
    [
        ("http://auth.example", TOKEN),
        ("https://auth.example/", TOKEN),
        ("https://auth.example/realm", TOKEN),
        ("https://user:secret@auth.example", TOKEN),
        ("ftp://auth.example", TOKEN),
        ("auth.example", TOKEN),
        ("https://" + "a" * 64 + ".example", TOKEN),
        ("https://auth.example", "short"),
        ("https://auth.example", "x" * 31),
        ("https://auth.example", "x" * 40 + "\r\nX-Header: 1"),
        ("https://auth.example", "x" * 40 + "ü"),
        ("https://auth.example", "x" * 2000),
    ],
)
def test_what_cannot_work_or_would_not_be_safe_is_refused_at_once(issuer: str, token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Verifier.from_issuer(issuer, feed_token=token)
    assert "secret" not in str(refused.value)
    assert token not in str(refused.value)


def test_no_secret_is_shown(auth: AuthServer, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "this-is-no-feed-token-of-that-server"
    verifier = Verifier.from_issuer(auth.url, feed_token=wrong)
    verifier.open(wait=timedelta(milliseconds=300))
    token = auth.token()
    with pytest.raises(StoreUnavailable) as refused:
        verifier.verify(token)
    until(lambda: "401" in caplog.text)
    shown = f"{verifier!r} {vars(verifier)!r} {vars(verifier._listener)!r} {refused.value} {caplog.text}"
    verifier.close()
    assert wrong not in shown.replace(f"'_token': '{wrong}'", "")
    assert token not in shown


def test_verifying_is_as_good_for_another_audience_as_it_is_told(auth: AuthServer) -> None:
    api = Verifier.from_issuer(auth.url, feed_token=TOKEN, audience="https://api.example")
    with api, pytest.raises(WrongClaim):
        api.verify(auth.token())


def test_expiry_is_by_the_clock_that_is_given(auth: AuthServer) -> None:
    clock = SettableClock(int(time.time() * 1000))
    with Verifier.from_issuer(auth.url, feed_token=TOKEN, clock=clock) as verifier:
        token = auth.token()
        assert verifier.verify(token).subject == "ann"
        clock.advance(timedelta(hours=1))
        with pytest.raises(Expired):
            verifier.verify(token)
