"""Origin: what a server may answer, how long it may take, and that nothing else is believed."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.remote import origin
from coatcheck.remote.origin import MAX_HEAD, Origin

pytestmark = pytest.mark.anyio

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


@asynccontextmanager
async def server(speak: Speak | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve what is said to every connection, after the head of its request."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(speak, bytes):
                writer.write(speak)
            else:
                await speak(reader, writer)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    heard.clear()
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    for writer in writers:
        writer.transport.abort()  # with TLS, closing waits for the other end
    await asyncio.sleep(0.01)


heard: list[bytes] = []


async def fetch(port: int, *, scheme: str = "http", ca_file: Path | None = None, limit: int = 1000) -> bytes:
    where = Origin(f"{scheme}://127.0.0.1:{port}", ca_file=ca_file)
    async with where.get("/path", accept="text/plain", token="t.o.k.e.n", headers=[("X-More", "1")]) as answer:
        answer.require("text/plain", "text/html")
        return await answer.body(limit=limit, seconds=10)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"content-length: 5\r\n\r\nhello and more", b"hello"),
        (OK + b"\r\nhello", b"hello"),
        (b"HTTP/1.0 200\r\nContent-Type: TEXT/plain; charset=utf-8\r\n\r\nhello", b"hello"),
        (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", b"hello"),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n00000A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n", b"0123456789"),
        (OK + b"content-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK + b"content-length: 2\r\n\r\nhi", b"hi"),
    ],
)
async def test_a_body_is_read_however_it_is_framed(answer: bytes, body: bytes) -> None:
    async with server(answer) as port:
        assert await fetch(port) == body
    host = f"127.0.0.1:{port}".encode()
    assert heard == [
        b"GET /path HTTP/1.1\r\nHost: " + host + b"\r\nUser-Agent: coatcheck\r\nAccept: text/plain\r\n"
        b"Accept-Encoding: identity\r\nConnection: close\r\nAuthorization: Bearer t.o.k.e.n\r\nX-More: 1\r\n\r\n"
    ]


async def test_r8_what_is_posted_has_its_length_and_its_type() -> None:
    """And whoever takes longer to answer than they may is not waited for."""
    headers = [("Content-Type", "application/secevent+jwt")]
    async with server(b"HTTP/1.1 202 Accepted\r\n\r\n") as port:
        where = Origin(f"http://127.0.0.1:{port}")
        async with where.post("/e?v=1", b"a.b.c", accept="application/json", headers=headers, seconds=10) as answer:
            assert answer.status == 202
    assert heard == [
        f"POST /e?v=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: coatcheck\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nConnection: close\r\nContent-Length: 5\r\n"
        "Content-Type: application/secevent+jwt\r\n\r\n".encode()
    ]

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with server(silent) as port:
        with pytest.raises(StoreUnavailable, match="in time"):
            async with Origin(f"http://127.0.0.1:{port}").post("/", b"", accept="*/*", headers=headers, seconds=0.05):
                pass


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended early"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "no HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain", "ended early"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * MAX_HEAD + b"\r\n\r\n", "too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10, "too many"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n", "302"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "401"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}", "not text/plain"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "not text/plain"),
        (OK + b"content-length: 10\r\n\r\nhello", "ended early"),
        (OK + b"content-length: -1\r\n\r\nhello", "no number"),
        (OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!", "no number"),
        (OK + b"content-length: 1001\r\n\r\n" + b"x" * 1001, "more than 1000"),
        (OK + b"content-length: 999999999999\r\n\r\n" + b"x" * 70_000, "more than 1000"),
        (OK + b"\r\n" + b"x" * 70_000, "more than 1000"),
        (OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "coding"),
        (OK + b"transfer-encoding: chunked\r\n\r\nhello\r\n", "without a size"),
        (OK + b"transfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", "without a size"),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", "does not end"),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhel", "ended early"),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "ended early"),
        (OK + b"transfer-encoding: chunked\r\n\r\n" + b"1" * MAX_HEAD + b"1\r\n", "too long"),
    ],
)
async def test_what_is_not_an_answer_to_the_question_is_none(answer: bytes, words: str) -> None:
    """P6, P9: an error of ours each time, within the limits, and without what was asked."""
    async with server(answer) as port:
        with pytest.raises(StoreUnavailable, match=words) as refused:
            await fetch(port)
    assert f"http://127.0.0.1:{port}/path" in str(refused.value)
    assert "t.o.k.e.n" not in str(refused.value)


async def test_a_server_that_drips_or_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: the time for a head counts as a whole, however often a part of it comes."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for octet in OK:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.02)

    monkeypatch.setattr(origin, "PATIENCE", 0.1)
    async with server(drip) as port:
        with pytest.raises(StoreUnavailable, match="in time"):
            await fetch(port)


async def test_a_body_that_stops_in_the_middle_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 10\r\n\r\nhello")
        await reader.read()

    monkeypatch.setattr(origin, "PATIENCE", 0.1)
    async with server(stop) as port:
        with pytest.raises(StoreUnavailable, match="in time"):
            await fetch(port)


async def test_nobody_there_is_an_error_of_ours() -> None:
    async with server(b"") as port:
        pass
    with pytest.raises(StoreUnavailable):
        await fetch(port)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with server(OK + b"\r\nhello") as port:
        assert await fetch(port) == b"hello"


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and a server's context with it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(alternatives, critical=True)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    pem, private = tmp_path / "ca.pem", tmp_path / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pkcs8, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, none))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


async def test_a_certificate_is_checked_against_the_authorities_that_are_named(
    certificates: tuple[Path, ssl.SSLContext],
) -> None:
    ca_file, context = certificates
    async with server(OK + b"\r\nhello", context) as port:
        assert await fetch(port, scheme="https", ca_file=ca_file) == b"hello"
        with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch(port, scheme="https")
        with pytest.raises(StoreUnavailable, match=r"(?i)hostname|mismatch|not valid for"):
            async with Origin(f"https://localhost:{port}", ca_file=ca_file).get("/", accept="*/*"):
                pass
    assert len(heard) == 1, "nothing is said to who is not who it should be"


async def test_a_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(ConfigurationError, match="ca_file"):
            Origin("https://auth.example", ca_file=path)
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="ca_file"):
        Origin("https://auth.example", ca_file=tmp_path / "empty.pem")
