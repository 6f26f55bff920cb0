"""The documentation shows what is true: its examples run, its links lead somewhere, and its names exist."""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

import coatcheck

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted([README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))])
PAGES += sorted((ROOT / "docs").rglob("*.md"))

FENCE = re.compile(
    r"^(?:<!-- (?P<remark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
NAMED = re.compile(r"^\| `(?P<name>(?:coatcheck\.)?[A-Za-z_.\d]+)(?P<arguments>\(.*?\))?` \|", re.MULTILINE)


class Block:
    """A fenced block of a page."""

    def __init__(self, page: Path, found: re.Match[str]) -> None:
        self.page = page
        self.language = found["language"]
        self.text = found["text"]
        self.remark = found["remark"] or ""
        self.line = page.read_text(encoding="utf-8")[: found.start("text")].count("\n") + 1

    def __repr__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.remark.startswith("not run: ")

    def saved(self) -> str:
        """Return where the block is a file."""
        path = Path("pasted.py")
        path.write_text(self.text, encoding="utf-8")
        return str(path)

    def execute(self) -> dict[str, Any]:
        """Run the block as pasted, with line numbers of the page, and return what it defines."""
        module = sys.modules["pasted"] = ModuleType("pasted")  # Litestar asks for the module of its handlers
        try:
            exec(compile("\n" * (self.line - 1) + self.text, str(self.page), "exec"), vars(module))  # noqa: S102
        finally:
            del sys.modules["pasted"]
        return vars(module)


def blocks(language: str) -> list[Block]:
    found = (Block(page, match) for page in PAGES for match in FENCE.finditer(page.read_text(encoding="utf-8")))
    return [block for block in found if block.language == language]


def quickstart() -> Block:
    [block] = [block for block in blocks("python") if block.remark == "quickstart"]
    return block


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples write where they stand, and have the variables that their pages set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEED_TOKEN", "a-feed-token-for-what-is-shown-on-a-page")
    monkeypatch.setenv("SESSION_SECRET", secrets.token_hex(32))


# -- the quickstart --------------------------------------------------------------------------------------------------


def test_the_quickstart_has_twelve_lines_of_code_at_most() -> None:
    lines = [line for line in quickstart().text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 12


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A browser with a jar, on the quickstart's app, over https."""
    with TestClient(quickstart().execute()["app"], base_url="https://app.example") as client:
        yield client


def test_the_quickstart_signs_in_with_a_cookie_and_a_token_of_the_same_session(client: TestClient) -> None:
    answer = client.post("/sign-in?name=ann")
    assert answer.headers["set-cookie"].startswith("__Host-session=")
    assert client.get("/me").json() == "ann"
    client.cookies.clear()
    assert client.get("/me", headers={"authorization": f"Bearer {answer.json()['token']}"}).json() == "ann"


def test_the_quickstart_answers_401_without_a_credential(client: TestClient) -> None:
    answer = client.get("/me")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_the_quickstart_signs_out_everywhere(client: TestClient) -> None:
    phone = client.post("/sign-in?name=ann").json()["token"]
    client.cookies.clear()
    token = client.post("/sign-in?name=ann").json()["token"]
    stolen = client.cookies["__Host-session"]
    assert client.post("/sign-out-everywhere").json() == 2
    client.cookies.clear()
    presented = [{"authorization": f"Bearer {each}"} for each in (phone, token)]
    presented.append({"cookie": f"__Host-session={stolen}"})
    for headers in presented:
        answer = client.get("/me", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "revoked")


# -- every example ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for block in blocks("python") if block.runs], ids=repr)
def test_every_example_runs(block: Block) -> None:
    if "settings.configure(" in block.text:  # Django: one set of settings in a process
        program = [sys.executable, "-W", "error", block.saved()]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return
    block.execute()
    gc.collect()  # what an example leaves open is reported here, and not in a test that comes later


def test_few_examples_are_not_run_and_each_says_why() -> None:
    left_out = [block for block in blocks("python") if not block.runs]
    assert len(left_out) < 5
    assert all(len(block.remark) > len("not run: ") for block in left_out)


def test_every_block_says_what_it_is() -> None:
    """A block of an unknown language would escape the tests above."""
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    languages = {match["language"] for text in pages for match in FENCE.finditer(text)}
    assert languages <= {"python", "console", "sh", ""}
    assert all(text.count("\n```") % 2 == 0 for text in pages)


CONTRACT = """
import pytest
from coatcheck.testing import StoreContract
from pasted import DictStore

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
class TestDictStore(StoreContract):
    @pytest.fixture
    async def store(self):
        store = DictStore()
        await store.open()
        yield store
        await store.close()
"""


def test_the_store_of_the_how_to_keeps_the_contract(tmp_path: Path) -> None:
    """The page says so."""
    [block] = [block for block in blocks("python") if "class DictStore" in block.text]
    (tmp_path / "pasted.py").write_text(block.text, encoding="utf-8")
    (tmp_path / "test_contract.py").write_text(CONTRACT, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ("--disable-plugin-autoload", "-p", "anyio.pytest_plugin", "-p", "no:cacheprovider", "-q")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_r8_the_receiver_of_the_how_to_answers_as_the_rfc_says() -> None:
    """202, also for an event of a kind that it does not know, or 400 and the word for what is wrong (RFC 8935)."""
    from coatcheck import Key
    from coatcheck.core import jws
    from coatcheck.core import security_event as events

    [block] = [block for block in blocks("python") if "async def events(request)" in block.text]
    names = block.execute()

    def answer(key: Key = names["signing"], **changes: Any) -> tuple[int, str]:
        members = {"iss": names["ISSUER"], "aud": names["US"], "jti": "1", "iat": 1, "txn": "2"}
        sub_id = events.subject(names["ISSUER"], session_id="ann's")
        claims = {**members, "sub_id": sub_id, "events": {events.SESSION_REVOKED: {}}, **changes}
        token = jws.sign(json.dumps(claims).encode(), key, typ="secevent+jwt")
        found = TestClient(names["app"]).post("/events", content=token)
        return found.status_code, "" if found.status_code == 202 else found.json()["err"]

    assert answer() == (202, "")
    assert names["signed_out"] == ["ann's"]
    assert answer(events={"https://example.com/another": {}}) == (202, "")
    assert answer(key=Key.generate("RS256")) == (400, "invalid_key")
    assert answer(iss="https://else.example") == (400, "invalid_issuer")
    assert answer(aud="https://else.example") == (400, "invalid_audience")
    assert answer(exp=2) == (400, "invalid_request")
    assert TestClient(names["app"]).post("/events", content=b"nonsense").json()["err"] == "invalid_request"


# -- links and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = [target for target in links(page) if not leads_somewhere(page, target)]
    assert dead == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [README]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            waiting += [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()


def links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [match["target"] for match in LINK.finditer(text) if "://" not in match["target"]]


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.is_relative_to(ROOT) and file.exists() and (not anchor or anchor in anchors(file))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
LIBRARY = REFERENCE.partition("## HTTP API")[0]
NAMES = [(match["name"], match["arguments"]) for match in NAMED.finditer(LIBRARY)]


@pytest.mark.parametrize(("name", "arguments"), NAMES, ids=[name for name, _ in NAMES])
def test_the_reference_has_names_and_signatures_of_the_code(name: str, arguments: str | None) -> None:
    found = resolve(name)
    if arguments is not None:
        assert shape(arguments) == shape_of(found)


def test_the_reference_names_everything_that_is_public() -> None:
    missing = [name for name in coatcheck.__all__ if not re.search(rf"`{name}\b", LIBRARY)]
    assert missing == []
    methods = [
        f"{owner.__name__}.{name}"
        for owner in (coatcheck.Coatcheck, coatcheck.Sessions, coatcheck.Exchange, coatcheck.KeyFile)
        for name, member in vars(owner).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, classmethod))
    ]
    assert [name for name in methods if f"`{name}(" not in LIBRARY] == []


def resolve(name: str) -> Any:
    words = name.split(".")
    found: Any = coatcheck
    for place, word in enumerate(words[1:] if words[0] == "coatcheck" else words):
        if words[0] == "coatcheck" and inspect.ismodule(found) and not hasattr(found, word):
            found = importlib.import_module(".".join(words[: place + 2]))
        else:
            found = getattr(found, word)
    return found


Shape = dict[str, tuple[str, object]]


def shape(arguments: str) -> Shape:
    """Return each parameter of a written signature: its kind, and its default; `...` is one that is not spelled out."""
    [function] = ast.parse(f"def f{arguments}: ...").body
    assert isinstance(function, ast.FunctionDef)
    spec = function.args
    positional = [None] * (len(spec.args) - len(spec.defaults)) + list(spec.defaults)
    found = {each.arg: ("positional", _written(default)) for each, default in zip(spec.args, positional, strict=True)}
    for each, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        found[each.arg] = ("keyword", _written(default))
    if spec.kwarg is not None:
        found[spec.kwarg.arg] = ("keywords", inspect.Parameter.empty)
    return found


def _written(default: ast.expr | None) -> object:
    return inspect.Parameter.empty if default is None else ast.literal_eval(default)


def shape_of(callable_: Any) -> Shape:
    kinds: Mapping[Any, str] = {
        inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
        inspect.Parameter.KEYWORD_ONLY: "keyword",
        inspect.Parameter.VAR_KEYWORD: "keywords",
    }
    parameters = [each for each in inspect.signature(callable_).parameters.values() if each.name != "self"]
    return {each.name: (kinds[each.kind], _default(each.default)) for each in parameters}


def _default(default: object) -> object:
    """Return a default as the page may spell it: what is no literal, or reads badly, is `...`."""
    spelled = default is None or default == () or isinstance(default, bool | int | str)
    return default if spelled or default is inspect.Parameter.empty or isinstance(default, tuple) else ...


# -- the server ------------------------------------------------------------------------------------------------------


def test_the_reference_names_every_route_of_the_api(tmp_path: Path) -> None:
    from receiving import settings
    from starlette.routing import Route

    from coatcheck.server import feed_endpoint
    from coatcheck.server.api import open_routes, routes
    from coatcheck.server.server import Server
    from coatcheck.server.settings import Settings
    from coatcheck.server.ssf_endpoint import SsfEndpoint
    from coatcheck.server.status_endpoint import StatusEndpoint

    server = Server(Settings(data_dir=tmp_path, ssf_receivers=settings(), status_ttl=timedelta(seconds=10)))
    assert server.status_lists is not None
    border = [*SsfEndpoint(server).routes, *StatusEndpoint(server.status_lists).routes]
    there = {
        f"{method} {route.path}"
        for route in [*routes, *open_routes, *border]
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    } | {f"GET {path}" for path in feed_endpoint.PATHS}
    told = set(re.findall(r"^\| `((?:GET|POST|DELETE|PUT) [^`]+)` \|", REFERENCE, re.MULTILINE))
    assert told == there


def test_the_pages_name_every_setting() -> None:
    from coatcheck.server.settings import SETTINGS

    for page in (REFERENCE, (ROOT / "docs" / "how-to" / "run-the-server.md").read_text(encoding="utf-8")):
        for flag, variable in SETTINGS.values():
            assert not flag or f"`{flag}`" in page
            assert f"`{variable}`" in page


def test_the_reference_names_every_command() -> None:
    from coatcheck.cli import main

    there = {" ".join(command.words) for command in main._COMMANDS}
    told = set(re.findall(r"^\| `coatcheck ([a-z]+(?: [a-z]+)?)\b", REFERENCE, re.MULTILINE))
    assert told == there


def test_threats_names_files_that_exist() -> None:
    named = set(
        re.findall(r"`([a-z_]+(?:/[a-z_]*)?(?:\.py)?)` ?[,|]", (ROOT / "docs" / "threats.md").read_text("utf-8"))
    )
    files = {name for name in named if name.endswith((".py", "/"))}
    assert len(files) > 20
    assert {name for name in files if not (ROOT / "src" / "coatcheck" / name).exists()} == set()


# The journey's `curl`, for machines without one: as much of it as the journey asks for.
CURL = """#!{python}
import sys, urllib.error, urllib.request
arguments = iter(sys.argv[1:])
url, body, headers = "", None, dict()
for each in arguments:
    if each == "--json":
        body = next(arguments).encode()
        headers["content-type"] = "application/json"
    elif each == "-H":
        name, _, value = next(arguments).partition(": ")
        headers[name] = value
    elif each != "-s":
        url = each
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body, headers))
except urllib.error.HTTPError as error:
    answer = error
print(answer.read().decode())
"""


def test_the_journey_through_the_api(tmp_path: Path) -> None:
    """The README's shell block, as pasted but for the port: signed in, refreshed, signed out, refused."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "curl").write_text(CURL.format(python=sys.executable), encoding="utf-8")
    (tools / "curl").chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "COATCHECK_DATA_DIR": str(tmp_path / "data"),
        "COATCHECK_PORT": "0",
    }
    coatcheck_ = [sys.executable, "-m", "coatcheck.cli"]
    account = [*coatcheck_, "accounts", "add", "ann", "--password-stdin"]
    subprocess.run(account, input="four words of my own\n", text=True, env=environment, check=True, capture_output=True)
    with subprocess.Popen(
        [*coatcheck_, "serve"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = next(found[1] for line in server.stdout if (found := re.search(r"listening on .* port (\d+)", line)))
            [journey] = blocks("sh")
            pasted = journey.text.replace("localhost:8000", f"localhost:{port}")
            done = subprocess.run(["sh", "-euc", pasted], env=environment, capture_output=True, text=True, check=True)
        finally:
            server.terminate()
    session, ended, refused = done.stdout.splitlines()
    assert '"account":"ann"' in session
    assert ended == '{"ended":1}'
    assert '"code":"revoked"' in refused
