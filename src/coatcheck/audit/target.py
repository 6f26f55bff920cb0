"""What to audit: the address, and how to sign in there. Everything that can be wrong about it is found here."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from coatcheck.errors import ConfigurationError

Body = Literal["form", "json"]

_PATH = re.compile(r"/[!-\"$-~]*")  # visible ASCII, and no fragment
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: all that an audit ever speaks to."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port, as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_https(self) -> bool:
        """Whether requests to it are encrypted."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine: nobody listens on the way there, encrypted or not."""
        return self.host in _LOOPBACK or self.host.endswith(".localhost")

    def has(self, address: SplitResult) -> bool:
        """Whether an address, perhaps a relative one, is here."""
        if not address.netloc and not address.scheme:
            return True
        try:
            port = address.port or _DEFAULT_PORTS.get(address.scheme or self.scheme)
        except ValueError:
            return False
        return (address.scheme or self.scheme, address.hostname, port) == (self.scheme, self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True)
class SignIn:
    """How somebody signs in: a POST of name and password.

    Args:
        path: where, with a query if it takes one.
        name: of the account; "" sends no such field.
        password: likewise; kept out of the repr.
        body: a form or a JSON object. With a form, the page at `path` is fetched first, and its hidden fields are
            sent along.
        name_field, password_field: what the two are called.

    Raises:
        ConfigurationError: the path is none.
    """

    path: str
    _: KW_ONLY
    name: str = ""
    password: str = field(default="", repr=False)
    body: Body = "form"
    name_field: str = "name"
    password_field: str = "password"  # noqa: S105 - the name of a field

    def __post_init__(self) -> None:
        _check_path("sign-in path", self.path)

    @property
    def fields(self) -> dict[str, str]:
        """What is sent besides hidden fields."""
        sent = {self.name_field: self.name, self.password_field: self.password}
        return {name: value for name, value in sent.items() if value}


@dataclass(frozen=True)
class Target:
    """A running application, and what is known about it.

    Args:
        url: of a page that anybody may see; http or https.
        sign_in: how to sign in; None looks at what a visitor gets, and at nothing else.
        protected_path: answers 2xx to whoever is signed in, and 401, 403 or a redirect to others.
        sign_out_path: a POST to it ends the session.

    Raises:
        ConfigurationError: the URL or a path cannot be used, or a path is of no use without a sign-in.
    """

    url: str
    _: KW_ONLY
    sign_in: SignIn | None = None
    protected_path: str | None = None
    sign_out_path: str | None = None
    origin: Origin = field(init=False)
    path: str = field(init=False)

    def __post_init__(self) -> None:
        origin, path = _split(self.url)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "path", path)
        for what, value in (("protected path", self.protected_path), ("sign-out path", self.sign_out_path)):
            if value is not None:
                _check_path(what, value)
        if self.sign_out_path is not None and self.sign_in is None:
            raise ConfigurationError("a sign-out path is of no use without a sign-in path")


def _split(url: str) -> tuple[Origin, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError("the URL cannot be read") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ConfigurationError("the URL begins with http:// or https:// and has a host")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("the URL has a name or password in it: command lines can be read by other programs")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    _check_path("path of the URL", path)
    return Origin(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]), path


def _check_path(what: str, path: str) -> None:
    if not _PATH.fullmatch(path) or path.startswith("//"):
        raise ConfigurationError(f"the {what} begins with one / and is visible ASCII")
