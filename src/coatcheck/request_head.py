"""RequestHead: what an Exchange needs of a request: all that ASGI and WSGI have in common."""

from __future__ import annotations

import msgspec

from coatcheck.core.cookies import parse_cookies
from coatcheck.core.record import Device

_MAX_USER_AGENT = 256
_MAX_ADDRESS = 64

Headers = list[tuple[bytes, bytes]]


class RequestHead(msgspec.Struct, frozen=True):
    """A request's method, scheme, headers and sender.

    Args:
        method: as sent; "CONNECT" for a WebSocket handshake, which is judged like an unsafe method (F11).
        scheme: "http" or "https", as seen by the browser.
        headers: pairs, the names in lower case.
        address: of the client, or "".
    """

    method: str
    scheme: str
    headers: Headers
    address: str = ""

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} of {len(self.headers)} headers>"  # which hold credentials

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("method", self.method)]

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of a header."""
        return [value for header, value in self.headers if header == name]

    def value(self, name: bytes) -> bytes | None:
        """Return a header's value, several joined by a comma, or None."""
        found = self.values(name)
        return b", ".join(found) if found else None

    def presents(self, cookie: str) -> bool:
        """Say whether the request carries a cookie of this name, however often."""
        return any(name == cookie.encode("ascii") for name, _ in parse_cookies(self.values(b"cookie")))

    @property
    def device(self) -> Device:
        """Where the request comes from, as far as it tells."""
        agent = (self.value(b"user-agent") or b"")[:_MAX_USER_AGENT].decode("latin-1")
        # Behind a proxy the address is text from a header as well.
        return Device(_printable(agent), _printable(self.address[:_MAX_ADDRESS]))


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
