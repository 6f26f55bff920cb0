"""A token that was verified is known again, and nothing that could end it is missed for that."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import Key, Keyring, Policy, Revocations, Verifier, verifier
from coatcheck.core import jws
from coatcheck.core.claims import build_access_token
from coatcheck.core.revocation import Revoked
from coatcheck.errors import BadSignature, CredentialError, Expired, WrongClaim
from coatcheck.errors import Revoked as RevokedError
from coatcheck.testing import SettableClock

POLICY = Policy(issuer="https://auth.example", audience="https://api.example")
SESSION = "A" * 22


class Counted:
    """Counts how often a signature was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        genuine = jws.verify

        def verify(token: str | bytes, ring: Keyring, *, typ: str) -> bytes:
            self.times += 1
            return genuine(token, ring, typ=typ)

        monkeypatch.setattr(jws, "verify", verify)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def ring() -> Keyring:
    return Keyring(Key.generate("HS256"), secret=secrets.token_bytes(32))


@pytest.fixture
def judge(ring: Keyring, clock: SettableClock) -> Verifier:
    return Verifier(ring, POLICY, Revocations(), clock=clock)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def issue(ring: Keyring, clock: SettableClock) -> Callable[..., str]:
    def made(**others: Any) -> str:
        build: dict[str, Any] = {
            "issuer": POLICY.issuer,
            "audience": POLICY.audience,
            "subject": "ann",
            "client_id": "app",
            "session_id": SESSION,
            "token_id": secrets.token_urlsafe(16),
            "issued_at": clock() // 1000,
            "lifetime": 900,
        }
        assert ring.signing is not None
        return jws.sign(build_access_token(**{**build, **others}), ring.signing, typ="at+jwt")

    return made


def test_a_token_that_comes_again_is_known(judge: Verifier, issue: Callable[..., str], looked: Counted) -> None:
    token = issue()
    found = [judge.verify(token.encode().decode()) for _ in range(5)]
    assert looked.times == 1
    assert {principal.session_id for principal in found} == {SESSION}


def test_p1_a_known_token_is_refused_once_its_session_is_revoked(
    judge: Verifier, issue: Callable[..., str], clock: SettableClock
) -> None:
    token = issue()
    judge.verify(token)
    judge.revocations.apply(Revoked(session_id=SESSION, until=clock() + 10**6))
    for _ in range(2):
        with pytest.raises(RevokedError):
            judge.verify(token)


def test_p1_a_known_token_is_refused_once_its_subject_is_signed_out_everywhere(
    judge: Verifier, issue: Callable[..., str], clock: SettableClock
) -> None:
    token = issue()
    judge.verify(token)
    judge.revocations.apply(Revoked(subject="ann", before=clock() + 1000, until=clock() + 10**6))
    for _ in range(2):
        with pytest.raises(RevokedError):
            judge.verify(token)


def test_j13_a_known_token_expires_in_the_same_millisecond_as_any_other(
    judge: Verifier, issue: Callable[..., str], clock: SettableClock
) -> None:
    token = issue()
    judge.verify(token)
    clock.advance(timedelta(seconds=900) + POLICY.leeway - timedelta(milliseconds=1))
    judge.verify(token)
    clock.advance(timedelta(milliseconds=1))
    with pytest.raises(Expired):
        judge.verify(token)


def test_p8_a_known_token_is_refused_once_its_key_is_forgotten(
    judge: Verifier, ring: Keyring, issue: Callable[..., str]
) -> None:
    token = issue()
    judge.verify(token)
    ring.adopt(Keyring(Key.generate("HS256"), secret=secrets.token_bytes(32)))
    with pytest.raises(BadSignature):
        judge.verify(token)


def test_a_clock_that_is_set_back_makes_a_known_token_one_from_the_future(
    judge: Verifier, issue: Callable[..., str], clock: SettableClock
) -> None:
    token = issue()
    judge.verify(token)
    clock.advance(timedelta(hours=-1))
    with pytest.raises(WrongClaim):
        judge.verify(token)


@pytest.mark.parametrize(
    "others", [{"confirmation": {"jkt": "x"}}, {"extra": {"long": "x" * 2000}}], ids=["bound to a key", "long"]
)
def test_p9_neither_bound_nor_long_tokens_are_kept(
    judge: Verifier, issue: Callable[..., str], looked: Counted, others: dict[str, Any]
) -> None:
    token = issue(**others)
    for _ in range(3):
        judge.verify(token)
    assert looked.times == 3


def test_p9_what_is_kept_is_bounded(
    judge: Verifier, issue: Callable[..., str], looked: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound all are forgotten, and verified anew."""
    monkeypatch.setattr(verifier, "_MOST_KEPT", 3)
    tokens = [issue() for _ in range(4)]
    for token in tokens:
        judge.verify(token)
    assert len(judge._kept) == 1
    judge.verify(tokens[-1])
    judge.verify(tokens[0])
    assert looked.times == 5


def test_no_refused_token_is_kept(judge: Verifier, issue: Callable[..., str]) -> None:
    """Strangers cannot fill it."""
    token = issue()
    for bad in (token[:-2] + "AA", issue(audience="https://another.example"), issue(lifetime=1)[:-1]):
        with pytest.raises(CredentialError):
            judge.verify(bad)
    assert judge._kept == {}
