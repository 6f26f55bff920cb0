"""The API's description says what the API does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from receiving import settings
from starlette.routing import Route

from coatcheck.server import api
from coatcheck.server.ssf_endpoint import SsfEndpoint
from coatcheck.server.status_endpoint import StatusEndpoint

if TYPE_CHECKING:
    from coatcheck.server.server import Server
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
async def described(client: Client) -> Any:
    answer = await client("GET", "/openapi.json")
    assert answer.header("content-type") == "application/json"
    return answer.json


def _operations(described: Any) -> list[tuple[str, str, Any]]:
    return [
        (method, path, operation) for path, item in described["paths"].items() for method, operation in item.items()
    ]


async def test_it_is_openapi_3_1_for_our_own_address(described: Any) -> None:
    assert described["openapi"] == "3.1.0"
    assert described["servers"] == [{"url": "http://localhost:8000"}]
    assert described["info"]["version"]


async def test_every_route_is_described_and_everything_described_is_a_route(
    described: Any, make_server: Callable[..., Awaitable[Server]]
) -> None:
    server = await make_server(ssf_receivers=settings(), status_ttl=timedelta(seconds=10))
    assert server.status_lists is not None
    at_the_border = [*SsfEndpoint(server).routes, *StatusEndpoint(server.status_lists).routes]
    routes = [route for route in (*api.routes, *api.open_routes, *at_the_border) if isinstance(route, Route)]
    served = {
        (method.lower(), route.path) for route in routes for method in route.methods or () if method != "HEAD"
    } - {("get", "/openapi.json")}
    assert {(method, path) for method, path, _ in _operations(described)} == served


async def test_every_reference_leads_somewhere(described: Any) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            here = [node["$ref"]] if "$ref" in node else []
            return here + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    found = references(described)
    assert found
    for reference in found:
        node = described
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


async def test_names_of_operations_are_unique_and_each_can_succeed(described: Any) -> None:
    operations = [operation for _, _, operation in _operations(described)]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all({"200", "204"} & operation["responses"].keys() for operation in operations)


async def test_the_sign_in_takes_what_it_says(described: Any) -> None:
    schema = described["components"]["schemas"]["SignIn"]
    assert set(schema["properties"]) == {"account", "password", "deliver", "remember", "tokens"}
    assert set(schema["required"]) == {"account", "password"}
    assert schema["additionalProperties"] is False


async def test_the_description_holds_nothing_of_this_installation(described: Any, server: Any) -> None:
    text = json.dumps(described)
    assert str(server.settings.data_dir) not in text


@pytest.mark.parametrize("path", ["/api/sign-in", "/api/refresh", "/api/sign-out", "/api/sign-out-everywhere"])
async def test_what_needs_json_says_so_and_refuses_the_rest(described: Any, client: Client, path: str) -> None:
    """F7: a form of another site cannot send JSON without asking first."""
    operation = described["paths"][path]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/json"]
    for content_type in (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
    ):
        answer = await client("POST", path, body=b"{}", headers={"content-type": content_type})
        assert (answer.status, answer.json["code"]) == (415, "not_json")
    assert "415" in operation["responses"]
