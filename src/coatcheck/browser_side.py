"""BrowserSide: the half of an Exchange that needs no session: cookies, flash messages, where a request comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from coatcheck.clock import Clock
from coatcheck.cookie_jar import MAX_TOGETHER, CookieJar
from coatcheck.core import csrf
from coatcheck.core.claims import Principal
from coatcheck.core.keys import Keyring
from coatcheck.core.policy import Policy
from coatcheck.csrf_tokens import CsrfTokens
from coatcheck.flash import Flash, Flashes
from coatcheck.request_head import Headers, RequestHead


class BrowserSide(ABC):
    """What a request and its response have to do with the browser, whoever is signed in; an Exchange is one."""

    # What most requests leave as it is belongs to the class: nothing is done for it at each of them.
    _jar: CookieJar | None = None
    _flashes: Flashes | None = None
    _ambient = True  # the credential came by itself: browsers add cookies, whoever had them send the request
    _no_store = False
    _looked = False  # whether anybody looked at what came with the request: the response then depends on it (C18)

    def __init__(self, head: RequestHead, policy: Policy, keyring: Keyring, clock: Clock) -> None:
        self.head = head
        self._policy = policy
        self._keyring = keyring
        self._clock = clock

    @property
    def cookies(self) -> CookieJar:
        """The cookies of the request and its response."""
        if self._jar is None:
            self._jar = CookieJar(self.head, self._clock, self._keyring, self._policy)
        return self._jar

    @property
    @abstractmethod
    def principal(self) -> Principal | None:
        """Whom the request acts as, or None."""

    # -- where the request comes from --------------------------------------------------------------------------

    def require_same_site(self) -> None:
        """Refuse an unsafe request that another site made the browser send (F1, F2, F6).

        A request whose credential is in the Authorization header passes: no browser adds that by itself.

        Raises:
            CrossSite
        """
        if not self._ambient or self.head.method in csrf.SAFE_METHODS:
            return
        host = (self.head.value(b"host") or b"").decode("latin-1")
        csrf.judge(
            self.head.method,
            sec_fetch_site=self.head.value(b"sec-fetch-site"),
            origin=self.head.value(b"origin"),
            referer=self.head.value(b"referer"),
            target=f"{self.head.scheme}://{host}",
            trusted=self._policy.trusted_origins,
        )

    def csrf_token(self) -> str:
        """Return a token for a form, to be required where it is sent to (F5).

        It is good for the session that is signed in now, so take it after `sign_in`, and for no other. Where nobody is
        signed in, it is good for this browser, for a day, and a cookie says which one it is.
        """
        self._no_store = True  # who is handed the page from a cache would know somebody else's token
        return self._csrf_tokens().issue(self._session_id())

    def require_csrf_token(self, text: str | None) -> None:
        """Refuse the request unless it carries a token that `csrf_token` returned to its sender.

        This is for browsers that do not say where a request comes from; `require_same_site` has judged the others. A
        request whose credential is in the Authorization header passes without a token.

        Args:
            text: what the form had; None if it had none.

        Not checked: which form it was made for, and whether it was used before.

        Raises:
            CrossSite: there is no token, it is another session's or browser's, or from before the sign-in.
        """
        if self._ambient:
            self._csrf_tokens().judge(self._session_id(), text)

    # -- flash messages ----------------------------------------------------------------------------------------

    def flash(self, message: str, category: str = "") -> None:
        """Keep a message for the next page that this browser shows, for an hour at most; no session is made for it.

        If somebody is signed in when the response leaves, nobody else will see it in this browser.

        Args:
            message: plain text.
            category: a word for how to show it, such as "error".

        Raises:
            InvalidValue: it is too long: `coatcheck.flash.MAX_MESSAGE`.
        """
        self._all_flashes().add(message, category)

    def take_flashes(self) -> list[Flash]:
        """Return the messages that wait for whoever sees this page, the oldest first; they are not shown again.

        Not checked: that the page arrives. Two pages that load at the same moment may both show a message.
        """
        taken = self._all_flashes().take(self._subject())
        self._no_store |= bool(taken)
        return taken

    # -- inside ------------------------------------------------------------------------------------------------

    def _with_cookies(self, jar: CookieJar, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return a response's headers with the cookies of the jar among them, and with the flash messages."""
        if self._flashes:
            self._flashes.send(self._subject())
        elif jar and jar.together() > MAX_TOGETHER:
            self._all_flashes().make_room()
        self._no_store |= jar.confidential
        self._looked |= bool(jar) or jar.accessed
        return jar.dress(headers) if jar else list(headers)

    def _all_flashes(self) -> Flashes:
        if self._flashes is None:
            self._flashes = Flashes(self.cookies, self._policy.flash_cookie, self._clock)
        return self._flashes

    def _csrf_tokens(self) -> CsrfTokens:
        return CsrfTokens(self.cookies, self._policy.csrf_cookie, self._keyring)

    def _subject(self) -> str | None:
        return self.principal.subject if self.principal else None

    def _session_id(self) -> str | None:
        return self.principal.session_id if self.principal else None
