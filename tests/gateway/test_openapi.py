"""What the OpenAPI document promises, tried out with whatever fits it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.gateway.stack import Gateway

EXAMPLES = 12
SKIPPED = ("/v1/events", "/v1/worker/claim")
"""They wait by design."""


async def test_no_request_that_fits_the_document_is_a_fault(gateway: Gateway) -> None:
    client = await gateway.visitor()
    document = (await client.get("/v1/openapi.json")).json()
    headers = {"Authorization": client.headers["Authorization"]}
    worker = {"Authorization": (await gateway.worker()).client.headers["Authorization"]}

    def try_out() -> int:
        count = 0
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=gateway.url)
        with httpx.Client(base_url=gateway.url, timeout=20) as http:
            for found in schema.get_all_operations():
                operation: Any = found.ok()  # type: ignore[union-attr]
                if operation.path in SKIPPED:
                    continue
                credentials = worker if operation.path.startswith("/v1/worker") else headers
                count += _try(operation, http, credentials)
        return count

    assert await asyncio.to_thread(try_out) > 100


def _try(operation: Any, http: httpx.Client, headers: dict[str, str]) -> int:
    tried = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        nonlocal tried
        tried += 1
        response = case.call(headers=headers)
        case.validate_response(response, checks=[response_schema_conformance])
        assert response.status_code < 500, (operation.label, response.text)
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"], operation.label

    run()
    return tried
