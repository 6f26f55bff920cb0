"""Settings of the server: flags before environment before defaults, in one table.

    setting     flag          environment              default
    data_dir    --data-dir    COATCHECK_DATA_DIR       ./coatcheck-data
    host        --host        COATCHECK_HOST           127.0.0.1
    port        --port        COATCHECK_PORT           8000
    store       --store       COATCHECK_STORE          SQLite in the data directory
    issuer      --issuer      COATCHECK_ISSUER         http://localhost:PORT
    algorithm   --algorithm   COATCHECK_ALGORITHM      RS256 (only counts when keys are first made)
    secret                    COATCHECK_SECRET         none; a shared store needs one
    feed_token                COATCHECK_FEED_TOKEN     none: the feed is not served over HTTP
    ssf_receivers             COATCHECK_SSF_RECEIVERS  none: no Security Event Tokens (see receivers.py)
    status_ttl                COATCHECK_STATUS_TTL     none: no status lists
    fresh_for                 COATCHECK_FRESH_FOR      none: every session is looked up in the store

A shared store (Redis, PostgreSQL) holds everything: sessions, accounts, keys and limits. No data directory is made
then, and the keys are sealed under the secret. Other users of the machine can see flags, so what is secret has none;
it can be in a file that COATCHECK_SECRET_FILE, COATCHECK_FEED_TOKEN_FILE, or COATCHECK_SSF_RECEIVERS_FILE, names.
Several secrets are separated by white space: the first one seals, and any of the feed tokens will do, so each can be
changed without a gap. Durations are written 500ms, 10s, 2m.

Proxies: X-Forwarded-For and X-Forwarded-Proto count only when they come from an address in uvicorn's own
variable FORWARDED_ALLOW_IPS. Without it nobody is believed, not even 127.0.0.1: many proxies pass on whatever
the client sent under these names, and the limit of sign-in attempts per address would be the client's to choose.
Behind a proxy set FORWARDED_ALLOW_IPS to the proxy's address and COATCHECK_ISSUER to the public URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from coatcheck.core.csrf import origin_of
from coatcheck.errors import ConfigurationError
from coatcheck.server.receivers import Receiver, read_receivers

# What can be chosen, and the name that goes into tokens and JWKS. Ed25519 goes by its older name: RFC 9864 prefers the
# newer one, but to many verifiers (PyJWT 2.15 is one) a key of that name is no key.
ALGORITHMS: Final = {"RS256": "RS256", "ES256": "ES256", "Ed25519": "EdDSA", "HS256": "HS256"}
# The schemes of stores that machines share begin so.
_SHARED: Final = ("redis", "postgres")
MIN_SECRET: Final = 32  # characters
# Sixteen random octets have fewer different hexadecimal digits once in 10^7.
_MIN_DIFFERENT: Final = 8
_MAX_FILE: Final[Mapping[str, int]] = {"secret": 4096, "feed_token": 4096, "ssf_receivers": 65_536}  # characters
_DURATION: Final = re.compile(r"([0-9]{1,6})(ms|s|m)")
_UNITS: Final = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1)}
_SECOND, _HOUR = timedelta(seconds=1), timedelta(hours=1)
_NO_SECRET: Final = "a shared store needs one, the same at all servers, to seal their keys"  # noqa: S105 - words
_MAKE_ONE: Final = 'make it with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
# Over http, browsers keep a Secure cookie of these hosts only.
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server is told from outside.

    Args:
        data_dir: where database and keys are kept; nobody else may read it.
        host: the address to listen on.
        port: the port to listen on; 0 picks a free one.
        store: a store URL, or "" for SQLite in the data directory.
        issuer: the origin under which browsers reach the server, or "" for http://localhost:PORT.
        algorithm: of the keys, when they are first made.
        secret: what the keys in a shared store are sealed under: one secret, or several, with white space between.
        feed_token: what readers of the feed over HTTP present: one, several, or "" for no such readers.
        ssf_receivers: who gets Security Event Tokens, as JSON; see `coatcheck.server.receivers`.
        status_ttl: how long a verifier may keep a status list, or None for no status lists; whole seconds.
        fresh_for: how long a session that was looked up is served from memory, or None; see `NearStore`.

    Raises:
        ConfigurationError: a setting that cannot work; the message names it.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    store: str = field(default="", repr=False)  # a URL may hold a password
    issuer: str = ""
    algorithm: str = "RS256"
    secret: str = field(default="", repr=False)
    feed_token: str = field(default="", repr=False)
    ssf_receivers: str = field(default="", repr=False)
    status_ttl: timedelta | None = None
    fresh_for: timedelta | None = None

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigurationError(f"{_named('host')}: must not be empty")
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"{_named('port')}: a port is a number from 0 to 65535")
        if self.algorithm not in ALGORITHMS:
            raise ConfigurationError(f"{_named('algorithm')}: one of {', '.join(ALGORITHMS)}")
        if self.issuer:
            _check_issuer(self.issuer)
        _check_secrets("feed_token", self.feed_tokens)
        _check_secrets("ssf_receivers", tuple(each.token for each in self.receivers if each.token))
        if self.status_ttl is not None and (self.status_ttl % _SECOND or not _SECOND <= self.status_ttl <= _HOUR):
            raise ConfigurationError(f"{_named('status_ttl')}: whole seconds, from 1s to 60m")

    @classmethod
    def read(cls, flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings that flags and environment make; what neither names has its default.

        Args:
            flags: values by the setting's name; None where the flag was not given.
            environment: the process's own, if left out.

        Raises:
            ConfigurationError: a setting cannot work.
        """
        environ = os.environ if environment is None else environment
        given = {
            name: flags.get(name) or environ.get(variable) or None
            for name, (flag, variable) in SETTINGS.items()
            if flag
        }
        if flags.get("port") == 0:
            given["port"] = "0"
        found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        found["data_dir"] = Path(found.get("data_dir", "coatcheck-data"))
        if "port" in found:
            found["port"] = _number("port", found["port"])
        if _is_shared(found.get("store", "")):
            found["secret"] = _secret("secret", environ)
        found |= {name: _secret(name, environ) for name in ("feed_token", "ssf_receivers")}
        found |= {name: _duration(name, environ) for name in ("status_ttl", "fresh_for")}
        return cls(**found)

    @property
    def shared(self) -> bool:
        """Whether the store is one that servers on several machines share; everything is in it then."""
        return _is_shared(self.store)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that the keys in a shared store are sealed under; the first seals.

        Raises:
            ConfigurationError: there is none, or one that could be guessed.
        """
        found = tuple(self.secret.split())
        if not found:
            raise ConfigurationError(f"{_named('secret')}: {_NO_SECRET}; {_MAKE_ONE}")
        _check_secrets("secret", found)
        return found

    @property
    def feed_tokens(self) -> tuple[str, ...]:
        """The tokens that readers of the feed over HTTP may present; none, if there are to be no such readers."""
        return tuple(self.feed_token.split())

    @cached_property
    def receivers(self) -> tuple[Receiver, ...]:
        """Who gets Security Event Tokens."""
        return read_receivers(self.ssf_receivers)

    @property
    def url(self) -> str:
        """The origin of our pages, which is the issuer of our tokens."""
        return self.issuer or f"http://localhost:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over https."""
        return self.url.startswith("https:")

    @property
    def database(self) -> Path:
        """The SQLite file of accounts, attempts and revocations, and of sessions unless they are in another place."""
        return self.data_dir / "coatcheck.sqlite"

    @property
    def key_file(self) -> Path:
        """The file with the keys."""
        return self.data_dir / "keys.json"


SETTINGS: Final[Mapping[str, tuple[str, str]]] = {
    "data_dir": ("--data-dir", "COATCHECK_DATA_DIR"),
    "host": ("--host", "COATCHECK_HOST"),
    "port": ("--port", "COATCHECK_PORT"),
    "store": ("--store", "COATCHECK_STORE"),
    "issuer": ("--issuer", "COATCHECK_ISSUER"),
    "algorithm": ("--algorithm", "COATCHECK_ALGORITHM"),
    "secret": ("", "COATCHECK_SECRET"),
    "feed_token": ("", "COATCHECK_FEED_TOKEN"),
    "ssf_receivers": ("", "COATCHECK_SSF_RECEIVERS"),
    "status_ttl": ("", "COATCHECK_STATUS_TTL"),
    "fresh_for": ("", "COATCHECK_FRESH_FOR"),
}


def prepare(data_dir: Path) -> None:
    """Make the data directory, private to us, if it is not there.

    Raises:
        ConfigurationError: it cannot be made or written, or others may read it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = data_dir.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"{_named('data_dir')}: {data_dir}: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigurationError(f"{_named('data_dir')}: {data_dir} may be read by others: chmod 700 it")
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"{_named('data_dir')}: {data_dir} cannot be written")


def _check_issuer(issuer: str) -> None:
    if origin_of(issuer) != issuer:
        raise ConfigurationError(f"{_named('issuer')}: an origin is written https://host[:port], in lower case")
    parts = urlsplit(issuer)
    host = parts.hostname or ""
    if parts.scheme == "http" and host not in _LOOPBACK and not host.endswith(".localhost"):
        raise ConfigurationError(
            f"{_named('issuer')}: plain http works on localhost only: browsers drop our cookies anywhere else"
        )


def _is_shared(store: str) -> bool:
    return store.startswith(_SHARED)


def _check_secrets(name: str, found: tuple[str, ...]) -> None:
    if any(len(secret) < MIN_SECRET or len(set(secret)) < _MIN_DIFFERENT for secret in found):
        raise ConfigurationError(
            f"{_named(name)}: a secret is random and has at least {MIN_SECRET} characters; {_MAKE_ONE}"
        )


def _secret(name: str, environment: Mapping[str, str]) -> str:
    """Return the secrets that are in the environment, or in the file that it names; "" if there are none."""
    by_file = f"{_named(name)}_FILE"
    secret, path = environment.get(_named(name), ""), environment.get(by_file, "")
    if secret and path:
        raise ConfigurationError(f"{_named(name)} and {by_file}: set one of them")
    if not path:
        return secret
    try:
        with Path(path).open("rb") as file:
            secret = file.read(_MAX_FILE[name] + 1).decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{by_file}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        secret = ""
    if not 0 < len(secret) <= _MAX_FILE[name]:
        raise ConfigurationError(f"{by_file}: {path}: not a text of 1 to {_MAX_FILE[name]} characters")
    return secret


def _duration(name: str, environment: Mapping[str, str]) -> timedelta | None:
    """Return the duration that is in the environment, or None if there is none."""
    text = environment.get(_named(name), "")
    found = _DURATION.fullmatch(text)
    if text and found is None:
        raise ConfigurationError(f"{_named(name)}: a duration is written 500ms, 10s, 2m")
    return int(found[1]) * _UNITS[found[2]] if found else None


def _number(name: str, text: object) -> int:
    try:
        return int(str(text))
    except ValueError:
        raise ConfigurationError(f"{_named(name)}: a port is a number from 0 to 65535") from None


def _named(name: str) -> str:
    flag, variable = SETTINGS[name]
    return f"{flag} ({variable})" if flag else variable
