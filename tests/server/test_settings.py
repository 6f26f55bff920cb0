"""Settings: flags before environment before defaults; what cannot work is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coatcheck.errors import ConfigurationError
from coatcheck.server.settings import SETTINGS, Settings, prepare

FLAGS: dict[str, Any] = {
    "data_dir": "flag-dir",
    "host": "::1",
    "port": 9001,
    "store": "memory:",
    "issuer": "https://flag.example",
    "algorithm": "Ed25519",
}
ENVIRONMENT = {
    "COATCHECK_DATA_DIR": "environment-dir",
    "COATCHECK_HOST": "0.0.0.0",  # noqa: S104
    "COATCHECK_PORT": "9002",
    "COATCHECK_STORE": "file:sessions",
    "COATCHECK_ISSUER": "https://environment.example",
    "COATCHECK_ALGORITHM": "ES256",
}
DEFAULTS = {
    "data_dir": Path("coatcheck-data"),
    "host": "127.0.0.1",
    "port": 8000,
    "store": "",
    "issuer": "",
    "algorithm": "RS256",
}


@pytest.mark.parametrize("name", [name for name, (flag, _) in SETTINGS.items() if flag])
def test_a_flag_counts_before_the_environment_and_that_before_the_default(name: str) -> None:
    variable = SETTINGS[name][1]
    assert getattr(Settings.read({}, {}), name) == DEFAULTS[name]
    assert getattr(Settings.read({name: None}, {variable: ""}), name) == DEFAULTS[name]
    assert str(getattr(Settings.read({}, ENVIRONMENT), name)) == ENVIRONMENT[variable]
    assert str(getattr(Settings.read(FLAGS, ENVIRONMENT), name)) == str(FLAGS[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "-1"),
        ("port", "65536"),
        ("port", "http"),
        ("algorithm", "none"),
        ("algorithm", "rs256"),
        ("issuer", "example.com"),
        ("issuer", "https://example.com/"),
        ("issuer", "https://example.com/auth"),
        ("issuer", "HTTPS://example.com"),
        ("issuer", "https://user:secret@example.com"),
        ("issuer", "http://example.com"),
        ("issuer", "http://localhost.example.com"),
    ],
)
def test_what_cannot_work_is_refused_by_the_setting_s_name(name: str, value: str) -> None:
    flag, variable = SETTINGS[name]
    with pytest.raises(ConfigurationError) as caught:
        Settings.read({}, {variable: value})
    assert flag in str(caught.value)
    assert variable in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "issuer", ["http://localhost", "http://127.0.0.1:8000", "http://[::1]:8000", "http://a.localhost"]
)
def test_plain_http_is_for_loopback_where_browsers_keep_host_cookies(issuer: str) -> None:
    settings = Settings(data_dir=Path(), issuer=issuer)
    assert settings.url == issuer
    assert not settings.secure


def test_the_issuer_is_localhost_and_not_127_0_0_1_unless_it_is_given() -> None:
    assert Settings(data_dir=Path(), port=8123).url == "http://localhost:8123"
    assert Settings(data_dir=Path(), issuer="https://auth.example").secure


def test_port_0_picks_one_even_if_the_environment_names_another() -> None:
    assert Settings.read({"port": 0}, {"COATCHECK_PORT": "9002"}).port == 0


SECRET = "0123456789abcdefghijklmnopqrstuv"
SHARED = {"COATCHECK_STORE": "redis://:a-secret@host/0"}


@pytest.mark.parametrize("store", ["redis://host", "rediss+cluster://host", "postgres://host", "postgresql://host"])
def test_a_shared_store_needs_a_secret_and_is_told_how_to_make_one(store: str) -> None:
    with pytest.raises(ConfigurationError, match=r"COATCHECK_SECRET.*python3 -c"):
        assert Settings.read({"store": store}, {}).secrets
    settings = Settings.read({"store": store}, {"COATCHECK_SECRET": SECRET})
    assert (settings.shared, settings.secrets) == (True, (SECRET,))


@pytest.mark.parametrize("store", ["", "memory:", "file:sessions", "sqlite:///sessions.db"])
def test_a_local_store_takes_no_notice_of_a_secret(store: str) -> None:
    settings = Settings.read({"store": store}, {"COATCHECK_SECRET": "short", "COATCHECK_SECRET_FILE": "/no/such/file"})
    assert (settings.shared, settings.secret) == (False, "")


@pytest.mark.parametrize("secret", [SECRET[:-1], "ab" * 16, f"{SECRET} {SECRET[:-1]}", " \n"])
def test_a_secret_that_could_be_guessed_is_refused_and_never_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="COATCHECK_SECRET") as caught:
        assert Settings.read({}, {**SHARED, "COATCHECK_SECRET": secret}).secrets
    assert not any(part in str(caught.value) for part in secret.split())
    assert "a-secret" not in str(caught.value)


def test_several_secrets_are_separated_by_white_space_and_the_first_seals() -> None:
    settings = Settings.read({}, {**SHARED, "COATCHECK_SECRET": f" {SECRET}\n{SECRET[::-1]} "})
    assert settings.secrets == (SECRET, SECRET[::-1])


def test_no_flag_and_no_repr_has_the_secret() -> None:
    """Everybody on the machine can see the flags of a process."""
    settings = Settings.read({"secret": "x" + SECRET}, {**SHARED, "COATCHECK_SECRET": SECRET})
    assert settings.secrets == (SECRET,)
    assert SECRET not in repr(settings)


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert Settings.read({}, {**SHARED, "COATCHECK_SECRET_FILE": str(file)}).secrets == (SECRET,)
    with pytest.raises(ConfigurationError, match="set one of them"):
        Settings.read({}, {**SHARED, "COATCHECK_SECRET_FILE": str(file), "COATCHECK_SECRET": SECRET})


@pytest.mark.parametrize("content", [None, b"", b"x" * 5000, b"\xff" * 40])
def test_a_file_that_holds_no_secret_is_refused_by_its_variable(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match="COATCHECK_SECRET_FILE"):
        Settings.read({}, {**SHARED, "COATCHECK_SECRET_FILE": str(tmp_path / "secret")})


def test_the_data_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    prepare(made)
    prepare(made)
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        prepare(tmp_path)


def test_a_data_directory_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="COATCHECK_DATA_DIR"):
        prepare(tmp_path / "file" / "below")


def test_s17_no_password_of_a_store_is_in_the_settings_repr(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, store="postgresql://coatcheck:hunter2@db/coatcheck")
    assert "hunter2" not in repr(settings)
