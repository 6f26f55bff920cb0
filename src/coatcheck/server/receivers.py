"""Receivers: who is told of revocations as Security Event Tokens; read from the settings, one JSON array.

name                 stands for the receiver, and for its stream, in addresses and logs
audience             the claim aud of its tokens
token                what it presents to this server, as a bearer token: who polls needs one
push_url             where its tokens are sent; without it, it polls
push_authorization   the whole value of the Authorization header that goes with them
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from coatcheck.errors import ConfigurationError
from coatcheck.remote.origin import Origin

MOST_RECEIVERS: Final = 10
_SETTING: Final = "COATCHECK_SSF_RECEIVERS"


class Receiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One receiver; the module says what its members are."""

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,32}\Z")]
    audience: Annotated[str, Meta(min_length=1, max_length=2_048)]
    token: str = ""
    push_url: Annotated[str, Meta(pattern=r"\A[!-~]*\Z", max_length=2_048)] = ""
    push_authorization: Annotated[str, Meta(pattern=r"\A[ -~]*\Z", max_length=8_192)] = ""

    def __repr__(self) -> str:
        return f"<Receiver {self.name}>"

    @property
    def push_path(self) -> str:
        """The path of `push_url`, and its query."""
        parts = urlsplit(self.push_url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def push_origin(self) -> Origin:
        """Return the server of `push_url`.

        Raises:
            ConfigurationError: it is none that could be used.
        """
        try:
            parts = urlsplit(self.push_url)
            return Origin(f"{parts.scheme}://{parts.netloc}")
        except (ConfigurationError, ValueError):
            words = "push_url is an https address, in lower case up to the path; plain http is for this machine only"
            raise ConfigurationError(f"{_SETTING}: {self.name}: {words}") from None


_Receivers = Annotated[tuple[Receiver, ...], Meta(max_length=MOST_RECEIVERS)]
_decode: Final = msgspec.json.Decoder[tuple[Receiver, ...]](_Receivers).decode


def read_receivers(text: str) -> tuple[Receiver, ...]:
    """Return the receivers that the setting names.

    Raises:
        ConfigurationError: it is no such array; the message repeats none of it but names.
    """
    if not text.strip():
        return ()
    try:
        found = _decode(text)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at ")[2]
        raise ConfigurationError(f"{_SETTING}: not an array of at most {MOST_RECEIVERS} receivers: {place}") from None
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise ConfigurationError(f"{_SETTING}: not JSON") from None
    for name in (receiver.name for receiver in found):
        if sum(receiver.name == name for receiver in found) > 1:
            raise ConfigurationError(f"{_SETTING}: {name} is there twice")
    tokens = [receiver.token for receiver in found if receiver.token]
    if len(set(tokens)) < len(tokens):
        raise ConfigurationError(f"{_SETTING}: each receiver has a token of its own")
    for receiver in found:
        if receiver.push_url:
            receiver.push_origin()
        elif not receiver.token:
            raise ConfigurationError(f"{_SETTING}: {receiver.name}: it needs a token to poll with, or a push_url")
    return found
