"""The table of all rules. A rule is one line of what ought to be, and what to do where it is not.

Rows are those of docs/requirements.md, ASVS is OWASP ASVS 5.0.0. Severities mean what they mean in `coatcheck inspect`:

high      somebody can act as somebody else, or see what is not theirs
medium    a defence is missing
low       worth doing
note      good to know
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from coatcheck.audit import answer_looks, cookie_looks, inspected
from coatcheck.audit.evidence import Evidence
from coatcheck.inspection.report import Finding, Severity

Seen = Sequence[str | Finding] | None
Look = Callable[[Evidence], Seen]

_COOKIE: Final = "a session cookie, which most applications set at the sign-in"
_SIGN_IN: Final = "--sign-in-path, an account"
_OPENS: Final = "--sign-in-path, an account, --protected-path"
_OUT: Final = "--sign-in-path, an account, --sign-out-path"
_ALL: Final = "--sign-in-path, an account, --protected-path, --sign-out-path"
_PAGE: Final = "a page in HTML"
_TLS: Final = "an address with https"


class Rule(NamedTuple):
    """What ought to be, how it is looked at, and what to say where it is not so.

    `look` returns what was seen that is wrong, or None if there was nothing to look at; `needs` says what it takes,
    "" if nobody would miss it.
    """

    id: str
    severity: Severity
    row: str
    asvs: str
    good: str
    look: Look
    needs: str
    why: str
    fix: str


def trial(name: str) -> Look:
    """Return the look at the trials of one name, each of which ought to have failed."""

    def look(evidence: Evidence) -> list[str] | None:
        trials = evidence.trials.get(name)
        return None if trials is None else [each.seen for each in trials if each.worked]

    return look


def _others_cookie(evidence: Evidence) -> Seen:
    """Of two cookies one is picked, and browsers let others set it."""
    found = trial("two cookies")(evidence)
    return [] if found and _is_host_only(evidence) else found


def _own_cookie(evidence: Evidence) -> Seen:
    """Of two cookies one is picked, and browsers let nobody else set it."""
    return trial("two cookies")(evidence) if _is_host_only(evidence) else None


def _is_host_only(evidence: Evidence) -> bool:
    return all(name.lower().startswith("__host-") for name in evidence.session_names)


# fmt: off
RULES: Final[tuple[Rule, ...]] = (
    # -- the sign-in, tried
    Rule("unprotected", "high", "S5", "7.2.1", "the protected path is shut to visitors",
         trial("protected"), "--protected-path",
         "whoever knows the address sees what is for users only",
         "ask for a session on the server, before anything else is done"),
    Rule("unsigned-token", "high", "J3", "9.1.2", "a token that nobody has signed is refused",
         trial("unsigned token"), "--protected-path",
         "anybody can write such a token, in anybody's name",
         "verify with a list of algorithms that does not hold none"),
    Rule("changed-value", "high", "S5", "9.1.1", "a session cookie or token that was changed is refused",
         trial("changed value"), _OPENS,
         "not all of it is checked, so what is left to guess or to write by oneself is enough",
         "compare the whole id in constant time; verify the signature before anything else is read"),
    Rule("id-in-address", "medium", "S17", "14.2.1", "no address opens anything by a session id in it",
         trial("id in address"), _OPENS,
         "a link can plant the attacker's session, and an address that opens is in histories, logs and Referer",
         "read session ids from the cookie only"),
    Rule("token-in-address", "medium", "O16", "14.2.1", "no address opens anything by an access token in it",
         trial("token in address"), "a token in the body of the sign-in's answer, and a protected path",
         "whoever finds the address in a history, a log or a Referer has the token",
         "read tokens from the Authorization header only; clients must not put them elsewhere (RFC 9700, 4.3.2)"),
    Rule("sign-in-by-get", "medium", "F4", "14.2.1", "nobody is signed in by an address with a password in it",
         trial("sign-in by GET"), _SIGN_IN,
         "the password is in histories, logs and Referer, and a link signs a user in to the attacker's account",
         "sign in by POST only, and read name and password from its body"),
    Rule("fixation", "high", "S4", "7.2.4", "the session has a new id after the sign-in, and the old one opens nothing",
         trial("old id"), _SIGN_IN,
         "who planted or saw the id before the sign-in is signed in with the victim",
         "make a new session id at each sign-in, and end the old one"),
    Rule("chosen-id", "high", "S3", "7.2.4", "an id that the client made up is not adopted",
         trial("chosen id"), _SIGN_IN,
         "who plants an id of their own making shares the session of whoever signs in",
         "take only ids that the server has made; for an unknown one make a fresh one"),
    Rule("two-cookies", "medium", "C13", "", "no second session cookie from elsewhere counts",
         _others_cookie, _OPENS,
         "a sibling domain can add a cookie of this name, and the user works in the attacker's session",
         "refuse a request with two, and call the cookie __Host-..."),
    Rule("two-cookies-host", "low", "C13", "", "of two session cookies of one name, none is picked",
         _own_cookie, "",
         "browsers let nobody else set this name, but which one counts is up to the order they are sent in",
         "refuse a request with two"),
    Rule("look-alike", "medium", "C9", "", "a name that only looks like the session cookie's is not taken for it",
         trial("look-alike"), _OPENS,
         "a look-alike is not bound by the prefix of the real name, so others can set it",
         "compare the octets of the name; trim no more than spaces and tabs, and unquote nothing"),
    Rule("cross-origin-reads", "high", "F7", "3.4.2", "scripts of other origins cannot read what is the user's",
         trial("cors"), _SIGN_IN,
         "each site that a user visits can read this with the user's own cookies",
         "answer Access-Control-Allow-Origin with a listed origin only; never echo the request's, nor null"),
    Rule("open-redirect", "medium", "F12", "3.7.2", "nobody is sent on to an address of another site",
         trial("open redirect"), _SIGN_IN,
         "a link to your sign-in ends on a page of the attacker's, which asks for the password again",
         "follow only paths on your own origin, or listed addresses"),
    Rule("forged-sign-in", "medium", "F6", "3.5.1", "another site cannot sign the browser in",
         trial("forged sign-in"), _SIGN_IN,
         "another site can sign a user in to the attacker's account, who then reads what is entered there",
         "refuse Sec-Fetch-Site: cross-site and same-site; without it, an Origin that is not yours, null as well"),
    Rule("forged-sign-out", "medium", "F6", "3.5.1", "another site cannot sign the browser out",
         trial("forged sign-out"), _OUT,
         "what another site can do here it can do to all that is changed the same way; SameSite spares sibling domains",
         "refuse Sec-Fetch-Site: cross-site and same-site; without it, an Origin that is not yours, null as well"),
    Rule("sign-out-by-get", "medium", "F4", "3.5.3", "no link and no image signs anybody out",
         trial("sign-out by GET"), _OUT,
         "a link, an image or a prefetch is enough to change something",
         "sign out by POST only"),
    Rule("alive-after-sign-out", "high", "S10", "7.4.1", "a credential is dead after the sign-out",
         trial("after sign-out"), _ALL,
         "a copy of the cookie or token stays good, whatever the browser has forgotten",
         "end the session on the server; end its tokens by a list of what was revoked"),
    # -- cookies
    Rule("session-cookie", "medium", "C7", "3.3.1", "the session cookie's Set-Cookie lines are sound",
         inspected.session_cookies, _COOKIE, "", ""),
    Rule("other-cookie", "low", "C7", "3.3.1", "the other cookies' Set-Cookie lines are sound",
         inspected.other_cookies, "a cookie besides the session's", "", ""),
    Rule("for-every-site", "medium", "F8", "3.3.2", "the session cookie does not go with the requests of other sites",
         cookie_looks.for_every_site, _COOKIE,
         "it goes with every request that another site makes the browser send",
         "write SameSite=Lax, or Strict"),
    Rule("long-session", "low", "S8", "7.3.2", "the session cookie lasts for 30 days at most",
         cookie_looks.lifetime, _COOKIE,
         "who finds a browser or its backup is signed in for as long",
         "30 days are the most that NIST's AAL1 allows; better, let it end with the browser"),
    Rule("guessable-id", "high", "S1", "7.2.3", "session ids of two sign-ins are not alike",
         cookie_looks.guessable, _SIGN_IN,
         "who has one session's id finds those of others",
         "take 16 random octets or more: secrets.token_urlsafe(32)"),
    Rule("name-in-cookie", "medium", "C16", "14.3.3", "no cookie says who somebody is",
         cookie_looks.personal, "a cookie",
         "whoever sees the cookie, or a log of it, reads who it is",
         "put an opaque id into the cookie, and keep the rest on the server"),
    Rule("cookie-set-twice", "low", "C2", "", "no answer sets one cookie twice",
         cookie_looks.repeated, "a cookie",
         "which of the lines counts depends on their order, which proxies may change",
         "collect cookies, and write each name once"),
    Rule("many-octets", "medium", "C15", "", "all cookies together are small",
         cookie_looks.sum_of_sizes, "a cookie",
         "servers refuse a request whose headers have more than about 8192 octets, and then nothing works",
         "keep data on the server; set fewer cookies"),
    Rule("session-for-visitors", "note", "S21", "7.6.2", "who only looks gets no session",
         cookie_looks.for_visitors, _PAGE,
         "each visit and each robot costs a record in the store, and caches cannot keep the page",
         "make a session when there is something to keep in it"),
    Rule("several-applications", "note", "C20", "3.5.4", "there is one application on this host",
         cookie_looks.several_applications, "a cookie",
         "neither path nor port keeps cookies apart: each application can read and set the others'",
         "give each application a host name of its own"),
    Rule("cookie-left-behind", "medium", "C6", "7.4.1", "the sign-out takes the session cookie back",
         cookie_looks.not_taken_back, _OUT,
         "the cookie stays in the browser, for the next user or for a script to find",
         "send it once more with the same name, Path, Domain, flags, and Max-Age=0"),
    Rule("session-stored", "medium", "C18", "14.3.2", "no cache keeps an answer that sets a session cookie",
         answer_looks.set_cookie_stored, _COOKIE,
         "a cache that keeps the answer hands one user's session to the next",
         "send Cache-Control: no-store with it"),
    Rule("answer-shared", "medium", "C18", "14.2.2", "what is the user's own is kept for nobody else",
         answer_looks.protected_stored, _OPENS,
         "a cache on the way may give one user's page to another",
         "send Cache-Control: no-store or private, and Vary: Cookie"),
    # -- tokens
    Rule("token", "medium", "J20", "9.2.2", "the tokens are sound",
         inspected.tokens, "a token in the body of the sign-in's answer", "", ""),
    Rule("token-for-scripts", "high", "O24", "3.3.4", "no script can read a token",
         answer_looks.tokens_for_scripts, "a token in a cookie",
         "a script that gets into the page reads it, and uses it elsewhere",
         "add HttpOnly, or keep tokens on the server"),
    Rule("keys", "medium", "J19", "11.6.1", "the published keys are sound, and public",
         inspected.jwks, "/.well-known/jwks.json", "", ""),
    Rule("challenge", "low", "O16", "", "an answer 401 says how to do better",
         answer_looks.challenge, "a protected path that answers 401 to visitors",
         "clients cannot tell an expired token from a missing one, nor what to present",
         'send WWW-Authenticate: Bearer, with error="invalid_token" if there was a token, and no error if not'),
    # -- on the way, and in the page
    Rule("plain-http", "high", "S18", "12.2.1", "nothing is served without encryption",
         answer_looks.plain_http, f"{_TLS} on port 443, or any other host than this machine",
         "who is on the way reads and changes everything, cookies as well",
         "answer plain http with a redirect to https, and nothing else"),
    Rule("downgrade", "medium", "S18", "12.2.1", "no redirect leads from https to http",
         answer_looks.downgrade, _TLS,
         "the next request goes without encryption, with all cookies that have no Secure",
         "build redirects with the scheme that the browser uses; behind a proxy take it from the proxy"),
    Rule("no-hsts", "medium", "S18", "3.4.1", "browsers are told to keep to https",
         answer_looks.no_hsts, _TLS,
         "the first request of a visit can be made without encryption, and be taken over",
         "send Strict-Transport-Security: max-age=31536000; includeSubDomains with every answer"),
    Rule("short-hsts", "low", "S18", "3.4.1", "browsers are told so for a year, and for subdomains",
         answer_looks.short_hsts, _TLS,
         "it ends between two visits, or leaves out a subdomain that can set cookies for this one",
         "send Strict-Transport-Security: max-age=31536000; includeSubDomains"),
    Rule("no-policy", "medium", "F10", "3.4.3", "pages have a Content-Security-Policy",
         answer_looks.no_policy, _PAGE,
         "a script that gets into the page does whatever the user can",
         "send Content-Security-Policy, beginning with default-src 'self'; object-src 'none'; base-uri 'none'"),
    Rule("weak-policy", "low", "F10", "3.4.3", "the policy keeps scripts of strangers out",
         answer_looks.weak_policy, "a page with a policy",
         "the policy does not stop the scripts it is there for",
         "name your own sources, with nonces or hashes for inline scripts; add object-src 'none'; base-uri 'none'"),
    Rule("framed", "medium", "F10", "3.4.6", "no site can show the pages in a frame",
         answer_looks.framing, _PAGE,
         "another site shows the page under its own, and has the user click on it unseen",
         "add frame-ancestors 'none' to Content-Security-Policy"),
    Rule("sniffed", "low", "F10", "3.4.4", "browsers do not guess what an answer is",
         answer_looks.sniffing, "an answer",
         "a browser may take a text for a script or a page",
         "send X-Content-Type-Options: nosniff with every answer"),
    Rule("referrer", "low", "F10", "3.4.5", "other sites do not hear the whole address",
         answer_looks.referrer, _PAGE,
         "addresses say what a user looks at, and some have secrets in them",
         "send Referrer-Policy: same-origin, or strict-origin-when-cross-origin"),
    Rule("secret-in-address", "high", "S17", "14.2.1", "no session id and no token is in an address",
         answer_looks.id_in_address, "an answer",
         "an address is in the browser's history, in logs of servers and proxies, and in the next request's Referer",
         "send it in a cookie, in a header, or in the body of a POST"),
    Rule("secret-in-body", "medium", "S17", "3.3.4", "the session cookie's value is in no body",
         answer_looks.id_in_body, _COOKIE,
         "scripts read it there, whatever HttpOnly says",
         "send it in Set-Cookie only"),
    Rule("password-repeated", "high", "S17", "16.5.1", "the password is in no answer",
         answer_looks.password_in_answer, "an account, with a password of 6 characters or more",
         "caches, logs and scripts can read it",
         "leave the password field empty when the form is shown again"),
    Rule("insides", "medium", "J17", "16.5.1", "errors do not show what is inside",
         answer_looks.insides, "an answer",
         "paths, versions and queries in a stack trace tell an attacker what to try next",
         "switch the debug mode off; answer with a page that says little, and log the rest"),
    Rule("breaks", "low", "J17", "16.5.4", "nothing that was sent broke the application",
         answer_looks.breaks, "an answer",
         "an error that nobody has thought of may leave things half done",
         "refuse what cannot be read with 400 or 401; take a cookie that is none for no cookie"),
    Rule("versions", "note", "", "13.4.6", "no header names a program's version",
         answer_looks.versions, "an answer",
         "a version tells which known flaws to try",
         "leave the version out"),
)
# fmt: on
