"""Done-when 4: `audit` finds nothing in ours: the server, and an application with an adapter, sealed or not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import NAME, PASSWORD, Served, cli
from stage import Stage, stage

from coatcheck import Coatcheck, MemoryStore, Sealed
from coatcheck.audit import SignIn, Target, audit

__all__ = ["stage"]  # a fixture: pytest finds it by this name

_APP = Path(__file__).parents[1] / "scenarios" / "apps" / "starlette.py"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("audit")
    made = cli("accounts", "add", NAME, "--data-dir", str(data), "--password-stdin", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    served = Served(data).ready()
    yield served
    assert served.end() == 0


BY_PAGES = ("--sign-in-path", "/sign-in", "--protected-path", "/account", "--sign-out-path", "/sign-out")
BY_API = ("--sign-in-path", "/api/sign-in", "--protected-path", "/api/session", "--sign-out-path", "/api/sign-out")


@pytest.mark.parametrize("words", [(*BY_PAGES, "--body", "form"), (*BY_API, "--body", "json")], ids=["pages", "api"])
def test_nothing_is_found_in_our_server(served: Served, words: tuple[str, ...]) -> None:
    done = cli(
        "audit", f"http://localhost:{served.port}", *words, "--name", NAME, "--name-field", "account",
        "--password-stdin", "--fail-on", "note", "--json", stdin=f"{PASSWORD}\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["findings"] == []
    assert len(report["good"]) > 30
    assert not any("--" in each["needs"] for each in report["unseen"]), "with these options nothing is left out"
    assert PASSWORD not in done.stdout + done.stderr + "".join(served.logged)


@pytest.mark.parametrize("store", [MemoryStore, Sealed])
def test_nothing_above_low_is_found_in_an_application_with_an_adapter(
    stage: Stage, store: type[MemoryStore | Sealed]
) -> None:
    stage.app = _scenario(Coatcheck(store()))
    sign_in = SignIn("/sign-in?subject=ann", body="json")
    report = audit(Target(stage.url, sign_in=sign_in, protected_path="/me", sign_out_path="/sign-out"))
    assert report.at_or_above("medium") == []
    assert {each.id for each in report.findings} == {"sniffed"}, "its guard is whoever deploys it"
    assert report.sign_ins == 2
    assert len(report.good) > 25


def _scenario(coatcheck: Coatcheck) -> Any:
    spec = importlib.util.spec_from_file_location("scenario_starlette_audited", _APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(coatcheck)
