"""What a caller who does not check types hands in is refused at once, in words, and never kept."""

import asyncio
from typing import Any, cast

import pytest
from starlette.requests import Request

from coatcheck import Coatcheck, ConfigurationError, InvalidValue, Key, KeyFile, MemoryStore, Policy, Sealed
from coatcheck.core.record import pack
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.web.asgi import exchange

WRONG_PARTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"store": "sqlite:///sessions.db"}, "store_from_url"),
    ({"keyring": KeyFile("keys.json")}, "open()"),
    ({"policy": {"idle": 30}}, "a Policy"),
)
WRONG_POLICIES: tuple[dict[str, Any], ...] = (
    {"idle": 30},
    {"absolute": None},
    {"cookie": "sid"},
    {"max_data": "1"},
    {"issuer": 4},
    {"trusted_origins": "https://shop.example"},
)


@pytest.mark.parametrize(("parts", "words"), WRONG_PARTS)
def test_a_part_of_another_kind_is_refused_at_the_start(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Coatcheck(**parts)
    assert words in str(raised.value)


def test_a_wrapper_that_hands_every_call_on_is_a_store() -> None:
    """For isinstance() it is one on Python 3.11 only."""

    class Wrapper:
        def __getattr__(self, name: str) -> Any:
            return getattr(MemoryStore(), name)

    wrapper: Any = Wrapper()
    assert Coatcheck(wrapper).store is wrapper


@pytest.mark.parametrize("values", WRONG_POLICIES)
def test_a_policy_names_the_value_that_is_of_another_kind(values: dict[str, Any]) -> None:
    [name] = values
    with pytest.raises(ConfigurationError, match=name):
        Policy(**values)


def test_a_policy_keeps_its_own_copy_of_the_listed_origins() -> None:
    origins = ["https://shop.example"]
    policy = Policy(trusted_origins=cast("frozenset[str]", origins))
    origins.append("*")
    assert policy.trusted_origins == frozenset({"https://shop.example"})


@pytest.mark.parametrize("subject", [None, 42, b"ann", ""])
def test_nobody_signs_in_and_nobody_is_signed_out_as_what_is_no_subject(subject: Any) -> None:
    coat = Coatcheck()
    visit = run(Exchange.begin(RequestHead("POST", "https", []), coat.sessions, coat.verifier))
    for work in (visit.sign_in(subject), coat.sessions.revoke_all(subject)):
        with pytest.raises(InvalidValue):
            run(work)
    assert visit.session.record is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cart": ["umbrella"]}, "pack"),
        ({b"cart": pack(1)}, "key"),
        ({1: pack(1)}, "key"),
        ({"\ud800": pack(1)}, "key"),
    ],
)
def test_first_data_that_could_not_be_read_again_is_never_stored(data: Any, words: str) -> None:
    store = MemoryStore()
    with pytest.raises(InvalidValue, match=words):
        run(Coatcheck(store).sessions.create("ann", data=data))
    assert run(store.list("ann")) == []


@pytest.mark.parametrize("wrong", [{"persistent": "on"}, {"persistent": None}, {"began_at": 1.7e12}])
@pytest.mark.parametrize("store", [MemoryStore(), Sealed()], ids=["stored", "sealed"])
def test_no_session_is_made_that_another_process_could_not_read(store: Any, wrong: dict[str, Any]) -> None:
    """This one would know it again as it was made here."""
    coat = Coatcheck(store)
    visit = run(Exchange.begin(RequestHead("POST", "https", []), coat.sessions, coat.verifier))
    signed_in = run(Exchange.begin(RequestHead("POST", "https", []), coat.sessions, coat.verifier))
    run(signed_in.sign_in("ann"))
    for each in (visit, signed_in):
        before = each.session.record
        with pytest.raises(InvalidValue):
            run(each.sign_in("ann", **wrong))
        assert each.session.record is before


def test_text_is_no_secret_and_the_error_says_so() -> None:
    with pytest.raises(ConfigurationError, match="bytes, not text"):
        Key.from_secret(cast("bytes", "secret"))


def test_without_the_middleware_exchange_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match="add_middleware"):
        exchange(Request({"type": "http"}))


class BrokenStore(MemoryStore):
    """Somebody else's, with an error of its driver's own."""

    def __init__(self) -> None:
        super().__init__()
        self.swept_twice = asyncio.Event()
        self._sweeps = 0

    async def sweep(self, now: int) -> int:
        self._sweeps += 1
        if self._sweeps == 2:
            self.swept_twice.set()
        raise ValueError("not an error of ours")


@pytest.mark.anyio
async def test_a_store_that_cannot_be_swept_is_swept_again_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.compose._SWEEP_EVERY_SECONDS", 0)
    store = BrokenStore()
    async with Coatcheck(store) as coat:
        await store.swept_twice.wait()
        assert coat.is_open
    assert not coat.is_open
