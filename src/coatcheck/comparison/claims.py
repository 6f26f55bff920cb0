"""The words of the table that everyone is taught: each says no more than the tests that it names prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coatcheck.comparison.kinds import Kind

_SESSIONS: Final = "tests/desks/test_sessions.py"
_SEALED: Final = "tests/desks/test_sealed_sessions.py"
_BOXES: Final = "tests/core/test_sealed_record.py"
_SEALED_WEB: Final = "tests/web/test_sealed_cookies.py"
_ASGI: Final = "tests/web/test_asgi.py"
_TOKENS: Final = "tests/core/test_claims.py"
_REMOTE: Final = "tests/remote/test_hearing.py"
_BROWSER: Final = "tests/browser/test_journey.py"


@dataclass(frozen=True)
class Claim:
    """Words, and the tests that prove them, as `file::name`."""

    words: str
    proofs: tuple[str, ...]


Claims = Mapping[Kind, Claim]

WHAT: Final[Claims] = {
    "session": Claim(
        "a record that the server keeps; the browser has a ticket to it: a random id and secret",
        (f"{_SESSIONS}::test_s1_ids_and_secrets_are_long_and_random",),
    ),
    "sealed": Claim(
        "the same record, encrypted, in the browser's cookie; there is no store",
        (f"{_SEALED}::test_a_session_is_in_its_box_and_nowhere_else",),
    ),
    "token_cookie": Claim(
        "a signed statement who acts and for which session, in a cookie of its own",
        (
            f"{_SESSIONS}::test_j20_an_access_token_speaks_for_the_session",
            f"{_ASGI}::test_tokens_in_cookies_of_their_own",
        ),
    ),
    "bearer": Claim(
        "the same statement, in a header that the client adds itself",
        ("tests/web/test_bearer.py::test_a_token_says_who_is_asking",),
    ),
}

WHERE: Final[Claims] = {
    "session": Claim(
        "data and a hash of the secret: server; the ticket: an HttpOnly cookie",
        (
            "tests/core/test_record.py::test_s2_a_dump_of_the_store_signs_nobody_in",
            f"{_ASGI}::test_c7_the_default_cookie_to_the_letter",
        ),
    ),
    "sealed": Claim(
        "an HttpOnly cookie, or two if the session is large",
        (
            f"{_SEALED_WEB}::test_a_sign_in_gives_one_cookie_with_the_attributes_of_any_session",
            f"{_BOXES}::test_c3_the_largest_session_fits_its_cookies_and_one_octet_more_is_refused",
        ),
    ),
    "token_cookie": Claim(
        "an HttpOnly cookie; the data of its session: server",
        (
            f"{_ASGI}::test_tokens_in_cookies_of_their_own",
            f"{_ASGI}::test_the_session_behind_a_token_can_be_loaded",
        ),
    ),
    "bearer": Claim(
        "wherever the client puts it; no cookie is set. The data: server",
        (
            "tests/server/test_api.py::test_tokens_are_delivered_in_the_body_without_any_cookie",
            f"{_ASGI}::test_the_session_behind_a_token_can_be_loaded",
        ),
    ),
}

SECURITY: Final[Claims] = {
    "session": Claim(
        "a guess is refused, an id of one's own making is never adopted, another site changes nothing with it",
        (
            f"{_SESSIONS}::test_s5_a_guessed_secret_is_refused",
            f"{_SESSIONS}::test_s3_an_unknown_id_is_never_adopted",
            f"{_BROWSER}::test_f6_a_form_on_another_site_signs_nobody_in_or_out",
        ),
    ),
    "sealed": Claim(
        "a changed letter is refused, another site changes nothing with it; an older box can be brought back",
        (
            f"{_BOXES}::test_c17_a_changed_letter_is_refused",
            f"{_SEALED_WEB}::test_f1_other_sites_cannot_use_the_cookie",
            f"{_SEALED}::test_the_limit_an_older_box_can_be_brought_back",
        ),
    ),
    "token_cookie": Claim(
        "a forged one is refused; another site changes nothing with it",
        (
            "tests/advisories/test_tokens.py::test_alg_none_in_every_spelling",
            f"{_ASGI}::test_a_cookie_token_is_judged_for_csrf_and_a_bearer_is_not",
        ),
    ),
    "bearer": Claim(
        "a forged one is refused; no browser sends it by itself, and whoever has it can",
        (
            "tests/advisories/test_tokens.py::test_alg_none_in_every_spelling",
            f"{_ASGI}::test_a_cookie_token_is_judged_for_csrf_and_a_bearer_is_not",
        ),
    ),
}

_PERSISTENT: Final = "tests/comparison/test_claims.py::test_the_lifetimes_in_the_table_are_those_of_the_policy"
_TOKEN_LIFE: Final = Claim(
    "15 minutes; a refresh token, good once, gets the next for as long as the session lives",
    (
        _PERSISTENT,
        f"{_SESSIONS}::test_a_token_never_outlives_its_session",
        f"{_SESSIONS}::test_p5_refresh_rotates_and_a_retry_gets_the_identical_successor",
    ),
)

PERSISTENCE: Final[Claims] = {
    "session": Claim(
        "30 days, or 7 without use; the cookie ends with the browser, unless it is to be remembered",
        (
            _PERSISTENT,
            f"{_SESSIONS}::test_s6_s7_timeouts",
            f"{_BROWSER}::test_c5_only_keep_me_signed_in_survives_the_end_of_the_browser",
        ),
    ),
    "sealed": Claim(
        "30 days, or 7 without use; the cookie ends with the browser, unless it is to be remembered",
        (
            _PERSISTENT,
            f"{_SEALED}::test_s6_s7_timeouts_are_in_the_box",
            f"{_SEALED_WEB}::test_a_persistent_session_s_cookies_all_last_as_long_as_it_does",
        ),
    ),
    "token_cookie": _TOKEN_LIFE,
    "bearer": _TOKEN_LIFE,
}

USE: Final[Claims] = {
    "session": Claim(
        "sites and their APIs; data that several requests change at once",
        (
            f"{_BROWSER}::test_from_the_set_up_link_to_signing_out_everywhere",
            "tests/advisories/test_sessions.py::test_two_writers_of_different_keys_both_win",
        ),
    ),
    "sealed": Claim(
        "the same, without a store; of two who write at once the later answer wins",
        (
            f"{_SEALED}::test_a_session_is_in_its_box_and_nowhere_else",
            f"{_SEALED_WEB}::test_p3_the_limit_of_two_writers_the_later_answer_wins",
        ),
    ),
    "token_cookie": Claim(
        "browsers, at servers that verify without a store",
        (f"{_ASGI}::test_verifying_a_token_asks_no_store",),
    ),
    "bearer": Claim(
        "apps, command lines, and services that have neither store nor private key",
        (f"{_REMOTE}::test_a_token_is_verified_and_its_revocation_reaches_every_verifier_without_a_look_up",),
    ),
}

_SCOPES: Final = f"{_ASGI}::test_scopes_are_required"
_ONE_HOST: Final = "tests/core/test_cookies.py::test_c8_prefix_rules"
_AUDIENCE: Final = f"{_TOKENS}::test_j12_aud_is_the_very_string_or_a_list_that_holds_it"

SCOPE: Final[Claims] = {
    "session": Claim("the scopes of its sign-in; one host (__Host-)", (_SCOPES, _ONE_HOST)),
    "sealed": Claim(
        "the scopes of its sign-in; one host (__Host-), and one cookie of it",
        (_SCOPES, _ONE_HOST, f"{_BOXES}::test_c17_a_box_is_for_one_cookie_only"),
    ),
    "token_cookie": Claim("scopes and audience that stand in it; one host (__Host-)", (_SCOPES, _AUDIENCE, _ONE_HOST)),
    "bearer": Claim("scopes and audience that stand in it; any host of that audience", (_SCOPES, _AUDIENCE)),
}

# The rows of the seed table that are words, in its order.
TAUGHT: Final[Mapping[str, Claims]] = {
    "what it is": WHAT,
    "where stored": WHERE,
    "security": SECURITY,
    "persistence": PERSISTENCE,
    "use": USE,
    "access scope": SCOPE,
}
