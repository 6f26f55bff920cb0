"""CSRF tokens of one exchange: what they are bound to, where somebody is signed in and where nobody is (F5, F6)."""

from __future__ import annotations

import secrets

from coatcheck.cookie_jar import CookieJar
from coatcheck.core import csrf
from coatcheck.core.keys import Keyring
from coatcheck.core.own_cookies import SignedCookie
from coatcheck.errors import CrossSite


class CsrfTokens:
    """Issues and judges the tokens of forms.

    A token is bound to the session of whoever is signed in. Where nobody is, as on the page that signs in, it is bound
    to a random id in a cookie of its own: an anonymous session would be made for everyone who looks at that page.

    Args:
        jar: the cookies of the request.
        kind: the cookie of that id.
        keyring: what tokens are made with.
    """

    __slots__ = ("_jar", "_keyring", "_kind")

    def __init__(self, jar: CookieJar, kind: SignedCookie, keyring: Keyring) -> None:
        self._jar = jar
        self._kind = kind
        self._keyring = keyring

    def issue(self, session_id: str | None) -> str:
        """Return a token for the session, or, if that is None, for this browser; its cookie is then sent anew."""
        bound = session_id
        if bound is None:
            visit = self._jar.read(self._kind) or secrets.token_urlsafe(16)
            self._jar.send(self._kind, visit)
            bound = _visit(visit)
        return csrf.issue_token(self._keyring.derive("csrf")[0], bound, secrets.token_bytes(csrf.TOKEN_NONCE))

    def judge(self, session_id: str | None, text: str | None) -> None:
        """Return if `text` is a token that was issued for the session, or, if that is None, for this browser.

        Raises:
            CrossSite: it is not, or there is none.
        """
        bound = session_id
        if bound is None:
            visit = self._jar.read(self._kind)
            bound = None if visit is None else _visit(visit)
        if bound is None or not text:
            raise CrossSite("this needs a CSRF token")
        key, *retired = self._keyring.derive("csrf")
        csrf.judge_token(key, bound, text, retired=retired)


def _visit(id: str) -> str:
    # No session's id looks like this, so a token of a visit is never one of a session.
    return f"visit {id}"
