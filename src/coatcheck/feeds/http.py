"""HTTPFeed: the revocations of an auth server, heard over HTTP, for processes that share no store with it."""

from __future__ import annotations

import os

from coatcheck.core.revocation import Revoked
from coatcheck.errors import ConfigurationError
from coatcheck.remote.events import MAX_EVENT, MIN_TOKEN, Events, Said
from coatcheck.remote.origin import Origin

__all__ = ["MAX_EVENT", "MIN_TOKEN", "HTTPFeed", "Said"]


class HTTPFeed(Events):
    """A feed that is heard and not spoken on: sessions are ended at the auth server.

    It needs nothing but the standard library, and no thread. It reconnects by itself, where it was; see
    `coatcheck.remote.origin` for what it does not do (proxies, redirects), and its limits.

    Args:
        url: the auth server's origin, "https://host[:port]"; "http://" for one on this machine.
        token: one of the server's feed tokens (COATCHECK_FEED_TOKEN).
        ca_file: certificates of authorities to trust, in PEM, instead of the machine's own.

    Raises:
        ConfigurationError: one of them cannot be what it should be.
    """

    def __init__(self, url: str, token: str, *, ca_file: str | os.PathLike[str] | None = None) -> None:
        super().__init__(Origin(url, ca_file=ca_file), token)

    async def open(self) -> None:
        """Do nothing: whoever follows connects."""

    async def close(self) -> None:
        """Let followers end when they next hear, which is at least twice a second."""
        self.end()

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:  # noqa: ARG002 - the protocol's
        """Refuse: what this process ends on its own would be unknown to the auth server.

        Raises:
            ConfigurationError: there is something to publish.
        """
        if revoked:
            raise ConfigurationError("an HTTPFeed is only heard: end sessions at the auth server")
