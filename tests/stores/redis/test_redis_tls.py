"""rediss: the server's certificate is checked against those that are trusted, and its name too (P6)."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.redis import RedisStore
from coatcheck.testing import make_record

pytestmark = pytest.mark.anyio


def write_certificate(path: Path, address: str) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coatcheck tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, ssl.SSLError):
        writer.close()
        await writer.wait_closed()


@pytest.fixture(params=["127.0.0.1", "127.0.0.2"])
def named(request: pytest.FixtureRequest) -> str:
    """The address that the certificate is for; the server is at 127.0.0.1."""
    return str(request.param)


@pytest.fixture
async def tls(valkey: Any, tmp_path: Path, named: str) -> AsyncIterator[tuple[int, Path]]:
    """A port where TLS is spoken, and the file of the certificate."""
    file = write_certificate(tmp_path / "server.pem", named)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    serving = set[asyncio.Task[Any] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1], file
    server.close()
    await asyncio.gather(*(task for task in serving if task))


async def test_only_a_trusted_server_is_spoken_to(tls: tuple[int, Path], named: str, prefix: str) -> None:
    port, file = tls
    record = make_record("alice")

    async def use(**options: Any) -> bool:
        store = RedisStore.from_url(f"rediss://127.0.0.1:{port}", prefix=prefix, **options)
        try:
            await store.create(record)
            return await store.load(record.id) == record
        except StoreUnavailable:
            return False
        finally:
            await store.close()

    trusted = named == "127.0.0.1"
    assert await use(ca_file=str(file)) == trusted
    assert await asyncio.to_thread(lambda: run(use(ca_file=str(file)))) == trusted
    assert not await use()
    assert not await asyncio.to_thread(lambda: run(use()))
