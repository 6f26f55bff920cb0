"""Policy, the refresh table, and the set of revocations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from coatcheck.core import rotation
from coatcheck.core.cookies import Cookie
from coatcheck.core.policy import Policy
from coatcheck.core.revocation import Revocations, Revoked
from coatcheck.core.rotation import Verdict
from coatcheck.errors import ConfigurationError
from coatcheck.errors import Revoked as RevokedError

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def test_s8_presets_per_assurance_level() -> None:
    """NIST SP 800-63B-4: AAL1 30 d; AAL2 24 h and 1 h idle; AAL3 12 h and 15 min idle."""
    limits = [(policy.absolute, policy.idle) for policy in (Policy.aal1(), Policy.aal2(), Policy.aal3())]
    assert limits == [(30 * DAY, None), (24 * HOUR, HOUR), (12 * HOUR, 15 * MINUTE)]
    assert Policy.aal2(absolute=8 * HOUR).absolute == 8 * HOUR


def test_s9_both_timeouts_are_visible_to_an_auditor() -> None:
    """The policy prints what it enforces."""
    shown = repr(Policy.aal3())
    assert "idle=datetime.timedelta(seconds=900)" in shown
    assert "absolute=datetime.timedelta(seconds=43200)" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle": timedelta(0)},
        {"absolute": timedelta(0)},
        {"idle": 2 * DAY, "absolute": DAY},
        {"touch_every": HOUR, "idle": HOUR},
        {"access_lifetime": 2 * HOUR},
        {"access_lifetime": timedelta(0)},
        {"refresh_grace": HOUR},
        {"leeway": timedelta(seconds=61)},
        {"max_data": 0},
        {"stale_after": timedelta(0)},
        {"when_stale": "hope"},
        {"trusted_origins": frozenset({"https://shop.example/"})},
        {"issuer": ""},
        {"client_id": ""},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_construction(wrong: dict[str, Any]) -> None:
    """A wrong policy is found when the process starts, not by a user."""
    with pytest.raises(ConfigurationError):
        Policy(**wrong)


def test_the_token_cookies_follow_the_session_cookie() -> None:
    """Same prefix and attributes, names of their own; the refresh cookie is always SameSite=Strict."""
    policy = Policy()
    assert [policy.access_cookie.name, policy.refresh_cookie.name] == ["__Host-access", "__Host-refresh"]
    assert (policy.access_cookie.same_site, policy.refresh_cookie.same_site) == ("Lax", "Strict")
    shop = Policy(cookie=Cookie("__Host-Http-shop"))
    assert [shop.access_cookie.name, shop.refresh_cookie.name] == [
        "__Host-Http-shop-access",
        "__Host-Http-shop-refresh",
    ]


@pytest.mark.parametrize(
    ("presented", "current", "age", "verdict"),
    [
        (0, 0, 0, Verdict.ROTATE),
        (7, 7, 10_000_000, Verdict.ROTATE),
        (6, 7, 0, Verdict.RETRY),
        (6, 7, 30_000, Verdict.RETRY),
        (6, 7, 30_001, Verdict.REUSE),
        (5, 7, 0, Verdict.REUSE),
        (0, 7, 0, Verdict.REUSE),
        (8, 7, 0, Verdict.REUSE),
    ],
)
def test_p5_the_refresh_table(presented: int, current: int, age: int, verdict: Verdict) -> None:
    """Only the direct predecessor, within grace, is forgiven; a token from the future is none of ours either."""
    assert rotation.judge(presented, current, 1_000_000, 1_000_000 + age, 30_000) is verdict


class TestRevocations:
    """The set that every verification consults."""

    def test_a_session_is_revoked_by_id(self) -> None:
        """S10: that session's tokens and no others."""
        known = Revocations()
        known.apply(Revoked(session_id="a", until=10))
        with pytest.raises(RevokedError):
            known.judge("a", "ann", 1000)
        known.judge("b", "ann", 1000)

    def test_a_subject_is_revoked_up_to_its_cut_off(self) -> None:
        """Tokens of an earlier second are dead, a token issued after the cut-off is not refused by mistake."""
        known = Revocations()
        known.apply(Revoked(subject="ann", before=5_500, until=10_000))
        with pytest.raises(RevokedError):
            known.judge("a", "ann", 4)
        known.judge("a", "ann", 5)
        known.judge("a", "bob", 4)

    def test_a_cut_off_never_moves_backward(self) -> None:
        """Events may arrive twice and in any order."""
        known = Revocations()
        known.apply(Revoked(subject="ann", before=9_000, until=10_000))
        known.apply(Revoked(subject="ann", before=5_000, until=8_000))
        with pytest.raises(RevokedError):
            known.judge("a", "ann", 8)
        assert known.covers("a", "ann", 8_999)
        assert not known.covers("a", "ann", 9_000)

    def test_a_session_is_covered_by_its_id_or_its_subject(self) -> None:
        """What is asked of sessions, whose times are known to the millisecond."""
        known = Revocations()
        known.apply(Revoked(session_id="a", until=10))
        assert known.covers("a", None, 0)
        assert not known.covers("b", None, 0)
        assert not known.covers("b", "ann", 0)

    def test_memory_is_bounded_by_what_is_still_of_use(self) -> None:
        """R12, P9: an entry is dropped when no token that it concerns can be alive."""
        known = Revocations()
        for number in range(5000):
            known.apply(Revoked(session_id=str(number), until=number))
            known.prune(now=4000)
        assert 999 <= len(known) <= 2024 + 999
