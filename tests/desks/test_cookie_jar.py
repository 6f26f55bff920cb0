"""The application's own cookies: what was set comes back, what anybody else made up counts as missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck import (
    ConfigurationError,
    Cookie,
    CookieJar,
    InvalidValue,
    Keyring,
    Policy,
    SealedCookie,
    SignedCookie,
)
from coatcheck.request_head import RequestHead
from coatcheck.testing import SettableClock

# A slow machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PLAIN = Cookie("theme", http_only=False, max_age=timedelta(days=365))
SIGNED = SignedCookie("cart", max_age=timedelta(days=1))
SEALED = SealedCookie("draft", max_age=timedelta(minutes=10))
KINDS = (PLAIN, SIGNED, SEALED)
SECRETS = [bytes(range(number, number + 32)) for number in range(3)]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
each_protected = pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.name)


class World:
    """A server with a clock and keys, and browsers that say what a test has them say."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.ring = Keyring(None, secret=SECRETS[0])
        self.policy = Policy()

    def jar(self, *cookies: bytes) -> CookieJar:
        head = RequestHead("GET", "https", [(b"cookie", each) for each in cookies])
        return CookieJar(head, self.clock, self.ring, self.policy)

    def sent(self, jar: CookieJar) -> list[bytes]:
        return [value for name, value in jar.dress([]) if name == b"set-cookie"]

    def pair(self, kind: Cookie, value: str, **options: Any) -> bytes:
        """Return what a browser sends after `value` was set."""
        jar = self.jar()
        jar.set(kind, value, **options)
        [line] = self.sent(jar)
        return line.partition(b";")[0]


@pytest.fixture
def world() -> World:
    return World()


@each_kind
def test_what_was_set_comes_back_with_the_next_request(world: World, kind: Cookie) -> None:
    assert world.jar(b"a=b; " + world.pair(kind, "dark") + b"; c=d").get(kind) == "dark"


@each_protected
def test_a_protected_value_is_any_text(world: World, kind: Cookie) -> None:
    text = 'Füße; "quoted", \r\n and \0'
    assert world.jar(world.pair(kind, text)).get(kind) == text


@each_kind
def test_what_this_response_sends_counts_already(world: World, kind: Cookie) -> None:
    jar = world.jar(world.pair(kind, "before"))
    jar.set(kind, "after")
    assert jar.get(kind) == "after"
    jar.delete(kind)
    assert jar.get(kind) is None
    jar.set(kind, "again")
    assert jar.get(kind) == "again"
    assert len(world.sent(jar)) == 1  # C2


@each_kind
def test_c13_two_of_one_name_are_none_in_either_order(world: World, kind: Cookie) -> None:
    """One of them was tossed in by a sibling, and nothing tells which: a planted one never wins."""
    ours, theirs = world.pair(kind, "ours"), kind.name.encode() + b"=theirs"
    for one, other in ((ours, theirs), (theirs, ours), (ours, ours)):
        assert world.jar(one + b"; " + other).get(kind) is None
        assert world.jar(one, other).get(kind) is None


@pytest.mark.parametrize("make", [Cookie, SealedCookie])
def test_c9_a_look_alike_name_is_another_cookie(world: World, make: Any) -> None:
    options: dict[str, Any] = {} if make is Cookie else {"max_age": timedelta(hours=1)}
    kind = make("__Host-theme", **options)
    pair = world.pair(kind, "dark")
    assert world.jar(pair).get(kind) == "dark"
    for name in (b"__host-theme", b"__HOST-theme", b"__Host-Theme", b"\x85__Host-theme", b"__Host-theme\xa0"):
        assert world.jar(pair.replace(b"__Host-theme", name)).get(kind) is None


@each_protected
def test_c17_a_value_set_under_another_name_counts_as_missing(world: World, kind: SealedCookie) -> None:
    for other in (type(kind)("other", max_age=timedelta(days=1)), *KINDS):
        if other is not kind:
            moved = kind.name.encode() + b"=" + world.pair(other, "dark").partition(b"=")[2]
            assert world.jar(moved).get(kind) is None


@each_protected
def test_a_copy_that_somebody_kept_dies_with_the_value(world: World, kind: SealedCookie) -> None:
    """The browser was told to forget it, and whoever did not is not believed."""
    copy = world.pair(kind, "dark")
    brief = world.pair(kind, "dark", max_age=timedelta(seconds=5))
    world.clock.advance(timedelta(seconds=5))
    assert (world.jar(brief).get(kind), world.jar(copy).get(kind)) == (None, "dark")
    world.clock.advance(kind.max_age - timedelta(seconds=5, milliseconds=1))
    assert world.jar(copy).get(kind) == "dark"
    world.clock.advance(timedelta(milliseconds=1))
    assert world.jar(copy).get(kind) is None


@each_protected
def test_c17_a_rotation_of_the_keys_loses_nothing_until_the_old_one_is_dropped(world: World, kind: Cookie) -> None:
    """P8: what the key before made is read, and what is made from now on is the new key's."""
    pair = world.pair(kind, "dark")
    world.ring.adopt(Keyring(None, secret=SECRETS[1], retired_secrets=[SECRETS[0]]))
    assert world.jar(pair).get(kind) == "dark"
    newer = world.pair(kind, "light")
    world.ring.adopt(Keyring(None, secret=SECRETS[2], retired_secrets=[SECRETS[1]]))
    assert (world.jar(pair).get(kind), world.jar(newer).get(kind)) == (None, "light")


@each_protected
def test_the_key_of_one_kind_is_not_that_of_the_other(world: World, kind: SealedCookie) -> None:
    one, other = (world.ring.derive(each.key_purpose) for each in (SIGNED, SEALED))
    assert one != other
    assert world.ring.derive("refresh") not in (one, other)


@pytest.mark.parametrize("value", ["a b", 'a"b', "a,b", "a;b", "a\\b", "ü", "a\r\nb", b"dark", None, 7])
def test_c1_what_a_plain_cookie_cannot_carry_is_refused_and_never_changed(world: World, value: Any) -> None:
    jar = world.jar()
    with pytest.raises(InvalidValue):
        jar.set(PLAIN, value)
    assert (world.sent(jar), jar.get(PLAIN)) == ([], None)


@pytest.mark.parametrize("value", [b"dark", None, 7, "\ud800"])
@each_protected
def test_what_is_no_text_is_refused(world: World, kind: Cookie, value: Any) -> None:
    jar = world.jar()
    with pytest.raises(InvalidValue):
        jar.set(kind, value)
    assert not jar


@each_kind
def test_c3_the_largest_that_browsers_keep_is_sent_and_no_octet_more(world: World, kind: Cookie) -> None:
    """The limit is of what is sent, name included: never silently cut, never silently dropped."""

    def fits(length: int) -> bool:
        jar = world.jar()
        try:
            jar.set(kind, "x" * length)
        except InvalidValue:
            assert not jar and not jar.confidential
            return False
        [line] = world.sent(jar)
        assert len(line.partition(b";")[0]) - 1 <= 4096
        return world.jar(line.partition(b";")[0]).get(kind) == "x" * length

    most = max(length for length in range(2900, 4100) if fits(length))
    assert not fits(most + 1) and not fits(most + 2000)
    size = len(world.pair(kind, "x" * most)) - 1
    assert size > 4096 - 4


@each_kind
def test_c13_what_is_not_taken_is_told_without_its_value(
    world: World, kind: Cookie, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coatcheck")
    name = kind.name.encode()
    assert world.jar(name + b'="forged"; ' + name + b"=planted").get(kind) is None
    assert world.jar(name + b'="forged"').get(kind) is None
    assert len(caplog.records) == 2
    assert kind.name in caplog.text
    assert "forged" not in caplog.text and "planted" not in caplog.text


@unhurried
@given(
    cookies=st.lists(
        st.one_of(
            st.binary(max_size=120),
            st.builds(
                b"; ".join,
                st.lists(
                    st.sampled_from(KINDS).flatmap(
                        lambda kind: st.binary(max_size=80).map(lambda value: kind.name.encode() + b"=" + value)
                    )
                ),
            ),
        ),
        max_size=4,
    )
)
def test_a_hostile_cookie_header_is_a_value_or_none(cookies: list[bytes]) -> None:
    """Never an exception; and of the protected kinds, never a value."""
    jar = World().jar(*cookies)
    assert jar.get(SIGNED) is None and jar.get(SEALED) is None
    found = jar.get(PLAIN)
    assert found is None or PLAIN.header(found, now=0)


def test_an_overlong_cookie_header_is_none(world: World) -> None:
    assert world.jar(world.pair(SIGNED, "dark"), b"x" * 70_000).get(SIGNED) is None


OURS = [
    "__Host-session",
    "__Host-session-2",
    "__Host-seen",
    "__Host-access",
    "__Host-refresh",
    "__Host-csrf",
    "__Host-flash-AAAAAAAAAAA",
]


@pytest.mark.parametrize("name", OURS)
def test_no_kind_of_the_application_has_the_name_of_a_cookie_of_ours(world: World, name: str) -> None:
    """A handler can neither hand out the session's secret, nor put something in its place, nor take it away."""
    jar = world.jar(name.encode() + b"=secret")
    for kind in (Cookie(name), SignedCookie(name, max_age=timedelta(days=1))):
        with pytest.raises(ConfigurationError, match="coatcheck's own") as raised:
            jar.get(kind)
        assert "secret" not in str(raised.value)
        with pytest.raises(ConfigurationError):
            jar.set(kind, "value")
        with pytest.raises(ConfigurationError):
            jar.delete(kind)
    assert not jar


def test_our_names_follow_the_policy(world: World) -> None:
    world.policy = Policy(cookie=Cookie("__Host-sid"))
    jar = world.jar()
    jar.set(Cookie("__Host-session"), "mine")
    for name in ("__Host-sid", "__Host-sid-access", "__Host-sid-refresh", "__Host-sid-csrf", "__Host-sid-flash-1"):
        with pytest.raises(ConfigurationError):
            jar.set(Cookie(name), "value")


def test_a_ring_without_a_secret_says_so(world: World) -> None:
    world.ring = Keyring.from_jwks(Keyring.generate().jwks())
    with pytest.raises(ConfigurationError, match="secret"):
        world.jar().set(SEALED, "dark")


def test_a_session_cookie_is_no_protected_kind() -> None:
    """What is in it needs no protection, and it would be sent as it is."""
    with pytest.raises(ConfigurationError, match="plain Cookie"):
        Policy(cookie=SealedCookie("__Host-session", max_age=timedelta(days=1)))


def test_c9_only_what_the_browser_has_is_taken_back(world: World) -> None:
    """A cookie whose name or value has the other's name in it is another one."""
    jar = world.jar(b"theme2=x; my-theme=theme; a=theme=dark", b"cart=1")
    jar.take_back(PLAIN, SIGNED, SEALED)
    assert [line.partition(b"=")[0] for line in world.sent(jar)] == [b"cart"]


def test_c18_looking_is_noticed_and_so_is_a_value_for_one_visitor(world: World) -> None:
    jar = world.jar()
    assert (jar.accessed, jar.confidential) == (False, False)
    jar.set(PLAIN, "dark")
    assert (jar.accessed, jar.confidential) == (False, False)
    jar.set(SIGNED, "dark")
    assert jar.confidential
    jar.get(PLAIN)
    assert jar.accessed


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    return lambda: sum("8192" in record.getMessage() for record in caplog.records)


def test_c15_more_cookies_than_servers_take_are_a_warning(world: World, warnings: Callable[[], int]) -> None:
    """Three cookies of 4 KB: the browser's next request would be refused before anybody could help."""
    jar = world.jar()
    for number in range(3):
        jar.set(Cookie(f"big{number}"), "x" * 4000)
        world.sent(jar)
        assert warnings() == (number == 2)


def test_c15_what_the_browser_has_already_counts_and_what_is_replaced_does_not(
    world: World, warnings: Callable[[], int]
) -> None:
    carried = b"; ".join(b"big%d=" % number + b"x" * 4000 for number in range(2))
    for work, told in (("replace", 0), ("delete", 0), ("add", 1)):
        jar = world.jar(carried)
        if work == "delete":
            jar.delete(Cookie("big0"))
        jar.set(Cookie("big1" if work == "replace" else "more"), "y" * (4000 if work == "replace" else 200))
        world.sent(jar)
        assert warnings() == told
