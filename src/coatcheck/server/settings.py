"""Settings of the server: flags before environment before defaults, in one table.

    setting     flag          environment              default
    data_dir    --data-dir    COATCHECK_DATA_DIR       ./coatcheck-data
    host        --host        COATCHECK_HOST           127.0.0.1
    port        --port        COATCHECK_PORT           8000
    store       --store       COATCHECK_STORE          SQLite in the data directory
    issuer      --issuer      COATCHECK_ISSUER         http://localhost:PORT
    algorithm   --algorithm   COATCHECK_ALGORITHM      RS256 (only counts when keys are first made)

Proxies: X-Forwarded-For and X-Forwarded-Proto count only when they come from an address in uvicorn's own
variable FORWARDED_ALLOW_IPS. Without it nobody is believed, not even 127.0.0.1: many proxies pass on whatever
the client sent under these names, and the limit of sign-in attempts per address would be the client's to choose.
Behind a proxy set FORWARDED_ALLOW_IPS to the proxy's address and COATCHECK_ISSUER to the public URL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from coatcheck.core.csrf import origin_of
from coatcheck.errors import ConfigurationError

# What can be chosen, and the name that goes into tokens and JWKS. Ed25519 goes by its older name: RFC 9864 prefers the
# newer one, but to many verifiers (PyJWT 2.15 is one) a key of that name is no key.
ALGORITHMS: Final = {"RS256": "RS256", "ES256": "ES256", "Ed25519": "EdDSA", "HS256": "HS256"}
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

    Raises:
        ConfigurationError: a setting that cannot work; the message names it.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    store: str = ""
    issuer: str = ""
    algorithm: str = "RS256"

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigurationError(f"{_named('host')}: must not be empty")
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"{_named('port')}: a port is a number from 0 to 65535")
        if self.algorithm not in ALGORITHMS:
            raise ConfigurationError(f"{_named('algorithm')}: one of {', '.join(ALGORITHMS)}")
        if self.issuer:
            _check_issuer(self.issuer)

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
        given = {name: flags.get(name) or environ.get(variable) or None for name, (_, variable) in SETTINGS.items()}
        if flags.get("port") == 0:
            given["port"] = "0"
        found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        found["data_dir"] = Path(found.get("data_dir", "coatcheck-data"))
        if "port" in found:
            found["port"] = _number("port", found["port"])
        return cls(**found)

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
        """The SQLite file of accounts, attempts and revocations, and of sessions unless they are elsewhere."""
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


def _number(name: str, text: object) -> int:
    try:
        return int(str(text))
    except ValueError:
        raise ConfigurationError(f"{_named(name)}: a port is a number from 0 to 65535") from None


def _named(name: str) -> str:
    flag, variable = SETTINGS[name]
    return f"{flag} ({variable})"
