"""Methods: what an address does not take is said, and health may be asked for without its body."""

from __future__ import annotations

import pytest

from tests.gateway.stack import Gateway

JOB = "job_" + "0" * 26


async def test_health_answers_to_head(gateway: Gateway) -> None:
    answer = await gateway.client().head("/health")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", f"/v1/generations/{JOB}", "DELETE, GET"),
        ("PATCH", "/v1/session", "DELETE, GET, POST"),
        ("PUT", "/v1/topups", "GET, POST"),
        ("POST", "/health", "GET, HEAD"),
        ("GET", "/v1/worker/claim", "POST"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
async def test_a_method_that_an_address_does_not_take_is_answered_with_those_that_it_takes(
    gateway: Gateway, method: str, path: str, allowed: str, accept: str
) -> None:
    answer = await gateway.client().request(method, path, headers={"accept": accept})
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
