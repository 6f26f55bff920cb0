"""Security Event Tokens: the shapes of the CAEP specification are read and built; each broken clause is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from coatcheck.core import jws
from coatcheck.core import security_event as events
from coatcheck.core.keys import Key, Keyring
from coatcheck.core.security_event import CredentialChange, SecurityEvent, SessionRevoked, TokenClaimsChange
from coatcheck.errors import BadSignature, ConfigurationError, InvalidValue, Malformed, WrongClaim

IDP, OTHER_IDP, THIRD_IDP = (f"https://idp.example.com/{name}/" for name in ("123456789", "987654321", "3456789"))
SP, SP2 = "https://sp.example.com/caep", "https://sp.example2.net/caep"
NOW, THEN = 1_615_305_159, 1_615_304_991
RING = Keyring.generate("Ed25519")

# The values of the examples in CAEP 1.0, sections 3.1 to 3.3; the texts for people are our own.
SESSION = {"format": "opaque", "id": "dMTlD|1600802906337.16|16008.16"}
TENANT = {"format": "opaque", "id": "123456789"}
USER = {"format": "iss_sub", "iss": IDP, "sub": "99beb27c-c1c2-4955-882a-e0dc4996fcbc"}
DEVICE = {"format": "iss_sub", "iss": IDP, "sub": "e9297990-14d2-42ec-a4a9-4036db86509a"}
JWT_ID = {"format": "jwt_id", "iss": OTHER_IDP, "jti": "f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7"}
SAML = {"format": "saml_assertion_id", "issuer": OTHER_IDP, "assertion_id": "_a75adf55-01d7-dbd8372ebdfc"}
JANE = {"format": "iss_sub", "iss": THIRD_IDP, "sub": "jane.smith@example.com"}
WHY = {
    "initiating_entity": "policy",
    "reason_admin": {"en": "too fast"},
    "reason_user": {"en": "seen in two places", "es-410": "visto en dos lugares"},
    "event_timestamp": THEN,
}
FIDO = {
    "credential_type": "fido2-roaming",
    "change_type": "create",
    "fido2_aaguid": "accced6a-63f5-490a-9eea-e59bc1896cfc",
    "friendly_name": "a key on a ring",
    "initiating_entity": "user",
    "reason_admin": {"en": "added by its owner"},
    "event_timestamp": THEN,
}


def token(iss: str, aud: str, jti: str, sub_id: dict[str, Any], kind: str, event: dict[str, Any]) -> dict[str, Any]:
    return {
        "iss": iss,
        "jti": jti,
        "iat": NOW,
        "aud": aud,
        "txn": "8675309",
        "sub_id": sub_id,
        "events": {"https://schemas.openid.net/secevent/caep/event-type/" + kind: event},
    }


FIRST, SECOND, THIRD = (
    "24c63fb56e5a2d77a6b512616ca9fa24",
    "9afce1e4e642b165fcaacdd0e7aa4903",
    "07efd930f0977e4fcc1149a733ce7f78",
)
REVOKED = token(
    IDP,
    SP,
    FIRST,
    {"format": "complex", "session": SESSION, "user": USER, "tenant": TENANT},
    "session-revoked",
    WHY,
)
GOLDEN = {
    "session revoked, simple": token(IDP, SP, FIRST, SESSION, "session-revoked", {"event_timestamp": THEN}),
    "session revoked, complex": REVOKED,
    "session revoked, device": {**REVOKED, "sub_id": {"format": "complex", "user": USER, "device": DEVICE}},
    "claims change, ID token": token(
        OTHER_IDP,
        SP2,
        SECOND,
        JWT_ID,
        "token-claims-change",
        {"event_timestamp": THEN, "claims": {"role": "ro-admin"}},
    ),
    "claims change, optional": token(
        OTHER_IDP, SP2, SECOND, JWT_ID, "token-claims-change", {**WHY, "claims": {"trusted_network": False}}
    ),
    "claims change, SAML": token(
        OTHER_IDP, SP2, SECOND, SAML, "token-claims-change", {"event_timestamp": THEN, "claims": {"role": "ro-admin"}}
    ),
    "credential change": token(THIRD_IDP, SP2, THIRD, JANE, "credential-change", FIDO),
}


def judged(members: dict[str, Any] | bytes, *, now: float = NOW, leeway: int = 0, audience: str = SP) -> SecurityEvent:
    payload = members if isinstance(members, bytes) else json.dumps(members).encode()
    return events.judge(payload, issuer=IDP, audience=audience, now=now, leeway=leeway)


def with_event(**changes: Any) -> dict[str, Any]:
    """Return the golden token with its event changed; None takes a member away."""
    event = {name: value for name, value in {**WHY, **changes}.items() if value is not None}
    return {**REVOKED, "events": {events.SESSION_REVOKED: event}}


@pytest.mark.parametrize("name", GOLDEN)
def test_r7_the_examples_of_the_specification_are_read_and_built_as_they_are(name: str) -> None:
    """R6, R7: each example is accepted, nothing in it is lost, and from its parts the same token is built."""
    golden = GOLDEN[name]
    found = events.judge(json.dumps(golden).encode(), issuer=golden["iss"], audience=golden["aud"], now=NOW, leeway=0)
    ((kind, details),) = golden["events"].items()
    assert (found.iss, found.aud, found.jti, found.iat, found.txn) == tuple(
        golden[name] for name in ("iss", "aud", "jti", "iat", "txn")
    )
    assert (found.sub_id, found.type) == (golden["sub_id"], kind)
    assert msgspec.to_builtins(found.event) == details
    assert isinstance(found.event, SessionRevoked)
    rebuilt = events.build(
        issuer=found.iss,
        audience=golden["aud"],
        token_id=found.jti,
        issued_at=NOW,
        transaction_id=found.txn or "",
        sub_id=found.sub_id,
        type=found.type,
        event=found.event,
    )
    assert json.loads(rebuilt) == golden


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "another issuer": ("iss", {"iss": "https://idp.example.com"}),
    "another issuer by a slash": ("iss", {"iss": IDP.rstrip("/")}),
    "another audience": ("aud", {"aud": "https://else.example"}),
    "an audience like ours": ("aud", {"aud": SP + "/"}),
    "no audience in the list": ("aud", {"aud": []}),
    "only others in the list": ("aud", {"aud": ["https://else.example"]}),
    "an audience that is no text": ("aud", {"aud": [SP, 1]}),
    "an empty jti": ("jti", {"jti": ""}),
    "a long jti": ("jti", {"jti": "x" * 256}),
    "a future iat": ("iat", {"iat": NOW + 1}),
    "an iat that is text": ("iat", {"iat": str(NOW)}),
    "an iat that is true": ("iat", {"iat": True}),
    "an empty txn": ("txn", {"txn": ""}),
    "a null txn": ("txn", {"txn": None}),
    "a sub": ("sub", {"sub": "99beb27c"}),
    "a null sub": ("sub", {"sub": None}),
    "an exp": ("exp", {"exp": NOW + 900}),
    "a null exp": ("exp", {"exp": None}),
    "no event": ("events", {"events": {}}),
    "two events": ("events", {"events": {**REVOKED["events"], events.CREDENTIAL_CHANGE: FIDO}}),
    "two unknown events": ("events", {"events": {"https://a.example/1": {}, "https://a.example/2": {}}}),
    "events in a list": ("events", {"events": [REVOKED["events"]]}),
    "an event that is no object": ("events", {"events": {events.SESSION_REVOKED: True}}),
    "an unknown event that is no object": ("events", {"events": {"https://a.example/1": "x"}}),
    "a time that is text": ("events", with_event(event_timestamp=str(THEN))),
    "a time in the future": ("events", with_event(event_timestamp=NOW + 1)),
    "an unknown initiator": ("events", with_event(initiating_entity="nobody")),
    "a reason that is text": ("events", with_event(reason_admin="too fast")),
    "a reason in no language": ("events", with_event(reason_admin={})),
    "a reason that is empty": ("events", with_event(reason_user={"en": ""})),
    "a reason that is a number": ("events", with_event(reason_user={"en": 1})),
    "a reason under what is no language": ("events", with_event(reason_user={"in English": "x"})),
    "a reason under a language and a line": ("events", with_event(reason_user={"en\n": "x"})),
    "a change of no claims": ("events", {"events": {events.TOKEN_CLAIMS_CHANGE: {"claims": {}}}}),
    "a change without claims": ("events", {"events": {events.TOKEN_CLAIMS_CHANGE: {"event_timestamp": THEN}}}),
    "a credential of no type": ("events", {"events": {events.CREDENTIAL_CHANGE: {"change_type": "create"}}}),
    "a credential in an unknown change": (
        "events",
        {"events": {events.CREDENTIAL_CHANGE: {**FIDO, "change_type": "lost"}}},
    ),
    "a subject that is text": ("sub_id", {"sub_id": "alice"}),
    "a subject without format": ("sub_id", {"sub_id": {"iss": IDP, "sub": "alice"}}),
    "a subject with a format that is no text": ("sub_id", {"sub_id": {"format": 1, "id": "x"}}),
    "a subject without its issuer": ("sub_id", {"sub_id": {"format": "iss_sub", "sub": "alice"}}),
    "a subject with an empty name": ("sub_id", {"sub_id": {"format": "iss_sub", "iss": IDP, "sub": ""}}),
    "a subject with a number": ("sub_id", {"sub_id": {"format": "opaque", "id": 7}}),
    "a complex subject of nobody": ("sub_id", {"sub_id": {"format": "complex"}}),
    "a complex subject in another": (
        "sub_id",
        {"sub_id": {"format": "complex", "user": {"format": "complex", "user": USER}}},
    ),
    "a complex subject with text in it": ("sub_id", {"sub_id": {"format": "complex", "user": "alice"}}),
    "a complex subject with half a user": (
        "sub_id",
        {"sub_id": {"format": "complex", "session": SESSION, "user": {"format": "iss_sub", "iss": IDP}}},
    ),
    "aliases of nobody": ("sub_id", {"sub_id": {"format": "aliases", "identifiers": []}}),
    "aliases in aliases": (
        "sub_id",
        {"sub_id": {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [USER]}]}},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_r6_a_token_with_one_broken_clause_is_refused_for_that_clause(name: str) -> None:
    claim, changes = BROKEN[name]
    assert judged(REVOKED).jti == FIRST
    with pytest.raises(WrongClaim) as caught:
        judged({**REVOKED, **changes})
    assert caught.value.claim == claim


@pytest.mark.parametrize("name", ["iss", "aud", "jti", "iat", "sub_id", "events"])
def test_r6_a_required_claim_cannot_be_missing_or_null(name: str) -> None:
    for members in ({k: v for k, v in REVOKED.items() if k != name}, {**REVOKED, name: None}):
        with pytest.raises(WrongClaim) as caught:
            judged(members)
        assert caught.value.claim == name


@pytest.mark.parametrize("name", ["event_timestamp", "initiating_entity", "reason_admin", "reason_user"])
def test_r7_what_an_event_may_lack_it_may_lack_but_not_have_as_null(name: str) -> None:
    assert getattr(judged(with_event(**{name: None})).event, name) is UNSET
    with pytest.raises(WrongClaim):
        judged({**REVOKED, "events": {events.SESSION_REVOKED: {**WHY, name: None}}})


def test_j15_a_member_named_twice_is_refused() -> None:
    payload = json.dumps(REVOKED).encode()
    for twice in (b'"jti": "x", "jti"', b'"session": {"format": "opaque", "id": "y"}, "jti"'):
        assert judged(payload.replace(b'"jti"', b'"j": 1, "jti"', 1)).jti == FIRST
        with pytest.raises(Malformed):
            judged(payload.replace(b'"jti"', twice + b': "z", "jti"', 1))
    with pytest.raises(Malformed):
        judged(payload.replace(b'"initiating_entity"', b'"initiating_entity": "user", "initiating_entity"', 1))


def test_r6_a_txn_is_not_demanded_of_others_for_the_framework_does_not() -> None:
    assert judged({k: v for k, v in REVOKED.items() if k != "txn"}).txn is None


def test_r8_an_event_or_a_subject_of_a_kind_that_we_do_not_know_is_accepted_and_revokes_nobody() -> None:
    unknown = judged({**REVOKED, "events": {"https://a.example/event": {"event_timestamp": "noon"}}})
    assert (unknown.event, unknown.revokes()) == ({"event_timestamp": "noon"}, (None, None))
    catalogue = judged({**REVOKED, "sub_id": {"format": "catalog_item", "catalog_id": "c0384"}})
    assert catalogue.revokes() == (None, None)


def test_r6_members_that_nobody_knows_are_ignored() -> None:
    found = judged({**with_event(colour="red"), "toe": THEN, "colour": "red"})
    assert found.event == judged(REVOKED).event


@pytest.mark.parametrize(("state", "members"), [(UNSET, {}), ("asked for", {"state": "asked for"})])
def test_r10_a_verification_event_says_what_was_asked_and_revokes_nobody(state: Any, members: dict[str, str]) -> None:
    """Shared Signals Framework 1.0, section 8.1.4.1."""
    stream = {"format": "opaque", "id": "a stream"}
    names: dict[str, Any] = {"issuer": IDP, "audience": SP, "token_id": "1", "issued_at": NOW, "transaction_id": "2"}
    event = events.Verification(state=state)
    payload = events.build(**names, sub_id=stream, type=events.VERIFICATION, event=event)
    assert json.loads(payload)["events"] == {events.VERIFICATION: members}
    found = events.judge(payload, issuer=IDP, audience=SP, now=NOW, leeway=0)
    assert (found.event, found.sub_id, found.revokes()) == (event, stream, (None, None))
    for wrong in (events.Verification(state=""), events.Verification(state="x" * 2049), SessionRevoked()):
        with pytest.raises(InvalidValue):
            events.build(**names, sub_id=stream, type=events.VERIFICATION, event=wrong)


@pytest.mark.parametrize("sub_id", [USER, JANE, SESSION, JWT_ID, SAML, {"format": "aliases", "identifiers": [USER]}])
def test_the_formats_of_rfc_9493_and_of_the_framework_are_known(sub_id: dict[str, Any]) -> None:
    """One of their members missing is one too few."""
    assert judged({**REVOKED, "sub_id": sub_id}).sub_id == sub_id
    for name in sub_id.keys() - {"format"}:
        with pytest.raises(WrongClaim):
            judged({**REVOKED, "sub_id": {k: v for k, v in sub_id.items() if k != name}})


def test_the_leeway_is_granted_to_its_end() -> None:
    assert judged(REVOKED, now=NOW - 60, leeway=60).iat == NOW
    for now, leeway in ((NOW - 60, 59), (float("nan"), 0)):
        with pytest.raises(WrongClaim):
            judged(with_event(event_timestamp=None), now=now, leeway=leeway)


@pytest.mark.parametrize("leeway", [-1, 61])
def test_j13_a_leeway_out_of_bounds_is_a_mistake_of_the_caller(leeway: int) -> None:
    with pytest.raises(ConfigurationError):
        judged(REVOKED, leeway=leeway)


# -- ours


def built(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "issuer": IDP,
        "audience": SP,
        "token_id": "event-1",
        "issued_at": NOW,
        "transaction_id": "incident-1",
        "sub_id": events.subject(IDP, session_id="session-1", subject="alice"),
        "type": events.SESSION_REVOKED,
        "event": SessionRevoked(event_timestamp=THEN, initiating_entity="user"),
    }
    return events.build(**{**arguments, **changes})


def test_r6_our_own_token_has_exactly_these_claims() -> None:
    assert json.loads(built()) == {
        "iss": IDP,
        "aud": SP,
        "jti": "event-1",
        "iat": NOW,
        "txn": "incident-1",
        "sub_id": {
            "format": "complex",
            "session": {"format": "opaque", "id": "session-1"},
            "user": {"format": "iss_sub", "iss": IDP, "sub": "alice"},
        },
        "events": {events.SESSION_REVOKED: {"event_timestamp": THEN, "initiating_entity": "user"}},
    }
    assert json.loads(built(audience=[SP, SP2]))["aud"] == [SP, SP2]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ""},
        {"audience": ""},
        {"audience": []},
        {"audience": [SP, ""]},
        {"token_id": ""},
        {"transaction_id": ""},
        {"issued_at": -1},
        {"sub_id": {}},
        {"sub_id": {"format": "iss_sub", "sub": "alice"}},
        {"sub_id": {"format": "opaque", "id": {1, 2}.__iter__()}},
        {"type": "https://a.example/event"},
        {"type": events.CREDENTIAL_CHANGE},
        {"event": SessionRevoked(event_timestamp=NOW + 1)},
        {"event": SessionRevoked(reason_user={})},
        {"event": TokenClaimsChange(claims={"role": "guest"})},
        {"event": SessionRevoked(reason_user={"in English": "x"})},
        {"type": events.TOKEN_CLAIMS_CHANGE, "event": TokenClaimsChange(claims={})},
        {
            "type": events.CREDENTIAL_CHANGE,
            "event": CredentialChange(credential_type="password", change_type="lost"),  # type: ignore[arg-type]
        },
    ],
)
def test_what_would_be_refused_elsewhere_is_not_built(changes: dict[str, Any]) -> None:
    assert built()
    with pytest.raises(InvalidValue):
        built(**changes)


@pytest.mark.parametrize(("session_id", "name"), [("session-1", "alice"), ("session-1", None), (None, "alice")])
def test_whom_we_name_is_whom_the_receiver_signs_out(session_id: str | None, name: str | None) -> None:
    sub_id = events.subject(IDP, session_id=session_id, subject=name)
    assert judged(built(sub_id=sub_id)).revokes() == (session_id, name)


def test_an_event_about_nobody_is_not_built() -> None:
    with pytest.raises(InvalidValue):
        events.subject(IDP)


@pytest.mark.parametrize(
    "changes",
    [
        {"sub_id": {"format": "complex", "session": SESSION, "user": {**USER, "iss": OTHER_IDP}}},
        {"sub_id": {**USER, "iss": OTHER_IDP}},
        {"sub_id": {"format": "complex", "user": USER, "device": DEVICE}},
        {"sub_id": {"format": "complex", "session": USER}},
        {"sub_id": {"format": "aliases", "identifiers": [USER]}},
        {"sub_id": {"format": "email", "email": "alice@example.com"}},
        {"events": {events.TOKEN_CLAIMS_CHANGE: {"claims": {"role": "guest"}}}},
    ],
)
def test_nobody_else_is_signed_out(changes: dict[str, Any]) -> None:
    """A subject that another issuer named, or that a further member narrows down, is not ours to widen."""
    sub_id = {"format": "complex", "session": SESSION, "user": USER}
    assert judged({**REVOKED, "sub_id": sub_id}).revokes() == (SESSION["id"], USER["sub"])
    assert judged({**REVOKED, "sub_id": sub_id, **changes}).revokes() == (None, None)


def test_r6_a_signed_event_is_of_its_own_kind_and_of_its_signer() -> None:
    """RFC 8417, 2.3 and J14: typ secevent+jwt, and nothing else is taken for it."""
    signed = events.sign(built(), RING.signing_key())
    arguments: dict[str, Any] = {"issuer": IDP, "audience": SP, "now": NOW, "leeway": 0}
    assert jws.parse(signed).header["typ"] == "secevent+jwt"
    assert events.verify(signed, RING, **arguments).revokes() == ("session-1", "alice")
    with pytest.raises(BadSignature):
        events.verify(events.sign(built(), Key.generate("Ed25519")), RING, **arguments)
    for typ in ("at+jwt", "logout+jwt", "JWT", "statuslist+jwt"):
        with pytest.raises(WrongClaim) as caught:
            events.verify(jws.sign(built(), RING.signing_key(), typ=typ), RING, **arguments)
        assert caught.value.claim == "typ"
        with pytest.raises(WrongClaim):
            jws.verify(signed, RING, typ=typ)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*REVOKED, "sub", "exp"]), PLAIN, st.sampled_from([*WHY]), PLAIN)
def test_whatever_comes_is_judged_or_refused_and_nothing_else_escapes(
    claim: str, value: Any, member: str, detail: Any
) -> None:
    for members in ({**REVOKED, claim: value}, {**REVOKED, "sub_id": {**REVOKED["sub_id"], "user": value}}):
        with suppress(WrongClaim, Malformed):
            assert len(judged(members).revokes()) == 2
    with suppress(WrongClaim, Malformed):
        judged(with_event(**{member: detail}))
