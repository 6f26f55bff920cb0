"""coatcheck: sessions, cookies and tokens for Python web apps.

A session is kept by the server, a cookie is the ticket to it, a token is signed proof of it; all three are
credentials of the same session, and all three die with it. The names stand in the order in which a reader
needs them.
"""

from __future__ import annotations

from coatcheck.compose import Coatcheck
from coatcheck.cookie_jar import CookieJar
from coatcheck.core.claims import Claims, Principal
from coatcheck.core.cookies import Cookie
from coatcheck.core.keys import Key, Keyring
from coatcheck.core.own_cookies import SealedCookie, SignedCookie
from coatcheck.core.policy import Policy
from coatcheck.core.revocation import Revocations
from coatcheck.core.session import Session
from coatcheck.errors import (
    BadSignature,
    CoatcheckError,
    ConfigurationError,
    Conflict,
    CredentialError,
    CrossSite,
    Expired,
    Insufficient,
    InvalidValue,
    Malformed,
    Missing,
    Reused,
    Revoked,
    SessionGone,
    StoreUnavailable,
    Superseded,
    TooManySessions,
    WrongClaim,
)
from coatcheck.exchange import Exchange
from coatcheck.flash import Flash
from coatcheck.issuer import Grant
from coatcheck.keyfile import KeyFile
from coatcheck.sealed_sessions import Sealed, SealedSessions
from coatcheck.sessions import Sessions
from coatcheck.stores.file import FileStore
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.verifier import Verifier

__version__ = "0.1.0"

__all__ = [
    "BadSignature",
    "Claims",
    "Coatcheck",
    "CoatcheckError",
    "ConfigurationError",
    "Conflict",
    "Cookie",
    "CookieJar",
    "CredentialError",
    "CrossSite",
    "Exchange",
    "Expired",
    "FileStore",
    "Flash",
    "Grant",
    "Insufficient",
    "InvalidValue",
    "Key",
    "KeyFile",
    "Keyring",
    "Malformed",
    "MemoryStore",
    "Missing",
    "Policy",
    "Principal",
    "Reused",
    "Revocations",
    "Revoked",
    "SQLiteStore",
    "Sealed",
    "SealedCookie",
    "SealedSessions",
    "Session",
    "SessionGone",
    "Sessions",
    "SignedCookie",
    "StoreUnavailable",
    "Superseded",
    "TooManySessions",
    "Verifier",
    "WrongClaim",
]
