"""What is asked for most is answered without the framework's way, and no otherwise than by it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastapi.routing
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from starlette.routing import Match

from gateway.routes.direct import FREQUENT, PASSED_ON, DirectRoute, DirectRoutes
from gateway.routes.generation_shapes import GenerationIn
from gateway.routes.worker import CompleteIn, HeartbeatIn
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, generation_request, picture
from worker.protocol import ClaimRequest

JOB = "job_" + "0" * 26
VALUES = st.sampled_from(
    [None, True, False, 0, 1, -1, 7, 0.5, 1.0, 2**53, "", "1", "true", "a" * 70, [], {}, [1]]
)
BODIES: dict[type[BaseModel], dict[str, Any]] = {
    GenerationIn: {
        "prompt": "a llama",
        "sketch": {"content_type": "image/png", "data": "aGk="},
        "seed": 1,
        "strength": 0.5,
        "live": True,
        "session_id": "one",
        "seq": 3,
        "variation": False,
        "session_cap": 5,
        "funding": {"rail": "fake", "pay_asset": "USD"},
    },
    ClaimRequest: {"wait_seconds": 1},
    HeartbeatIn: {"epoch": 1, "progress": {"value": 1, "max": 2}, "moved": 1, "preview": "aGk="},
    CompleteIn: {"epoch": 1, "sha256": "a" * 64, "size": 5, "content_type": "image/png", "gpu_ms": 5},
}


@contextmanager
def framework_solved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses whose dependencies the framework looks for meanwhile."""
    solved: list[str] = []
    solve = fastapi.routing.solve_dependencies

    async def noting(**known: Any) -> Any:
        solved.append(known["request"].url.path)
        return await solve(**known)

    with monkeypatch.context() as patch:
        patch.setattr(fastapi.routing, "solve_dependencies", noting)
        yield solved


async def test_the_life_of_an_image_does_not_go_the_frameworks_way(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    with framework_solved(monkeypatch) as solved:
        asked = await client.post("/v1/generations", json=generation_request())
        assert asked.status_code == 202
        job = await worker.take()
        await worker.client.post(f"/v1/worker/jobs/{job['id']}/heartbeat", json={"epoch": job["epoch"]})
        await worker.upload(job, picture())
        assert (await worker.report(job, picture())).json() == {"state": "completed"}
        for path in (f"/v1/generations/{job['id']}", "/v1/account", "/v1/statement?limit=5", "/v1/session"):
            (await client.get(path)).raise_for_status()
    assert [path for path in solved if not path.startswith("/v1/objects/")] == []


async def test_what_is_not_as_it_should_be_is_refused_by_the_framework_and_counted_once(
    open_gateway: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_gateway(requests_per_minute=2) as gateway:
        client = await gateway.visitor()
        with framework_solved(monkeypatch) as solved:
            for body in ({"prompt": 1}, generation_request() | {"seed": "1"}):
                answer = await client.post("/v1/generations", json=body)
                assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert solved == ["/v1/generations"] * 2
        answer = await client.post("/v1/generations", json=generation_request())
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")


async def test_who_may_not_ask_is_not_let_in_with_a_good_request_either(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody, visitor = gateway.client(), await gateway.visitor()
    with framework_solved(monkeypatch) as solved:
        answers = [
            await nobody.post("/v1/generations", json=generation_request()),
            await nobody.get(f"/v1/generations/{JOB}"),
            await nobody.get("/v1/statement"),
            await visitor.post("/v1/worker/claim", json=BODIES[ClaimRequest]),
            await visitor.post(f"/v1/worker/jobs/{JOB}/heartbeat", json=BODIES[HeartbeatIn]),
            await visitor.post(f"/v1/worker/jobs/{JOB}/complete", json=BODIES[CompleteIn]),
        ]
    assert [answer.status_code for answer in answers] == [401] * len(answers)
    assert solved == []


async def test_each_route_is_the_one_that_the_framework_would_choose(gateway: Gateway) -> None:
    app = gateway.app
    direct = next(route for route in app.router.routes if isinstance(route, DirectRoutes))
    for method, path in FREQUENT:
        scope = {"type": "http", "method": method, "path": path.replace("{job_id}", JOB), "root_path": ""}
        match, found = direct.matches(scope)
        assert match is Match.FULL
        route = found["endpoint"]
        assert isinstance(route, DirectRoute)
        passed = {**scope, PASSED_ON: True}
        chosen = next(route for route in app.router.routes if route.matches(passed)[0] is Match.FULL)
        routes = getattr(chosen, "original_router").routes  # noqa: B009 - the framework's own class has no name
        endpoint = next(each.endpoint for each in routes if each.matches(passed)[0] is Match.FULL)
        assert route.steps[-1].call is endpoint
        assert found["path_params"] == ({"job_id": JOB} if "{" in path else {})


def read_from_json(model: type[BaseModel], body: bytes) -> BaseModel | None:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        return None


def read_as_the_framework_does(model: type[BaseModel], body: bytes) -> BaseModel | None:
    try:
        return model.model_validate(json.loads(body))
    except ValidationError:
        return None


@given(model=st.sampled_from(list(BODIES)), data=st.data())
def test_a_body_that_is_read_at_once_says_what_the_framework_would_read(
    model: type[BaseModel], data: st.DataObject
) -> None:
    body = copy.deepcopy(BODIES[model])
    for _ in range(data.draw(st.integers(0, 2))):
        inner = data.draw(
            st.sampled_from([body, *(each for each in body.values() if isinstance(each, dict))])
        )
        name = data.draw(st.sampled_from([*inner, "other"]))
        if data.draw(st.booleans()):
            inner[name] = copy.deepcopy(data.draw(VALUES))
        else:
            inner.pop(name, None)
    sent = json.dumps(body).encode()
    at_once = read_from_json(model, sent)
    assert at_once == read_as_the_framework_does(model, sent)


def test_of_two_members_with_one_name_the_later_counts_either_way() -> None:
    sent = b'{"wait_seconds": 1, "wait_seconds": 2}'
    assert read_from_json(ClaimRequest, sent) == read_as_the_framework_does(ClaimRequest, sent)
