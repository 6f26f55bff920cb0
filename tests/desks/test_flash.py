"""Flash messages: each is shown once, nothing is lost, and nobody sees what was meant for somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import Coatcheck, Cookie, Exchange, Flash, InvalidValue, Keyring, MemoryStore, Policy, Sealed
from coatcheck.core.cookies import parse_cookies
from coatcheck.flash import MAX_MESSAGE, MAX_WAITING
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.testing import SettableClock


class Phone:
    """A browser: it keeps and forgets what it is told to."""

    def __init__(self, coat: Coatcheck) -> None:
        self.coat = coat
        self.jar: dict[str, str] = {}

    def begin(self) -> Exchange:
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items()).encode("latin-1")
        head = RequestHead("POST", "https", [(b"cookie", cookie)] if cookie else [])
        return run(Exchange.begin(head, self.coat.sessions, self.coat.verifier))

    def end(self, exchange: Exchange) -> dict[str, str]:
        """Take a response in, and return its headers."""
        run(exchange.finish())
        headers = [(name.decode(), value.decode()) for name, value in exchange.dress([])]
        for line in (value for name, value in headers if name == "set-cookie"):
            name, _, rest = line.partition("=")
            if "Max-Age=0" in rest:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(";")[0]
        return dict(headers)

    def flash(self, *messages: str) -> None:
        exchange = self.begin()
        for message in messages:
            exchange.flash(message)
        self.end(exchange)

    def page(self) -> list[str]:
        """Show a page, and return the messages on it."""
        exchange = self.begin()
        shown = [flash.message for flash in exchange.take_flashes()]
        self.end(exchange)
        return shown

    def sign_in(self, subject: str) -> None:
        exchange = self.begin()
        run(exchange.sign_in(subject))
        self.end(exchange)

    def sign_out(self, message: str = "") -> None:
        exchange = self.begin()
        if message:
            exchange.flash(message)
        run(exchange.sign_out())
        self.end(exchange)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def coat(clock: SettableClock) -> Iterator[Coatcheck]:
    made = Coatcheck(clock=clock)
    yield made
    run(made.close())


@pytest.fixture
def phone(coat: Coatcheck) -> Phone:
    return Phone(coat)


def test_a_message_is_shown_once(phone: Phone) -> None:
    phone.flash("saved")
    assert phone.page() == ["saved"]
    assert phone.page() == []
    assert phone.jar == {}


def test_a_message_has_a_category_and_any_text(phone: Phone) -> None:
    text = 'Größe <b>"0"</b>\r\nSet-Cookie: a=b; 🧥'
    exchange = phone.begin()
    exchange.flash(text, "error")
    phone.end(exchange)
    assert phone.begin().take_flashes() == [Flash(text, "error")]
    assert all(value.isascii() and "Cookie" not in value for value in phone.jar.values())


def test_messages_come_in_the_order_in_which_they_were_left(phone: Phone, clock: SettableClock) -> None:
    phone.flash("one", "two", "three")
    clock.advance(timedelta(milliseconds=1))
    phone.flash("four")
    phone.jar = dict(sorted(phone.jar.items(), key=lambda each: each[1]))
    assert phone.page() == ["one", "two", "three", "four"]


def test_what_the_same_request_leaves_can_be_shown_by_it(phone: Phone) -> None:
    """And is then not sent."""
    phone.flash("one")
    exchange = phone.begin()
    exchange.flash("two")
    assert [flash.message for flash in exchange.take_flashes()] == ["one", "two"]
    phone.end(exchange)
    assert phone.jar == {}


def test_s21_no_session_is_made_for_a_message(phone: Phone, coat: Coatcheck) -> None:
    """A visitor who is told something stays one."""
    phone.flash("sign in first")
    assert isinstance(coat.store, MemoryStore)
    assert all(name.startswith("__Host-flash-") for name in phone.jar)
    assert phone.page() == ["sign in first"]
    assert run(coat.store.sweep(2**62)) == 0


def test_a_message_outlives_signing_in_and_signing_out(phone: Phone) -> None:
    phone.flash("welcome")
    phone.sign_in("ann")
    assert phone.page() == ["welcome"]
    phone.sign_out("goodbye")
    assert phone.page() == ["goodbye"]


def test_p4_nobody_sees_what_was_meant_for_somebody_else(phone: Phone) -> None:
    """On a browser that two people use, one after the other."""
    phone.sign_in("ann")
    phone.flash("ann's card was charged")
    phone.sign_out()
    assert phone.page() == []
    phone.sign_in("bob")
    assert phone.page() == []
    phone.sign_in("ann")
    assert phone.page() == ["ann's card was charged"]


def test_p3_two_requests_at_once_lose_nothing(phone: Phone) -> None:
    """Each leaves one, and a third shows a page meanwhile: what it has not shown stays."""
    phone.flash("before")
    one, other, page = phone.begin(), phone.begin(), phone.begin()
    one.flash("one")
    other.flash("other")
    assert [flash.message for flash in page.take_flashes()] == ["before"]
    for exchange in (one, other, page):
        phone.end(exchange)
    assert sorted(phone.page()) == ["one", "other"]
    assert phone.page() == []


def test_two_pages_at_the_same_moment_may_both_show_a_message(phone: Phone) -> None:
    """That is the price of not losing one whose page does not arrive."""
    phone.flash("saved")
    one, other = phone.begin(), phone.begin()
    assert [flash.message for flash in one.take_flashes()] == ["saved"]
    assert [flash.message for flash in other.take_flashes()] == ["saved"]
    phone.end(one)
    phone.end(other)
    assert phone.page() == []


def test_a_page_that_does_not_arrive_loses_nothing(phone: Phone) -> None:
    phone.flash("saved")
    assert len(phone.begin().take_flashes()) == 1  # and the connection breaks
    assert phone.page() == ["saved"]


def test_a_message_is_stale_after_an_hour(phone: Phone, clock: SettableClock) -> None:
    """Also in a browser that keeps it for longer."""
    phone.flash("saved")
    clock.advance(timedelta(hours=1))
    assert phone.page() == []


def test_c17_a_message_cannot_be_made_up_moved_or_read(phone: Phone) -> None:
    phone.flash("saved")
    [(name, value)] = phone.jar.items()
    for jar in (
        {"__Host-flash-AAAAAAAAAAA": value},
        {name: value[:-2] + "AA"},
        {name: '[1,0,null,{"message":"pay"}]'},
        {"__Host-flash-": value, "__Host-flash": value, "__Host-flash-\xe9AAAAAAAAAA": value, "__host-flash": value},
    ):
        phone.jar = jar
        assert phone.page() == []
    assert "saved" not in value


def test_c13_a_message_that_comes_twice_is_not_shown(phone: Phone, coat: Coatcheck) -> None:
    phone.flash("saved")
    [(name, value)] = phone.jar.items()
    head = RequestHead("GET", "https", [(b"cookie", f"{name}={value}; {name}={value}".encode())])
    assert run(Exchange.begin(head, coat.sessions, coat.verifier)).take_flashes() == []


def test_p9_what_waits_is_bounded_and_the_oldest_makes_room(phone: Phone, clock: SettableClock) -> None:
    """A client that never shows a page gets no header that servers refuse."""
    for number in range(60):
        phone.flash(f"message {number}")
        clock.advance(timedelta(milliseconds=1))
        assert sum(len(name) + len(value) for name, value in phone.jar.items()) <= MAX_WAITING
    shown = phone.page()
    assert len(shown) > 15
    assert shown == [f"message {number}" for number in range(60 - len(shown), 60)]


def test_p9_age_decides_what_makes_room_and_not_the_browsers_order(phone: Phone, clock: SettableClock) -> None:
    for number in range(5):
        phone.flash(f"{number} " + "x" * 600)
        phone.jar = dict(reversed(phone.jar.items()))
        clock.advance(timedelta(milliseconds=1))
    assert [message[0] for message in phone.page()] == ["1", "2", "3", "4"]


def test_p9_many_at_once_are_bounded_too(phone: Phone) -> None:
    phone.flash(*(f"message {number}" for number in range(200)))
    assert sum(len(name) + len(value) for name, value in phone.jar.items()) <= MAX_WAITING
    assert phone.page()[-1] == "message 199"


def test_what_cannot_be_read_any_more_makes_room_first(phone: Phone, coat: Coatcheck) -> None:
    """After the keys were lost, for example."""
    phone.flash(*("x" * 500 for _ in range(4)))
    coat.keyring.adopt(Keyring.generate("HS256"))
    phone.flash(*("y" * 500 for _ in range(4)))
    assert phone.page() == ["y" * 500] * 4


def test_p9_thousands_of_names_cost_little(phone: Phone) -> None:
    phone.flash("saved")
    [mine] = phone.jar.items()
    phone.jar = {f"__Host-flash-{number:011}": "x" for number in range(2000)} | dict([mine])
    assert phone.page() == ["saved"]


def test_the_longest_message_fits_whoever_it_is_for(phone: Phone) -> None:
    phone.sign_in("\U0001f9e5" * 255)
    phone.flash("x" * (MAX_MESSAGE - len('{"message":"","category":""}')))
    assert len(phone.page()) == 1


@pytest.mark.parametrize("message", ["x" * MAX_MESSAGE, "\x00" * 200, "\ud800"])
def test_a_message_that_does_not_fit_is_refused_at_once(phone: Phone, message: str) -> None:
    """And not when the response leaves, where nobody could do anything about it."""
    exchange = phone.begin()
    with pytest.raises(InvalidValue):
        exchange.flash(message)
    phone.end(exchange)
    assert phone.jar == {}


def test_a_lazy_text_is_what_it_says_now(phone: Phone) -> None:
    class Lazy:
        def __str__(self) -> str:
            return "gespeichert"

    lazy: Any = Lazy()
    phone.flash(lazy)
    assert phone.page() == ["gespeichert"]


def test_c18_pages_that_show_or_leave_a_message_are_kept_by_nobody(phone: Phone) -> None:
    exchange = phone.begin()
    exchange.flash("saved")
    assert phone.end(exchange)["cache-control"] == "no-store"
    exchange = phone.begin()
    exchange.take_flashes()
    assert phone.end(exchange)["cache-control"] == "no-store"
    exchange = phone.begin()
    exchange.take_flashes()
    headers = phone.end(exchange)
    assert "cache-control" not in headers
    assert headers["vary"] == "Cookie, Authorization"


def test_messages_follow_the_session_cookie_of_the_policy(clock: SettableClock) -> None:
    cookie = Cookie("sid", secure=False, same_site="Strict", path="/app")
    phone = Phone(Coatcheck(clock=clock, policy=Policy(cookie=cookie)))
    exchange = phone.begin()
    exchange.flash("saved")
    line = phone.end(exchange)["set-cookie"]
    assert line.startswith("sid-flash-")
    assert "; Path=/app; HttpOnly; SameSite=Strict" in line
    assert "; Max-Age=3600; " in line and "Secure" not in line
    assert phone.page() == ["saved"]


def test_c15_messages_leave_room_for_a_sealed_session(clock: SettableClock) -> None:
    """P9: with more than 8 KiB many servers refuse every request of this browser, for as long as a message waits."""
    phone = Phone(Coatcheck(Sealed(), clock=clock))
    phone.sign_in("ann")
    phone.flash(*(f"{number} " + "x" * 200 for number in range(8)))

    def written(octets: int) -> int:
        exchange = phone.begin()
        exchange.session["x"] = "." * octets
        phone.end(exchange)
        return len("; ".join(f"{name}={value}" for name, value in phone.jar.items()))

    assert written(4900) <= 8192
    clock.advance(timedelta(milliseconds=1))
    phone.flash("the last one " + "x" * 500)
    assert written(4901) <= 8192
    assert phone.page()[-1].startswith("the last one")


def test_c15_where_others_take_all_the_room_messages_are_kept(phone: Phone) -> None:
    phone.jar["other"] = "x" * 9000
    phone.flash("saved")
    assert phone.page() == ["saved"]


def test_p9_the_cookie_header_is_read_once_however_many_names_it_has(phone: Phone, monkeypatch: Any) -> None:
    """64 KiB of pairs, read for each of 80 names, took a third of a second."""
    reads: list[int] = []

    def counting(headers: Any) -> Any:
        reads.append(1)
        return parse_cookies(headers)

    monkeypatch.setattr("coatcheck.cookie_jar.parse_cookies", counting)
    names = [f"__Host-flash-{number:011}" for number in range(80)]
    cookie = "; ".join(f"{name}=x" for name in names * 2).encode()
    exchange = Exchange(RequestHead("POST", "https", [(b"cookie", cookie)]), phone.coat.sessions, phone.coat.verifier)
    monkeypatch.setattr("coatcheck.cookie_jar.find_cookie", lambda *_: pytest.fail("read once more"))
    assert exchange.take_flashes() == []
    exchange.flash("saved")
    exchange.dress([])
    assert len(reads) == 1
