"""The command line: words for people, JSON for scripts, and an exit code for both."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Coatcheck
from coatcheck.cli.main import main
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.keyfile import PUBLISH_AHEAD, KeyFile
from coatcheck.server.accounts import Accounts
from coatcheck.server.passwords import Passwords
from coatcheck.stores import store_from_url
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite_documents import SQLiteDocuments

PASSWORD = "a lantern under the stairs"


class Shell:
    """Runs commands in this process, on one data directory."""

    def __init__(self, data: Path, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.data = data
        self._capture = capture
        self._patch = patch
        self.code = -1
        self.err = ""

    def __call__(self, *words: str, stdin: str = "") -> str:
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogateescape"))))
        try:
            self.code = main([*words, "--data-dir", str(self.data)])
        except SystemExit as end:
            self.code = end.code if isinstance(end.code, int) else 1
        printed, self.err = self._capture.readouterr()
        return printed

    def add(self, name: str, *words: str) -> str:
        return self("accounts", "add", name, "--password-stdin", *words, stdin=PASSWORD + "\n")


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(Passwords.__init__, "__kwdefaults__", {**_DEFAULTS, "memory": 8, "passes": 1})
    return Shell(tmp_path / "data", capsys, monkeypatch)


_DEFAULTS: dict[str, Any] = dict(Passwords.__init__.__kwdefaults__ or {})


def _sign_in(shell: Shell, name: str, store: str = "") -> str:
    """Make a session as a server would, and return its id."""

    async def work() -> str:
        documents = SQLiteDocuments(shell.data / "coatcheck.sqlite")
        await documents.open()
        account = await Accounts(documents).find(name)
        await documents.close()
        assert account is not None
        sqlite = shell.data / "coatcheck.sqlite"
        kept = store_from_url(store) if store else SQLiteStore(sqlite)
        async with Coatcheck(kept, feed=SQLiteFeed(sqlite)) as coat:
            return (await coat.sessions.create(account.id)).id or ""

    return asyncio.run(work())


# -- accounts --------------------------------------------------------------------------------------------------------


def test_an_account_is_added_listed_disabled_and_enabled(shell: Shell) -> None:
    assert shell.add("Ann", "--admin") == "Ann can sign in, as an administrator\n"
    assert shell.add("bob") == "bob can sign in\n"
    listed = shell("accounts", "list").splitlines()
    assert [line.split()[0] for line in listed] == ["NAME", "Ann", "bob"]
    assert "administrator" in listed[1]
    assert shell("accounts", "disable", "ANN") == "Ann is disabled; sessions ended: 0\n"
    assert "disabled" in shell("accounts", "list").splitlines()[1]
    assert shell("accounts", "enable", "ann") == "Ann can sign in again\n"
    assert (shell.code, shell.err) == (0, "")
    assert "disabled" not in shell("accounts", "list")


def test_scripts_get_json(shell: Shell) -> None:
    added = json.loads(shell.add("ann", "--json"))
    assert {name: added[name] for name in ("name", "admin", "disabled")} == {
        "name": "ann",
        "admin": False,
        "disabled": False,
    }
    assert json.loads(shell("accounts", "list", "--json")) == [added]
    _sign_in(shell, "ann")
    disabled = json.loads(shell("accounts", "disable", "ann", "--json"))
    assert disabled == {**added, "disabled": True, "ended": 1}


def test_no_output_shows_a_hash_or_a_password(shell: Shell) -> None:
    printed = shell.add("ann", "--json") + shell("accounts", "list", "--json") + shell("accounts", "list")
    assert "argon2" not in printed
    assert PASSWORD not in printed


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("ann", "", "at least 15"),
        ("ann", "short", "at least 15"),
        ("ann", "a" * 300, "at most 256"),
        ("ann", "passwordpassword", "easy to guess"),
        ("", PASSWORD, "1 to 64"),
        (" ann", PASSWORD, "no space"),
    ],
)
def test_what_will_not_do_is_not_done_and_said_in_words(shell: Shell, name: str, password: str, said: str) -> None:
    assert shell("accounts", "add", name, "--password-stdin", stdin=password + "\n") == ""
    assert shell.code == 1
    assert said in shell.err
    assert not shell.data.exists()


def test_a_name_is_taken_once(shell: Shell) -> None:
    shell.add("ann")
    assert shell.add("ANN") == ""
    assert (shell.code, shell.err) == (1, "coatcheck: this name is taken\n")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\nsecond line\n"])
def test_the_password_is_the_first_line_without_its_ending(shell: Shell, ending: str) -> None:
    shell("accounts", "add", "ann", "--password-stdin", stdin=" " + PASSWORD + ending)

    async def work() -> bool:
        documents, passwords = SQLiteDocuments(shell.data / "coatcheck.sqlite"), Passwords()
        await documents.open()
        account = await Accounts(documents).find("ann")
        await documents.close()
        assert account is not None
        right = await passwords.verify(" " + PASSWORD, account.password_hash)
        passwords.close()
        return right

    assert asyncio.run(work())


def test_a_password_that_no_browser_could_send_is_refused(shell: Shell) -> None:
    """The octets of another encoding would be stored, and could never be typed at the sign-in."""
    shell("accounts", "add", "ann", "--password-stdin", stdin="a l\udcffntern under the stairs\n")
    assert (shell.code, shell.err) == (1, "coatcheck: the password is not UTF-8\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_who_ends_the_input_at_the_prompt_reads_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", ended)
    monkeypatch.setattr(sys, "stdin", _Terminal())
    assert main(["accounts", "add", "ann", "--data-dir", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err == "coatcheck: no password was given\n"


@pytest.mark.parametrize("words", [("accounts", "disable"), ("accounts", "enable"), ("sessions", "list")])
def test_a_name_that_is_no_text_is_nobody_s(shell: Shell, words: tuple[str, ...]) -> None:
    shell.add("ann")
    shell(*words, "bad\udcff")
    assert shell.code == 1
    assert shell.err.startswith("coatcheck: a name has printable characters only")


def test_a_directory_that_cannot_be_looked_into_is_exit_code_2(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    for words in (("accounts", "list"), ("keys", "list")):
        shell(*words)
        assert (shell.code, shell.err.endswith("Permission denied\n")) == (2, True)


def test_without_a_terminal_the_password_is_asked_on_standard_input_only_when_told_so(shell: Shell) -> None:
    assert shell("accounts", "add", "ann", stdin=PASSWORD) == ""
    assert shell.code == 2
    assert "--password-stdin" in shell.err


@pytest.mark.parametrize("verb", ["disable", "enable"])
def test_an_account_that_is_not_there_is_not_done(shell: Shell, verb: str) -> None:
    shell.add("ann")
    shell("accounts", verb, "bob")
    assert (shell.code, shell.err) == (1, "coatcheck: there is no account 'bob'\n")


@pytest.mark.parametrize(
    "words",
    [("accounts", "list"), ("accounts", "disable", "x"), ("sessions", "list"), ("keys", "list"), ("keys", "rotate")],
)
def test_without_data_nothing_is_made(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell(*words) == ""
    assert shell.code == 1
    assert "--data-dir" in shell.err
    assert not shell.data.exists()


def test_a_damaged_database_is_exit_code_3_and_words(shell: Shell) -> None:
    shell.add("ann")
    (shell.data / "coatcheck.sqlite").write_bytes(b"this is no database" * 1000)
    shell("accounts", "list")
    assert shell.code == 3
    assert "Traceback" not in shell.err


# -- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_sessions_are_listed_and_ended_one_by_one_or_all_of_an_account(shell: Shell, tmp_path: Path, kind: str) -> None:
    store = f"file:{tmp_path / 'sessions'}" if kind == "file" else ""
    more = ("--store", store) if store else ()
    shell.add("ann")
    shell.add("bob")
    first, second, theirs = (_sign_in(shell, name, store) for name in ("ann", "ann", "bob"))
    listed = json.loads(shell("sessions", "list", "--json", *more))
    assert {(each["id"], each["account"]) for each in listed} == {(first, "ann"), (second, "ann"), (theirs, "bob")}
    assert {each["id"] for each in json.loads(shell("sessions", "list", "ANN", "--json", *more))} == {first, second}
    assert first in shell("sessions", "list", *more)
    assert shell("sessions", "revoke", first, *more) == "sessions ended: 1\n"
    shell("sessions", "revoke", first, *more)
    assert (shell.code, shell.err) == (1, "coatcheck: no live session has this id\n")
    _sign_in(shell, "ann", store)
    assert json.loads(shell("sessions", "revoke", "--account", "ann", "--json", *more)) == {"ended": 2}
    assert [each["id"] for each in json.loads(shell("sessions", "list", "--json", *more))] == [theirs]


def test_s13_everyone_s_sessions_are_ended_at_once(shell: Shell) -> None:
    for name in ("ann", "bob"):
        shell.add(name)
        _sign_in(shell, name)
    assert shell("sessions", "revoke", "--everyone") == "sessions ended: 2\n"
    assert json.loads(shell("sessions", "list", "--json")) == []
    assert json.loads(shell("sessions", "revoke", "--everyone", "--json")) == {"ended": 0}


def test_s13_what_is_ended_here_reaches_a_running_server(shell: Shell) -> None:
    """Through the feed: the other process's set of revocations has it."""
    shell.add("ann")
    id = _sign_in(shell, "ann")
    shell("sessions", "revoke", id)

    async def heard() -> bool:
        async with Coatcheck(feed=SQLiteFeed(shell.data / "coatcheck.sqlite")) as coat:
            return coat.revocations.covers(id, None, 0)

    assert asyncio.run(heard())


@pytest.mark.parametrize("words", [("list",), ("revoke", "A" * 22), ("revoke", "--account", "ann")])
def test_sessions_in_a_server_s_memory_are_out_of_reach_and_it_is_said(shell: Shell, words: tuple[str, ...]) -> None:
    shell.add("ann")
    shell("sessions", *words, "--store", "memory:")
    assert shell.code == 1
    assert "in the memory of the server" in shell.err


@pytest.mark.parametrize("words", [(), ("A" * 22, "--account", "ann")])
def test_revoke_wants_an_id_or_an_account(shell: Shell, words: tuple[str, ...]) -> None:
    shell.add("ann")
    shell("sessions", "revoke", *words)
    assert shell.code == 2


@pytest.mark.parametrize("id", ["-" * 21 + "A", "-data-dir-json-account"[:21] + "A", "-" + "a" * 20 + "Q"])
def test_an_id_that_begins_with_a_hyphen_is_no_option(shell: Shell, id: str) -> None:
    shell.add("ann")
    shell("sessions", "revoke", id)
    assert (shell.code, shell.err) == (1, "coatcheck: no live session has this id\n")


def test_an_id_behind_a_double_hyphen_is_an_id(shell: Shell) -> None:
    shell.add("ann")
    assert main(["sessions", "revoke", "--data-dir", str(shell.data), "--", "-" + "a" * 20 + "Q"]) == 1


def test_an_id_that_cannot_be_one_is_not_found(shell: Shell) -> None:
    shell.add("ann")
    for id in ("x", "../../etc/passwd", "\u00e9"):
        shell("sessions", "revoke", id)
        assert shell.code == 1
        assert "Traceback" not in shell.err


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "HS256"])
def test_keys_are_listed_by_role_and_rotated_in_their_own_algorithm(shell: Shell, algorithm: str) -> None:
    KeyFile(shell.data / "keys.json", algorithm=algorithm).open()
    before = json.loads(shell("keys", "list", "--json"))
    assert [(key["role"], key["alg"]) for key in before] == [("signing", algorithm), ("upcoming", algorithm)]
    after = {key["role"]: key for key in json.loads(shell("keys", "rotate", "--now", "--json"))}
    assert (shell.code, shell.err) == (0, "")
    assert after["signing"]["kid"] == before[1]["kid"]
    assert after["retired"]["kid"] == before[0]["kid"]
    assert after["upcoming"]["alg"] == algorithm
    KeyFile(shell.data / "keys.json").open()


def test_no_listing_of_keys_shows_a_secret(shell: Shell) -> None:
    KeyFile(shell.data / "keys.json", algorithm="HS256").open()
    stored = json.loads((shell.data / "keys.json").read_text())
    printed = shell("keys", "list") + shell("keys", "list", "--json")
    assert stored["secret"] not in printed
    assert all(key["jwk"]["k"] not in printed for key in stored["keys"])


def test_p8_j19_a_key_that_was_published_just_now_does_not_sign_unless_told(shell: Shell) -> None:
    KeyFile(shell.data / "keys.json", algorithm="ES256").open()
    before = shell("keys", "list", "--json")
    assert shell("keys", "rotate") == ""
    assert shell.code == 1
    assert "published less than 5 minutes ago" in shell.err
    assert "--now" in shell.err
    assert shell("keys", "list", "--json") == before


def test_p8_a_key_that_was_published_long_enough_signs_without_being_told(shell: Shell) -> None:
    KeyFile(shell.data / "keys.json", algorithm="ES256").open()
    path = shell.data / "keys.json"
    stored = json.loads(path.read_text())
    for key in stored["keys"]:
        key["made_at"] -= PUBLISH_AHEAD // timedelta(milliseconds=1)
    path.write_text(json.dumps(stored))
    assert "signing" in shell("keys", "rotate")
    assert shell.code == 0


@pytest.mark.parametrize(
    ("secret", "words", "said"),
    [
        ("", ("accounts", "list"), "a shared store needs one"),
        ("short", ("keys", "list"), "at least 32 characters"),
        ("short", ("accounts", "add", "ann", "--password-stdin"), "at least 32 characters"),
    ],
)
def test_a_shared_store_without_a_secret_is_exit_code_2_and_words(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, secret: str, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("COATCHECK_SECRET", secret)
    shell(*words, "--store", "redis://:a-password@127.0.0.1:1/0", stdin=PASSWORD + "\n")
    assert (shell.code, shell.err.startswith("coatcheck: COATCHECK_SECRET: ")) == (2, True)
    assert said in shell.err
    assert "a-password" not in shell.err
    assert not shell.data.exists()


@pytest.mark.parametrize("words", [("accounts", "list"), ("sessions", "list"), ("keys", "list"), ("keys", "rotate")])
def test_a_shared_store_that_does_not_answer_is_exit_code_3(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COATCHECK_SECRET", "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020")
    shell(*words, "--store", "redis://:a-password@127.0.0.1:1/0")
    assert shell.code == 3
    assert "a-password" not in shell.err
    assert not shell.data.exists()


# -- the command line itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [(), ("no-such-command",), ("accounts",), ("keys", "shuffle"), ("serve", "--port", "x")]
)
def test_a_wrong_command_line_is_exit_code_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    assert "usage: coatcheck" in capsys.readouterr().err


def test_help_and_version_load_neither_server_nor_library() -> None:
    program = (
        "import sys\n"
        "from coatcheck.cli.main import main\n"
        "before = set(sys.modules)\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded & {'starlette', 'uvicorn', 'jinja2', 'sqlite3', 'ua_parser'}))\n"
    )
    for word, said in (("--help", "exit codes"), ("--version", "coatcheck 0.")):
        found = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        assert said in found.stdout
        assert found.stdout.splitlines()[-1] == "[]"


def test_without_the_server_s_packages_it_is_said_what_to_install(tmp_path: Path) -> None:
    """In a process of its own: another test may have loaded the server already."""
    program = (
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"
        "from coatcheck.cli.main import main\n"
        "sys.exit(main(['serve', '--port', '0', '--data-dir', sys.argv[1]]))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 2
    assert 'pip install "coatcheck[server]"' in found.stderr
