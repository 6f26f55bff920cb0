"""What an audit does to the application that it looks at, and what it tells the one who has asked for it."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from bad_app import NAME, PASSWORD, BadApp, Request
from stage import Stage, stage

from coatcheck.audit import NotLooked, SignIn, Target, audit, fetch
from coatcheck.audit.browser import hidden_fields
from coatcheck.audit.cookie_looks import bits, is_data, readings
from coatcheck.audit.fetch import Answer, Client
from coatcheck.audit.target import Origin
from coatcheck.audit.visit import destination
from coatcheck.cli.main import main
from coatcheck.errors import ConfigurationError

__all__ = ["stage"]  # a fixture: pytest finds it by this name


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`coatcheck audit`, in this process."""

    def run(*words: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = main(["audit", *words])
        except SystemExit as end:  # argparse's
            code = int(str(end.code))
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


ALL = ("--sign-in-path", "/sign-in", "--protected-path", "/me", "--sign-out-path", "/sign-out", "--name", NAME)
SIGN_IN = SignIn("/sign-in", name=NAME, password=PASSWORD)


def target(stage: Stage, **more: str) -> Target:
    return Target(stage.url, sign_in=SIGN_IN, protected_path="/me", sign_out_path="/sign-out", **more)


# -- what it does


@pytest.mark.parametrize("faults", [(), ("no defence against other sites", "sign-out by GET", "short ids")])
def test_it_signs_out_whom_it_signed_in_and_touches_nothing_else(stage: Stage, faults: tuple[str, ...]) -> None:
    stage.app = app = BadApp(*faults)
    report = audit(target(stage))
    assert [name for name in app.sessions.values() if name] == []
    assert report.sign_ins == app.signed_in > 0
    posted = {path for method, path in app.requests if method not in {"GET", "HEAD"}}
    assert posted == {"/sign-in", "/sign-out"}
    assert report.requests == len(app.requests) < fetch.MAX_REQUESTS / 1.5


def test_without_a_sign_in_it_only_looks(stage: Stage) -> None:
    stage.app = app = BadApp()
    report = audit(Target(stage.url))
    assert {method for method, _ in app.requests} == {"GET"}
    assert len(app.requests) < 8
    assert report.findings == ()
    assert {each.needs for each in report.unseen} >= {"--sign-in-path, an account", "--protected-path"}


def test_sessions_that_nobody_can_sign_out_are_told_of(stage: Stage) -> None:
    stage.app = BadApp()
    report = audit(Target(stage.url, sign_in=SIGN_IN, protected_path="/me"))
    assert report.remarks == ("2 sessions were left behind, until the lifetime ends",)


@pytest.mark.parametrize("faults", [(), ("repeats the address",), ("session for visitors",)])
def test_s17_no_password_is_put_into_an_address_of_an_application_that_does_not_look_there(
    stage: Stage, faults: tuple[str, ...]
) -> None:
    """It would be in its access log."""
    asked: list[str] = []

    class Logged(BadApp):
        def form(self, request: Request) -> tuple[int, list[tuple[str, str]], str]:
            asked.extend(request.query.values())
            return super().form(request)

    stage.app = Logged(*faults)
    audit(target(stage))
    assert NAME in asked
    assert PASSWORD not in asked


def test_without_a_protected_path_what_a_visitor_gets_as_well_is_no_sign_in(stage: Stage) -> None:
    """Here the sign-in page is another one each time, and sets a cookie."""

    class Restless(BadApp):
        def form(self, request: Request) -> tuple[int, list[tuple[str, str]], str]:
            status, headers, text = super().form(request)
            return status, [*headers, *self.give(self.new_id(""))], f"{text} {len(self.sessions)}"

    stage.app = Restless()
    report = audit(Target(stage.url, sign_in=SIGN_IN, sign_out_path="/sign-out"))
    assert "nobody is signed in by an address with a password in it" in report.good
    assert report.findings == ()


def test_only_the_host_that_was_named_is_spoken_to(stage: Stage) -> None:
    with silent() as elsewhere:

        async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
            location = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/".encode()
            await send({"type": "http.response.start", "status": 302, "headers": [(b"location", location)]})  # type: ignore[misc]
            await send({"type": "http.response.body"})  # type: ignore[misc]

        stage.app = app
        report = audit(Target(stage.url))
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert report.remarks[0].startswith("GET / leads to http://127.0.0.1:")


def test_there_are_only_so_many_requests(stage: Stage) -> None:
    stage.app = app = BadApp()
    client = Client(Target(stage.url).origin, most=3)
    for _ in range(3):
        client.ask("GET", "/", {})
    with pytest.raises(NotLooked, match="the audit ends after 3 requests"):
        client.ask("GET", "/", {})
    assert len(app.requests) == 3


def test_there_is_only_so_much_time() -> None:
    client = Client(Origin("http", "localhost", 1), seconds=0)
    with pytest.raises(NotLooked, match="the limit of requests or time"):
        client.ask("GET", "/", {})


@pytest.mark.parametrize(
    "speaks",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000,
    ],
    ids=["nothing", "half a head", "half a body", "too much"],
)
def test_an_answer_that_does_not_end_is_waited_for_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch, speaks: bytes
) -> None:
    monkeypatch.setattr(fetch, "REQUEST_SECONDS", 0.2)
    with silent(speaks) as listener, pytest.raises(NotLooked, match="did not answer GET /"):
        audit(Target(f"http://127.0.0.1:{listener.getsockname()[1]}"))


def test_an_answer_that_drips_in_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "REQUEST_SECONDS", 0.3)
    with silent(b"HTTP/1.1 200 OK\r\n", drip=b"X: y\r\n") as listener, pytest.raises(NotLooked):
        Client(Origin("http", "127.0.0.1", listener.getsockname()[1])).ask("GET", "/", {})


def test_a_large_body_is_not_read_to_its_end(stage: Stage) -> None:
    class Large(BadApp):
        def page(self, request: object) -> tuple[int, list[tuple[str, str]], str]:
            return 200, [], "x" * (4 * fetch.MAX_BODY)

    stage.app = Large()
    answer = Client(Target(stage.url).origin).ask("GET", "/", {})
    assert len(answer.body) == fetch.MAX_BODY


@contextmanager
def silent(speaks: bytes = b"", drip: bytes = b"") -> Iterator[socket.socket]:
    """A server that says what it is told to, and then keeps the connection open, dripping if it is told to."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(speaks)
                while not over.wait(0.02):
                    connection.sendall(drip)
        except OSError:
            pass  # it is over, or the audit has hung up

    thread = threading.Thread(target=serve, daemon=True)
    if speaks or drip:
        thread.start()
    try:
        yield listener
    finally:
        over.set()
        listener.close()


# -- what it refuses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example",
        "ftp://app.example",
        "http://",
        "http://ann:pw@app.example",
        "http://app.example:x",
        "http://a/ b",
        "http://a/é",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Target(url)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize("path", ["", "me", "//evil.example", "/a b", "/#x", "https://evil.example/"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError):
        SignIn(path)
    with pytest.raises(ConfigurationError):
        Target("http://localhost", protected_path=path)


def test_a_sign_out_without_a_sign_in_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="of no use without a sign-in path"):
        Target("http://localhost", sign_out_path="/sign-out")


def test_no_repr_shows_a_password_or_a_cookie(stage: Stage) -> None:
    stage.app = BadApp()
    assert PASSWORD not in repr(target(stage))
    answer = Answer(Origin("http", "a", 80), "POST", "/?q=secret", 200, (("set-cookie", "sid=secret"),), "secret")
    assert "sid" not in repr(answer)
    assert "secret" not in answer.to
    parameters = Answer(Origin("http", "a", 80), "GET", "/me;jsessionid=secret?q=1", 200, (), "")
    assert parameters.to == "GET /me"


def test_s17_an_error_shows_no_secret_of_an_address() -> None:
    client = Client(Origin("http", "localhost", 1))
    with pytest.raises(NotLooked, match=r"did not answer GET /me: "):
        client.ask("GET", "/me;jsessionid=secret?sid=secret", {})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("", "the sign-in did not work: POST /sign-in answered 403"),
        ("shows the form again", "the sign-in did not work: POST /sign-in answered 200"),
    ],
)
def test_a_sign_in_that_does_not_work_is_no_clean_bill(stage: Stage, fault: str, words: str) -> None:
    stage.app = BadApp(fault)
    wrong = SignIn("/sign-in", name=NAME, password="another one")
    for protected in ("/me", None):
        with pytest.raises(NotLooked, match=words):
            audit(Target(stage.url, sign_in=wrong, protected_path=protected))


def test_an_application_that_takes_no_more_sign_ins_is_no_clean_bill(stage: Stage) -> None:
    class Throttled(BadApp):
        def sign_in(self, request: object) -> tuple[int, list[tuple[str, str]], str]:
            return super().sign_in(request) if self.signed_in < 1 else (429, [], "")  # type: ignore[arg-type]

    stage.app = Throttled()
    with pytest.raises(NotLooked, match="takes no more sign-ins for now"):
        audit(target(stage))


# -- what it says


def test_the_report_is_for_people_and_has_every_finding_with_its_row_and_what_to_do(
    stage: Stage, command: Callable[..., Done]
) -> None:
    stage.app = BadApp("adopts any id", "no policy", "referrer", "versions", "no defence against other sites")
    done = command(stage.url, *ALL, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.code == 1, done.err
    text = done.out
    heads = [line for line in text.splitlines() if line in {"HIGH", "MEDIUM", "LOW", "NOTE"}]
    assert heads == ["HIGH", "MEDIUM", "LOW", "NOTE"]
    assert "  chosen-id  (S3, ASVS 7.2.4)" in text
    assert text.count("  forged-sign-in  (F6, ASVS 3.5.1)") == 1, "four sightings, one finding"
    assert text.count("signed in although it came with") == 4
    assert "changed nothing else" in text
    assert "Checked and found good: " in text
    assert "for want of an address with https:" in text
    assert PASSWORD not in text + done.err


def test_verbose_says_what_is_good(stage: Stage, command: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    stage.app = BadApp()
    monkeypatch.setenv("COATCHECK_AUDIT_PASSWORD", PASSWORD)
    done = command(stage.url, *ALL, "--verbose")
    assert done.code == 0, done.out + done.err
    assert "  a credential is dead after the sign-out\n" in done.out


@pytest.mark.parametrize(("fail_on", "code"), [("high", 0), ("medium", 0), ("low", 1), ("note", 1), (None, 0)])
def test_the_exit_code_is_for_ci(stage: Stage, fail_on: str | None, code: int, command: Callable[..., Done]) -> None:
    stage.app = BadApp("referrer")
    words = () if fail_on is None else ("--fail-on", fail_on)
    done = command(stage.url, "--json", *words)
    assert done.code == code
    for found in json.loads(done.out)["findings"]:
        assert (found["id"], found["severity"], found["row"], found["asvs"]) == ("referrer", "low", "F10", "3.4.5")
        assert all(found[part] for part in ("seen", "why", "fix"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("http://127.0.0.1:1",), 3, "did not answer GET /"),
        (("gopher://a",), 2, "begins with http"),
        (("http://a", "--name", "ann"), 2, "--name is of no use without --sign-in-path"),
        (("http://a", "--sign-out-path", "/x"), 2, "--sign-out-path is of no use without"),
        (("http://a", "--sign-in-path", "/x", "--password-stdin"), 2, "no password on standard input"),
        (("http://a", "--password", "x"), 2, "--password could match --password-stdin"),
    ],
)
def test_the_exit_code_says_why_there_is_no_report(
    words: tuple[str, ...], code: int, says: str, command: Callable[..., Done]
) -> None:
    done = command(*words)
    assert done.code == code, done.out + done.err
    assert says in done.err
    assert "Traceback" not in done.err


def test_what_an_application_says_can_do_nothing_to_a_terminal(stage: Stage) -> None:
    class Rude(BadApp):
        def guard(self, text: str) -> list[tuple[str, str]]:
            return [*super().guard(text), ("Server", "x/1.2\x9b31m")]

    stage.app = Rude()
    (found,) = audit(Target(stage.url)).findings
    assert found.id == "versions"
    assert found.seen.isprintable()


def test_it_runs_on_the_dependencies_of_the_core_alone() -> None:
    program = (
        "import coatcheck.audit, coatcheck.cli.audit, sys\n"
        "wanted = {'starlette', 'uvicorn', 'jinja2', 'httpx2', 'redis', 'psycopg', 'ua_parser'}\n"
        "print(*sorted(wanted & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


# -- what it reads


def page(text: str, path: str = "/sign-in") -> Answer:
    return Answer(Origin("http", "a", 80), "GET", path, 200, (("content-type", "text/html"),), text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('<form action="/sign-in"><input type=hidden name=t value="a&amp;b"></form>', {"t": "a&b"}),
        ('<form action="sign-in?x=1"><input type=HIDDEN name=t value=1></form>', {"t": "1"}),
        ("<form><input type=hidden name=t value=1></form>", {"t": "1"}),
        ('<form action="/search"><input type=hidden name=q value=1></form><form action="/sign-in"></form>', {}),
        ('<form action="/x"><input type=hidden name=t value=1><input type=password></form>', {"t": "1"}),
        ("<input type=hidden name=t value=1>", {}),
        ("no form <form", {}),
    ],
)
def test_the_hidden_fields_are_those_of_the_form_that_is_sent(text: str, fields: dict[str, str]) -> None:
    assert hidden_fields(page(text), "/sign-in") == fields


@pytest.mark.parametrize(
    "junk",
    ["<![x[", '<form action="http://[">', "<a/" * 100_000, "<a\n" * 100_000, '<input "' * 30_000, "<form '" * 30_000],
    ids=["declaration", "address", "slashes", "lines", "inputs", "forms"],
)
def test_p9_a_page_that_is_made_to_be_slow_or_wrong_is_read_all_the_same(junk: str) -> None:
    """Some of them took an hour, and some were an error that nobody caught."""
    form = '<form action="/sign-in"><input type=hidden name=csrf value="a > b"><input type=password>'
    assert hidden_fields(page(f"{form}{junk}"), "/sign-in") == {"csrf": "a > b"}


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("///stranger.example/x", "stranger.example"),
        ("/\\/stranger.example", "stranger.example"),
        ("https:////stranger.example", "stranger.example"),
        ("//stranger.example", "stranger.example"),
        ("/path//twice", None),
        ("path//twice", None),
    ],
)
def test_f12_slashes_lead_where_a_browser_goes(location: str, host: str | None) -> None:
    """The URL Standard: many of them at the beginning are as good as two."""
    answer = Answer(Origin("https", "app.example", 443), "GET", "/", 302, (("location", location),), "")
    found = destination(answer)
    assert found is not None
    assert (found.hostname, Origin("https", "app.example", 443).has(found)) == (host, host is None)


@pytest.mark.parametrize(
    ("one", "other", "least", "most"),
    [
        ("1000", "1001", 0, 14),
        ("0" * 40 + "17", "0" * 40 + "24", 0, 8),
        ("same" * 8, "same" * 8, 0, 0),
        ("d41d8cd98f00b204e9800998ecf8427e", "9e107d9d372bb6826bd81d3542a419d6", 128, 128),
        ("kZ8f-0aQ_xYw7LrT3mNv5bHc1dJp9sGuE2oI4tVz6K", "aB9c-1dEfGh2iJk3LmN4oPq5RsT6uVw7XyZ8aB0cD1e", 240, 260),
    ],
)
def test_s1_two_ids_tell_how_much_of_them_is_random(one: str, other: str, least: int, most: int) -> None:
    assert least <= bits(one, other) <= most


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("ann", "ann"),
        ("%7B%22who%22%3A%22ann%22%7D", '{"who":"ann"}'),
        ("eyJ3aG8iOiAiYW5uIn0.aXg.c2ln", '{"who": "ann"}'),
        ('"quoted"', "quoted"),
    ],
)
def test_c16_what_can_be_read_in_a_cookie_is_read(value: str, inside: str) -> None:
    assert inside in readings(value)


def test_c16_an_id_is_no_data() -> None:
    assert is_data("eyJ3aG8iOiAiYW5uIn0.aXg.c2ln")
    assert not is_data("1kZ8f0aQxYw7LrT3mNv5bH.kZ8f-0aQ_xYw7LrT3mNv5bHc1dJp9sGuE2oI4tVz6K")
