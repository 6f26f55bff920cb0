"""`coatcheck inspect`: one text from standard input is explained, nothing is sent anywhere, the exit code is for CI."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Key
from coatcheck.cli.main import main
from coatcheck.core.jws import sign

KEY = Key.generate("ES256")
TOKEN = sign(b'{"iss":"https://auth.example","exp":1}', KEY, typ="at+jwt")
BAD_COOKIE = "Set-Cookie: sid=x7Gk2p; Path=/"
GOOD_COOKIE = "Set-Cookie: theme=dark; Path=/; Secure; HttpOnly; SameSite=Lax"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is sent anywhere")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def run(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main(["inspect", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        printed, err = capsys.readouterr()
        return code, printed, err

    return run


def test_what_is_wrong_is_said_with_row_asvs_id_reason_and_fix(run: Run) -> None:
    code, printed, err = run(stdin=BAD_COOKIE.encode() + b"\n")
    assert (code, err) == (1, "")
    assert printed.startswith("Set-Cookie\n")
    assert "HIGH    no-secure  (C7, ASVS 3.3.1)" in printed
    for words in ("seen: Secure is missing", "why:  it is sent over plain http", "do:   add Secure", "id-short"):
        assert words in printed
    assert "x7Gk2p" not in printed


@pytest.mark.parametrize(
    ("text", "severity", "code"),
    [
        (GOOD_COOKIE, None, 0),  # a note only: it has no prefix
        (GOOD_COOKIE, "note", 1),
        (BAD_COOKIE, "high", 1),
        ("a=b; Path=/; Secure; HttpOnly", "high", 0),
        ("a=b; Path=/; Secure; HttpOnly", "low", 1),
        ("f47ac10b-58cc-4372-a567-0e02b2c3d479", None, 0),
        ("dear diary", "note", 0),
    ],
)
def test_the_exit_code_says_whether_something_as_bad_was_found(
    run: Run, text: str, severity: str | None, code: int
) -> None:
    assert run(*(["--fail-on", severity] if severity else []), stdin=text.encode())[0] == code


def test_machines_get_json(run: Run) -> None:
    code, printed, _ = run("--json", stdin=b"Cookie: " + f"sid=1; a={TOKEN}".encode())
    report = json.loads(printed)
    assert (code, report["kind"], report["worst"]) == (1, "Cookie header", "high")
    assert [(part["name"], part["report"]["kind"]) for part in report["parts"]] == [
        ("sid", "number"),
        ("a", "access token"),
    ]
    [found] = report["parts"][0]["report"]["findings"]
    assert set(found) == {"id", "severity", "seen", "why", "fix", "row", "asvs"}
    assert TOKEN.rpartition(".")[2] not in printed


def test_a_signature_is_checked_with_a_jwks_and_the_key_is_named(run: Run, tmp_path: Path) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [KEY.jwk(), Key.generate("RS256").jwk()]}))
    _, printed, _ = run("--jwks", str(keys), stdin=TOKEN.encode())
    assert f"checked: made with the key {KEY.kid} (ES256)" in printed
    code, printed, _ = run("--jwks", str(keys), stdin=(TOKEN[:-4] + "AAAA").encode())
    assert (code, "bad-signature" in printed) == (1, True)


def test_it_is_read_from_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cookie"
    file.write_bytes(GOOD_COOKIE.encode())
    assert run("--file", str(file))[1].startswith("Set-Cookie\n")


def test_what_is_on_the_command_line_is_taken_with_a_warning(run: Run) -> None:
    code, printed, err = run("--text", GOOD_COOKIE)
    assert (code, printed.startswith("Set-Cookie\n")) == (0, True)
    assert "other users of this machine can see" in err


def test_s17_what_is_on_the_command_line_by_mistake_is_refused_and_not_repeated(run: Run) -> None:
    code, printed, err = run(TOKEN)
    assert (code, printed, "standard input" in err) == (2, "", True)
    assert TOKEN not in err


@pytest.mark.parametrize(
    ("words", "stdin", "code", "said"),
    [
        ((), b"", 3, "nothing to look at"),
        ((), b" \n", 3, "nothing to look at"),
        ((), bytes(3_000_000), 3, "too large"),
        (("--file", "/no/such/file"), b"", 3, "/no/such/file: No such file"),
        (("--jwks", "/no/such/file"), TOKEN.encode(), 3, "/no/such/file: No such file"),
        (("--jwks", "\0"), TOKEN.encode(), 3, "no path"),
        (("--jwks", "/dev/null"), TOKEN.encode(), 2, "this is no JWKS"),
        (("--file", "a", "--text", "b"), b"", 2, "--file or --text"),
        (("--fail-on", "worst"), b"", 2, "invalid choice"),
    ],
)
def test_what_cannot_be_looked_at_is_said_by_the_exit_code(
    run: Run, words: tuple[str, ...], stdin: bytes, code: int, said: str
) -> None:
    found, printed, err = run(*words, stdin=stdin)
    assert (found, printed) == (code, "")
    assert said in err


def test_octets_of_any_kind_are_looked_at(run: Run) -> None:
    for octets in (bytes(range(256)), b"\xff" * 1000, b"\x00", b"a=\x1b[2J; Path=/"):
        code, printed, err = run("--fail-on", "high", stdin=octets)
        assert (code in (0, 1), err) == (True, "")
        assert all(letter.isprintable() or letter == "\n" for letter in printed)


CORE_ONLY = """
import sys
FOREIGN = {"starlette", "uvicorn", "jinja2", "redis", "psycopg", "argon2", "httpx2", "ua_parser", "httptools", "uvloop",
           "jwt", "joserfc", "itsdangerous"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FOREIGN:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
from coatcheck.cli.main import main
sys.exit(main(["inspect"]))
"""


def test_it_works_on_the_dependencies_of_the_core_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CORE_ONLY], input=f"Bearer {TOKEN}", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "access token" in done.stdout
