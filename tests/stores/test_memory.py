"""MemoryStore, where several processes each have one: what the log says about it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coatcheck import Coatcheck, Revoked
from coatcheck.core.credentials import SessionCookie
from coatcheck.core.session import Session
from coatcheck.run import run
from coatcheck.testing import SettableClock


class Worker:
    """What one of several processes has."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.sessions = Coatcheck(clock=self.clock).sessions

    def sign_in(self) -> Session:
        return run(self.sessions.create("ann"))

    def refuses(self, session: Session) -> None:
        assert isinstance(session.cookie, SessionCookie)
        with pytest.raises(Revoked):
            run(self.sessions.load(session.cookie))


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum("each worker process has its own" in record.getMessage() for record in caplog.records)


def test_workers_that_refuse_each_other_s_sessions_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    one, two = Worker(), Worker()
    elsewhere = two.sign_in()
    one.sign_in()
    for _ in range(3):
        one.refuses(elsewhere)
        one.refuses(Worker().sign_in())
    assert warnings(caplog) == 1


def test_a_process_with_no_session_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It was just started; perhaps again, by somebody who writes code."""
    Worker().refuses(Worker().sign_in())
    assert warnings(caplog) == 0


@pytest.mark.parametrize("end", ["signed out", "expired"])
def test_a_process_whose_own_sessions_end_says_nothing(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """What it has had cannot be told from what it never had, from then on."""
    one = Worker()
    session = one.sign_in()
    if end == "signed out":
        run(one.sessions.revoke(session))
    else:
        one.clock.advance(timedelta(days=400))
        run(one.sessions.sweep())
    one.sign_in()
    one.refuses(session)
    one.refuses(Worker().sign_in())
    assert warnings(caplog) == 0
