"""What `coatcheck doctor` looks at of a server: its settings, its directory and its keys."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from coatcheck.cli.diagnosis import Diagnosis, reason_of
from coatcheck.clock import system_clock
from coatcheck.errors import CoatcheckError, ConfigurationError
from coatcheck.inspection.jwk import judge
from coatcheck.server.ends import there
from coatcheck.server.places import places_of
from coatcheck.server.settings import Settings
from coatcheck.stored_ring import StoredKey

_PROXIES: Final = "FORWARDED_ALLOW_IPS"
_SECONDS: Final = 3.0
_OLD_KEY: Final = timedelta(days=365)
_KEPT: Final = timedelta(days=1)  # what a retired key has signed has ended after an hour
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def issuer(settings: Settings) -> Diagnosis:
    """Say whether the address that browsers and services are given answers."""
    url = urlsplit(settings.url)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=_SECONDS)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _silent(settings, error)
    finally:
        connection.close()
    if status != 200:
        words = (
            f"{settings.url}/livez answers {status}: something else is there, or the proxy does not reach the server"
        )
        return Diagnosis("issuer", "attention", words, "let the address lead to `coatcheck serve`")
    return Diagnosis("issuer", "fine", f"a server answers at {settings.url}")


def address(settings: Settings) -> Diagnosis:
    """Say whether browsers that reach the server keep its cookies."""
    if settings.secure:
        return Diagnosis("Secure cookies", "fine", f"browsers are to come by https: {settings.url}")
    if settings.host in _LOOPBACK:
        return Diagnosis("Secure cookies", "fine", "plain http, and on this machine only: browsers keep Secure cookies")
    return Diagnosis(
        "Secure cookies",
        "attention",
        f"it listens on {settings.host}, for other machines too, and is called {settings.url}: over plain http "
        "browsers drop Secure cookies of every host but localhost, so nobody elsewhere stays signed in",
        "put it behind https, and set COATCHECK_ISSUER to its public address",
    )


def proxies(settings: Settings, environment: Mapping[str, str]) -> Diagnosis:
    """Say whether a proxy's word about clients is taken, and no stranger's."""
    trusted = environment.get(_PROXIES, "")
    if any(each.strip() == "*" or each.strip().endswith("/0") for each in trusted.split(",")):
        words = f"{_PROXIES} is {trusted}: every client can say that it comes from another address"
        return Diagnosis("proxy headers", "attention", words, f"set {_PROXIES} to the proxy's address")
    if settings.secure and not trusted:
        words = (
            f"the issuer is https, so a proxy stands before the server, and {_PROXIES} is not set: all visitors seem "
            "to come from the proxy's address, and share one limit of attempts to sign in"
        )
        return Diagnosis("proxy headers", "attention", words, f"set {_PROXIES} to the proxy's address")
    if trusted and not settings.secure:
        words = f"{_PROXIES} is set, and the issuer is {settings.url}: behind a proxy it is the public address"
        return Diagnosis("proxy headers", "attention", words, "set COATCHECK_ISSUER to https://...")
    return Diagnosis(
        "proxy headers", "fine", f"believed from {trusted}" if trusted else "no proxy, and none is believed"
    )


def secret(settings: Settings) -> Diagnosis:
    """Say whether the keys in a shared store are sealed under a good secret."""
    if not settings.shared:
        return Diagnosis("secret", "not looked at", "the store is not shared: keys are in a file")
    if not settings.secret:
        words = "COATCHECK_SECRET is not set: `coatcheck serve` does not start with a shared store"
        fix = (
            'make one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"; apps without the server need none'
        )
        return Diagnosis("secret", "attention", words, fix)
    try:
        count = len(settings.secrets)
    except ConfigurationError as error:
        return Diagnosis("secret", "broken", str(error), "make a new one, and put it before the old one")
    if count > 1:
        words = f"there are {count}: the first one seals"
        return Diagnosis("secret", "fine", words)
    return Diagnosis("secret", "fine", "there is one, and it is long enough")


def directory(settings: Settings) -> Diagnosis:
    """Say whether the data directory is there, and ours alone."""
    if settings.shared:
        return Diagnosis("data directory", "not looked at", "the store is shared: there is none")
    try:
        status = settings.data_dir.stat()
    except FileNotFoundError:
        return Diagnosis("data directory", "not looked at", f"{settings.data_dir} is not there: no server has run here")
    except OSError as error:
        return Diagnosis("data directory", "broken", f"{settings.data_dir}: {error.strerror}", "let it be readable")
    if status.st_mode & 0o077:
        words = f"{settings.data_dir} may be read by others, and holds keys"
        return Diagnosis("data directory", "broken", words, f"chmod 700 {settings.data_dir}")
    if not os.access(settings.data_dir, os.R_OK | os.W_OK | os.X_OK):
        words = f"{settings.data_dir} cannot be written by who runs this"
        return Diagnosis("data directory", "broken", words, "run this, and the server, as its owner")
    return Diagnosis("data directory", "fine", f"{settings.data_dir} is readable by its owner alone")


async def keys(settings: Settings) -> list[Diagnosis]:
    """Say whether the keys can be read, are strong, and are changed now and then."""
    if settings.shared and not settings.secret:
        return [Diagnosis("keys", "not looked at", "without COATCHECK_SECRET they cannot be read")]
    try:
        if not settings.shared and not there(settings.key_file):
            return [Diagnosis("keys", "not looked at", f"there are none in {settings.data_dir}")]
        places = places_of(settings)
        try:
            if settings.shared:
                await places.documents.open()
            stored = await places.keys.stored()
            if stored is None:
                return [Diagnosis("keys", "not looked at", "there are none in the store: `coatcheck serve` makes them")]
            if weak := _weak(stored.keys):
                return weak
            stored.keyring("the keyring")  # refuses what else the server refuses
            return _ages(stored.keys)
        finally:
            await places.documents.close()
    except CoatcheckError as error:
        fix = "`coatcheck serve` refuses them too; keys that are lost are made anew, and sign everybody out"
        return [Diagnosis("keys", "broken", str(error), fix)]


def _weak(found: list[StoredKey]) -> list[Diagnosis]:
    return [
        Diagnosis("keys", "broken", f"the {key.role} key {key.jwk.get('kid', '')}: {each.seen}: {each.why}", each.fix)
        for key in found
        for each in judge(key.jwk)
        if each.severity == "high"
    ]


def _ages(found: list[StoredKey]) -> list[Diagnosis]:
    now, wrong = system_clock(), list[Diagnosis]()
    for key in found:
        kid = key.jwk.get("kid", "")
        if key.role == "signing" and now - key.made_at > _OLD_KEY // timedelta(milliseconds=1):
            words = f"the key {kid} was made {(now - key.made_at) // 86_400_000} days ago, and signs still"
            wrong.append(Diagnosis("keys", "attention", words, "coatcheck keys rotate"))
        if key.role == "retired" and now - key.retired_at > _KEPT // timedelta(milliseconds=1):
            words = (
                f"the key {kid} was retired {(now - key.retired_at) // 86_400_000} days ago, and still verifies: "
                "what it has signed has long ended"
            )
            wrong.append(Diagnosis("keys", "attention", words, "coatcheck keys rotate: it forgets those"))
    words = ", ".join(f"{key.role} {key.jwk.get('alg', '')}" for key in found)
    return wrong or [Diagnosis("keys", "fine", words)]


def _silent(settings: Settings, error: Exception) -> Diagnosis:
    words = f"nobody answers at {settings.url}: {reason_of(error)}"
    if isinstance(error, socket.gaierror):
        words = f"{settings.url} has no address"
    if not settings.issuer:
        return Diagnosis("issuer", "not looked at", f"{words}; is the server running?")
    return Diagnosis("issuer", "attention", words, "start the server, or set COATCHECK_ISSUER to its public address")
