"""What names give away: of cookies, of members, of parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from coatcheck.inspection.looking import Role

_CREDENTIAL: Final = re.compile(
    r"sess|auth(?!or(?!i))|token|jwt|login|logged|signed?.?in|remember|refresh|access(?!ib|or)|identity|ticket|"
    r"(?<![a-z])sid(?![a-z])|[a-z]sessid|connect\.sid|api.?key|aspnetcore\.cookies",
    re.IGNORECASE,
)
_READ_BY_SCRIPTS: Final = re.compile(r"csrf|xsrf", re.IGNORECASE)

# Called like a credential, and none: members and parameters of OAuth.
HARMLESS: Final = frozenset({"token_type", "token_type_hint", "access_type", "access", "state", "nonce"})

# Secrets that are in tutorials, in the documentation of frameworks and at the top of every list of guesses; the empty
# one is what a setting is that nobody has made. The two long ones are in the documentation of FastAPI and of Flask.
KNOWN_SECRETS: Final = (
    "", "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "secret", "secretkey", "secret_key", "secret-key", "SECRET_KEY", "mysecret", "my_secret", "mysecretkey",
    "my-secret-key", "supersecret", "super-secret", "super_secret_key", "super-secret-key", "change", "changeme",
    "change-me", "change_me", "changeit", "password", "passw0rd", "admin", "test", "dev", "development", "key",
    "private", "default", "qwerty", "123456", "12345678", "1234567890", "s3cr3t", "jwt", "jwtsecret", "jwt_secret",
    "jwt-secret", "your-256-bit-secret", "your-384-bit-secret", "your-512-bit-secret", "your-secret-key",
    "your_secret_key", "your-secret", "shhhhh", "keyboard cat", "notasecret", "insecure", "example",
    "a-string-secret-at-least-256-bits-long", "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    "a sufficiently long secret", "CHANGE_ME", "TOPSECRET", "thisisasecret",
)  # fmt: skip

# Names of members, in small letters and without any other signs.
_HIDDEN_NAMES: Final = """
    password passwd pwd passphrase secret clientsecret apikey apisecret privatekey accesskey secretkey creditcard
    cardnumber cvv cvc pin totpsecret otpsecret
"""
_PERSONAL_NAMES: Final = """
    email emailaddress mail phone phonenumber mobile birthdate birthday dateofbirth dob address street postalcode
    zipcode name fullname givenname familyname middlename firstname lastname surname nickname gender ssn nationalid
    passport taxid iban username preferredusername ip ipaddress
"""
_SIGNED_IN_NAMES: Final = """
    userid user uid authuserid account accountid sub subject loggedin signedin isauthenticated authenticated login
    email username role roles isadmin admin
"""
_HIDDEN: Final = frozenset(_HIDDEN_NAMES.split())
_PERSONAL: Final = frozenset(_PERSONAL_NAMES.split())
_SIGNED_IN: Final = frozenset(_SIGNED_IN_NAMES.split())

# The kinds of reports that are about a credential, whatever it is called.
CREDENTIAL_KINDS: Final = (
    "access token", "refresh token", "session token", "ID token", "JWT", "JWE", "coatcheck session cookie",
    "coatcheck sealed session", "coatcheck refresh token", "itsdangerous session", "Django session",
    "Express signed value",
)  # fmt: skip


def role_of(name: str) -> Role:
    """Say what the value of a cookie or parameter of this name is used for."""
    return "credential" if _CREDENTIAL.search(name) and not for_scripts(name) else "anything"


def for_scripts(name: str) -> bool:
    """Say whether a cookie of this name is for scripts to read: the tokens that forms and scripts send back."""
    return _READ_BY_SCRIPTS.search(name) is not None


def secrets_among(names: Iterable[str]) -> list[str]:
    """Return the names under which a password or a key is kept."""
    return [name for name in names if _plain(name) in _HIDDEN]


def personal_among(names: Iterable[str]) -> list[str]:
    """Return the names of what says something about a person."""
    return [name for name in names if _plain(name) in _PERSONAL]


def says_who(names: Iterable[str]) -> bool:
    """Say whether one of these names is of what tells who is signed in."""
    return any(_plain(name) in _SIGNED_IN for name in names)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
