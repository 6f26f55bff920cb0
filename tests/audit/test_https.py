"""What is asked of an application by https, and of the same host without (S18)."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_app import NAME, PASSWORD, BadApp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from stage import Stage

from coatcheck.audit import NotLooked, SignIn, Target, answer_looks, audit
from coatcheck.audit.evidence import Evidence
from coatcheck.audit.fetch import Answer, Client
from coatcheck.audit.target import Origin


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    place = tmp_path_factory.mktemp("tls")
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    pem, private = place / "ca.pem", place / "key.pem"
    pem.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pkcs8, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, none))
    return pem, private


@pytest.fixture(scope="module")
def encrypted(certificate: tuple[Path, Path]) -> Iterator[Stage]:
    pem, key = certificate
    listener = socket.create_server(("127.0.0.1", 0))
    stage = Stage(listener, "https", ssl_certfile=str(pem), ssl_keyfile=str(key))
    yield stage
    stage.end()


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("", set[str]()),
        ("no HSTS", {"no-hsts"}),
        ("short HSTS", {"short-hsts"}),
        ("leads to http", {"downgrade"}),
    ],
)
def test_s18_what_weakens_encryption_is_found(
    encrypted: Stage, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, fault: str, found: set[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    encrypted.app = BadApp(fault)
    sign_in = SignIn("/sign-in", name=NAME, password=PASSWORD)
    report = audit(Target(encrypted.url, sign_in=sign_in, protected_path="/me", sign_out_path="/sign-out"))
    assert {finding.id for finding in report.findings} == found, report.findings


def test_nothing_is_asked_of_who_cannot_show_who_they_are(encrypted: Stage) -> None:
    encrypted.app = BadApp()
    with pytest.raises(NotLooked, match=r"certificate .* is not trusted here .* SSL_CERT_FILE"):
        audit(Target(encrypted.url))
    assert encrypted.app.requests == []


PLAIN, SECURE = Origin("http", "app.example", 80), Origin("https", "app.example", 443)


def answered(origin: Origin, status: int, *headers: tuple[str, str]) -> Answer:
    return Answer(origin, "GET", "/", status, headers, "")


def evidence(url: str, plain: Answer | None = None) -> Evidence:
    return Evidence(target=Target(url), now=0, answers=[], plain=plain)


@pytest.mark.parametrize(
    ("url", "plain", "wrong"),
    [
        ("https://app.example", answered(PLAIN, 301, ("location", "https://app.example/")), False),
        ("https://app.example", answered(PLAIN, 200), True),
        ("https://app.example", answered(PLAIN, 301, ("location", "/home")), True),
        ("https://app.example", answered(PLAIN, 301, ("location", "http://www.app.example/")), True),
        ("http://app.example", None, True),
    ],
)
def test_s18_plain_http_leads_to_https_and_does_nothing_else(url: str, plain: Answer | None, wrong: bool) -> None:
    assert bool(answer_looks.plain_http(evidence(url, plain))) is wrong


@pytest.mark.parametrize("url", ["http://localhost:8000", "https://app.example:8443"])
def test_on_this_machine_or_on_another_port_nothing_is_said_about_plain_http(url: str) -> None:
    assert answer_looks.plain_http(evidence(url)) is None


def test_who_names_http_and_is_led_to_https_is_audited_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(self: object, method: str, path: str, headers: object, body: bytes = b"", **more: object) -> Answer:
        asked.append(str(more.get("origin") or getattr(self, "origin")))  # noqa: B009 - it is any Client's
        return answered(PLAIN, 301, ("location", "https://app.example/"))

    monkeypatch.setattr(Client, "ask", ask)
    report = audit(Target("http://app.example"))
    assert report.url == "https://app.example/"
    assert asked[:2] == ["http://app.example", "https://app.example"]
    assert set(asked) == {"http://app.example", "https://app.example"}
