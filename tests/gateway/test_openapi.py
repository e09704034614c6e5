"""What the OpenAPI document promises, tried out with whatever fits it and whatever does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway
from tests.waiting import SECONDS_MAX

MANY = 450
"""Examples for each operation: those that fit, and as many that do not."""
CASES_MIN = 20_000
STREAM, CLAIM = "/v1/events", "/v1/worker/claim"
ENDING = {("delete", "/v1/session"), ("delete", "/v1/sessions")}
"""They end the credentials that the others need, and are tried last."""

# The gateway lives in this process, and its pools draw their jitter while requests are made up.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

CHECKS = {
    "checks": {
        "positive_data_acceptance": {
            # What no schema says: "either credits or amount", a picture that can be read, enough credits,
            # another protocol's version, and 1.0 where an integer is wanted.
            "expected-statuses": [
                "2xx",
                "3xx",
                "401",
                "402",
                "403",
                "404",
                "409",
                "413",
                "415",
                "422",
                "426",
                "429",
                "503",
            ]
        }
    }
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks."""

    person: Mapping[str, str]
    worker: Mapping[str, str]

    def of(self, operation: Any) -> Mapping[str, str]:
        return self.worker if operation.path.startswith("/v1/worker") else self.person


@pytest.mark.parametrize("examples", [1, pytest.param(9, marks=pytest.mark.thorough)])
async def test_what_fits_the_document_and_what_does_not_is_answered_as_it_says(
    gateway: Gateway, examples: int
) -> None:
    assert await tried(gateway, examples) > 33 * examples


@pytest.mark.slow_suite
async def test_twenty_thousand_requests_are_answered_as_the_document_says(open_gateway: Open) -> None:
    async with open_gateway(requests_per_minute=1_000_000, requests_per_minute_network=1_000_000) as gateway:
        assert await tried(gateway, MANY) >= CASES_MIN


async def tried(gateway: Gateway, examples: int) -> int:
    """Try out every operation; returns how many requests were made. All checks of schemathesis are made of each."""
    client = await gateway.visitor()
    worker = await gateway.worker()
    document = (await client.get("/v1/openapi.json")).json()
    credentials = Credentials(
        {"Authorization": client.headers["Authorization"]},
        {"Authorization": worker.client.headers["Authorization"]},
    )
    return await asyncio.to_thread(_try_out, document, gateway.url, credentials, examples)


def _try_out(document: dict[str, Any], url: str, credentials: Credentials, examples: int) -> int:
    config = SchemathesisConfig.from_dict(CHECKS)
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.config.update(base_url=url)
    return sum(
        _try(operation, mode, credentials.of(operation), examples)
        for operation in _operations(schema)
        for mode in GenerationMode
    )


def _operations(schema: Any) -> Iterator[Any]:
    found = [result.ok() for result in schema.get_all_operations()]
    yield from sorted(found, key=lambda operation: (operation.method.lower(), operation.path) in ENDING)


def _try(operation: Any, mode: GenerationMode, headers: Mapping[str, str], examples: int) -> int:
    count = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        nonlocal count
        count += 1
        if operation.path == STREAM:
            _open_stream(operation, case, headers)
            return
        if operation.path == CLAIM:
            _wait_for_nothing(case)
        response = case.call(headers=headers)
        case.validate_response(response)
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"], operation.label

    try:
        run()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, operation.label  # it takes nothing that could be wrong
    return count


def _open_stream(operation: Any, case: Any, headers: Mapping[str, str]) -> None:
    """A stream does not end: its status and type are looked at, and it is closed."""
    asked = case.as_transport_kwargs(headers=headers)
    with httpx.stream(
        asked["method"],
        asked["url"],
        params=asked.get("params"),
        headers=dict(asked["headers"]),
        timeout=SECONDS_MAX,
    ) as answer:
        documented = operation.responses.find_by_status_code(answer.status_code)
        assert documented is not None, answer.status_code
        assert answer.headers["content-type"].partition(";")[0] in documented.definition["content"]


def _wait_for_nothing(case: Any) -> None:
    """Whoever may wait does not: a claim is answered at once."""
    if isinstance(case.body, dict):
        asked = case.body.get("wait_seconds", 20)
        if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 <= asked <= 60:
            case.body["wait_seconds"] = 0
