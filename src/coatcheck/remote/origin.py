"""Origin: one HTTP server; all that is needed of HTTP, on the standard library and an event loop.

transport   https with the certificate checked; plain http to this machine only
proxies     none: those that the environment names are not looked at
redirects   none is followed: another address would be another's word
time        1.5 s to connect, for the head of the answer to GET, and for each piece; for the rest the caller says
size        16 KiB for a head; for the rest the caller says
reuse       none: a connection serves one request, so no answer can be another's (P4)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncGenerator, Iterable
from typing import Final
from urllib.parse import urlsplit

from coatcheck.clock import monotonic_clock
from coatcheck.core.csrf import origin_of
from coatcheck.errors import ConfigurationError, StoreUnavailable

PATIENCE: Final = 1.5  # seconds
MAX_HEAD: Final = 16 * 1024  # octets
MAX_INTERIM: Final = 4  # answers 1xx before the one that counts
_PIECE: Final = 64 * 1024  # octets

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)")
_LENGTH: Final = re.compile(r"[0-9]{1,12}")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")  # RFC 9112, 7.1


class NotAsked(Exception):
    """What came is not what was asked for. Within `get` and `post` it becomes StoreUnavailable, with the address."""


class Origin:
    """An HTTP server, by its origin.

    Args:
        url: "https://host[:port]"; "http://" for a server on this machine.
        ca_file: certificates of authorities to trust, in PEM, instead of the machine's own.

    Raises:
        ConfigurationError: the URL is no such origin, or the file holds no certificates.
    """

    def __init__(self, url: str, *, ca_file: str | os.PathLike[str] | None = None) -> None:
        if origin_of(url) != url:
            raise ConfigurationError("an issuer is written https://host[:port], in lower case and without a path")
        parts = urlsplit(url)
        self.url = url
        self._host = _resolvable(parts.hostname or "")
        self._authority = parts.netloc
        self._tls = _tls(ca_file) if parts.scheme == "https" else None
        self._port = parts.port or (80 if self._tls is None else 443)
        if self._tls is None and self._host not in _LOOPBACK and not self._host.endswith(".localhost"):
            raise ConfigurationError("plain http is for an issuer on this machine: anybody on the way could answer")

    def __repr__(self) -> str:
        return f"<Origin {self.url}>"

    def get(
        self, path: str, *, accept: str, token: str = "", headers: Iterable[tuple[str, str]] = ()
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        """Ask for `path`, and hand out the answer while it is being read.

        Args:
            path: begins with a slash.
            accept: the media type that is wanted.
            token: for `Authorization: Bearer`, if there is one.
            headers: further ones.

        Raises:
            StoreUnavailable: it cannot be reached, is too slow, or does not speak HTTP; also while the answer is read.
        """
        bearer = [("Authorization", f"Bearer {token}")] if token else []
        return self._ask(path, self._head("GET", path, accept, [*bearer, *headers]), b"", PATIENCE)

    def post(
        self, path: str, body: bytes, *, accept: str, headers: Iterable[tuple[str, str]], seconds: float
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        """Send `body` to `path`, and hand out the answer while it is being read.

        Args:
            path: begins with a slash.
            body: what to send.
            accept: the media type that is wanted.
            headers: further ones, the body's type among them.
            seconds: how long the answer may take to begin: whoever stores something before they answer needs a while.

        Raises:
            StoreUnavailable: as for `get`. What was sent may have arrived all the same.
        """
        head = self._head("POST", path, accept, [("Content-Length", str(len(body))), *headers])
        return self._ask(path, head, body, seconds)

    @contextlib.asynccontextmanager
    async def _ask(self, path: str, head: bytes, body: bytes, seconds: float) -> AsyncGenerator[Answer, None]:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=MAX_HEAD)
            asked_at = monotonic_clock()
            writer.write(head + body)
            async with asyncio.timeout(seconds):
                status, fields = await _read_head(reader)
            yield Answer(reader, status, fields, asked_at)
        except (OSError, EOFError, asyncio.LimitOverrunError, NotAsked) as error:
            raise StoreUnavailable(f"{self.url}{path}: {_words(error)}") from None
        finally:
            if writer is not None:
                writer.transport.abort()  # nothing is left that would have to arrive

    def _head(self, method: str, path: str, accept: str, headers: Iterable[tuple[str, str]]) -> bytes:
        fields = [
            ("Host", self._authority),
            ("User-Agent", "coatcheck"),
            ("Accept", accept),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
            *headers,
        ]
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(lines).encode("ascii")


class Answer:
    """What a server answers: its head, and a body that is read once.

    Args:
        reader: where the body comes from.
        status: 200 to 599.
        fields: the header fields, their names in lower case.
        asked_at: when the request was sent, by `monotonic_clock`: what the answer says is no older than this.
    """

    def __init__(self, reader: asyncio.StreamReader, status: int, fields: dict[str, str], asked_at: int) -> None:
        self._reader = reader
        self.status = status
        self.fields = fields
        self.asked_at = asked_at
        self._chunked = "transfer-encoding" in fields
        self._left = self._length()
        self._ended = False

    def require(self, *media_types: str) -> None:
        """Return if this is an answer 200 of one of the media types.

        Raises:
            NotAsked: it is another.
        """
        if self.status != 200:
            raise NotAsked(f"the answer was {self.status}")
        if self.fields.get("content-type", "").partition(";")[0].strip().lower() not in media_types:
            raise NotAsked(f"the answer was not {media_types[0]}")

    async def body(self, *, limit: int, seconds: float) -> bytes:
        """Return the whole body, of at most `limit` octets, if it comes in time, and each piece of it within 1.5 s.

        Raises:
            NotAsked, OSError, EOFError: it does not.
        """
        found = bytearray()
        async with asyncio.timeout(seconds):
            while piece := await self._soon():
                found += piece
                if len(found) > limit:
                    raise NotAsked(f"the answer has more than {limit} octets")
        return bytes(found)

    async def _soon(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.read()

    async def read(self) -> bytes:
        """Return the next piece of the body, of 64 KiB at most, or nothing at its end (RFC 9112, section 6.3).

        Raises:
            NotAsked, OSError, EOFError: it ends early, or is not of the form that the head has announced.
        """
        if self._left == 0 and self._chunked and not self._ended:
            self._left = await self._size_of_chunk()
            self._ended = self._left == 0  # what follows are trailer fields, which nobody asked for
        if self._left == 0:
            return b""
        piece = await self._reader.read(_PIECE if self._left is None else min(self._left, _PIECE))
        if self._left is None:
            return piece
        if not piece:
            raise EOFError
        self._left -= len(piece)
        if self._left == 0 and self._chunked and await self._reader.readexactly(2) != b"\r\n":
            raise NotAsked("a chunk that does not end where it says")
        return piece

    async def _size_of_chunk(self) -> int:
        match = _SIZE.fullmatch(await self._reader.readuntil(b"\r\n"))
        if match is None:
            raise NotAsked("a chunk without a size")
        return int(match[1], 16)

    def _length(self) -> int | None:
        """Return how much of the body is left to be read at first, or None where it ends with the connection."""
        coding, length = self.fields.get("transfer-encoding"), self.fields.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise NotAsked("a transfer coding that nobody asked for")
            return 0
        if length is not None and not _LENGTH.fullmatch(length):
            raise NotAsked("a length that is no number")
        return None if length is None else int(length)


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    for _ in range(MAX_INTERIM):
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise NotAsked("no HTTP/1.1 at all")
        if not status[1].startswith(b"1"):
            return int(status[1]), _fields(lines)
    raise NotAsked("too many answers before the answer")


def _fields(lines: list[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise NotAsked("a header field that cannot be read")
        name, value = match[1].decode("ascii").lower(), match[2].rstrip(b" \t").decode("latin-1")
        # Joined (RFC 9110, 5.3): two lengths or two codings then are none that we know, and are refused.
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _resolvable(host: str) -> str:
    try:
        host.encode("idna")  # as the resolver will, where a label of 64 letters is no OSError
    except UnicodeError:
        raise ConfigurationError("the issuer's host is no name of a host") from None
    return host


def _tls(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        raise ConfigurationError(f"the ca_file cannot be used: {_words(error)}") from None


def _words(error: Exception) -> str:
    """Return what went wrong, in a few words; nothing that was sent is among them."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, EOFError):
        return "the connection ended early"
    if isinstance(error, OSError):
        return error.strerror or str(error) or "it cannot be reached"
    return str(error) if isinstance(error, NotAsked) else "a line that is too long"
