"""JWE: an encrypted token. Only its header can be read."""

from __future__ import annotations

from typing import Any

from coatcheck.inspection.jose import algorithm
from coatcheck.inspection.jwt import size_of, strange_kid
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.reading import base64_octets, is_canonical, json_object
from coatcheck.inspection.report import Finding, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import shown

_MOST_ROUNDS = 1_200_000  # J16


def explain(text: str, _looking: Looking) -> Report | None:
    """Explain a compact JWE."""
    segments = text.split(".")
    octets = base64_octets(segments[0]) if len(segments) == 5 else None
    read = None if octets is None else json_object(octets)
    if read is None or "enc" not in read.members:
        return None
    header = read.members
    found = [finding("json-loose", f"its header: {read.problem}")] if read.problem else []
    if not all(is_canonical(segment) for segment in segments if segment):
        found.append(finding("not-canonical", "it is not written in plain base64url"))
    return Report(
        kind="JWE",
        summary="An encrypted token: only who has the key can read it, and only its header is seen here. "
        "Who made it is not said by that: with a public key, anybody can.",
        facts={name: shown(str(header[name])) for name in ("alg", "enc", "zip", "typ", "cty", "kid") if name in header},
        findings=(*found, *_header(header), *size_of(text)),
    )


def _header(header: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    if header.get("alg") == "RSA1_5":
        found.append(finding("rsa1_5", "alg is RSA1_5"))
    for name in ("alg", "enc"):
        known = algorithm(header.get(name))
        if known is None or known.use != "enc":
            found.append(finding("alg-unknown", f"{name} is {shown(str(header.get(name)))}, which encrypts nothing"))
    if "zip" in header:
        found.append(finding("zip", "its content is compressed"))
    rounds = header.get("p2c", 0)
    if not isinstance(rounds, int) or rounds > _MOST_ROUNDS:
        found.append(finding("p2c", f"it asks for {shown(str(rounds))} rounds"))
    if "crit" in header:
        found.append(finding("crit", "its header has crit"))
    keys = [name for name in ("jku", "jwk", "x5u", "x5c") if name in header]
    if keys:
        found.append(finding("key-in-header", f"its header has {', '.join(keys)}"))
    return [*found, *strange_kid(header)]
