"""Operators see where the rails' books and ours differ, have them compared, and are alerted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from ledger.clock import system_clock
from ledger.money import USD, Money
from rails.movements import MovementKind
from tests.gateway.stack import Gateway, operator_of, soon

Open = Callable[..., AbstractAsyncContextManager[Gateway]]
LONG_AGO = timedelta(hours=2)


@pytest.fixture(scope="module")
async def gateway(open_gateway: Open) -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture
async def operator(gateway: Gateway) -> httpx.AsyncClient:
    return await operator_of(gateway)


async def differences_of(operator: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await operator.get("/v1/operator/differences", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_money_beside_our_payments_is_shown_and_alerted_until_it_is_gone(
    gateway: Gateway, operator: httpx.AsyncClient
) -> None:
    books = gateway.fake.network.books
    strange = books.add(MovementKind.RECEIVED, Money(700, USD), "fake:99:1", at=system_clock() - LONG_AGO)
    for _ in range(2):
        asked = await operator.post("/v1/operator/differences", json={})
        assert (asked.status_code, asked.json()) == (202, {"rails": ["fake"]})

    async def found() -> bool:
        return bool((await differences_of(operator))["differences"])

    await soon(found, "the books were compared")
    shown = await differences_of(operator, rail="fake")
    [one] = shown["differences"]
    assert (one["subject"], one["reason"], one["theirs_minor"], one["ours_minor"]) == (
        "fake:99:1",
        "missing_here",
        700,
        None,
    )
    [run] = shown["rails"]
    assert (run["rail"], run["open"], run["last_problem"]) == ("fake", 1, None)
    assert (await differences_of(operator, rail="card"))["differences"] == []
    figures = (await operator.get("/metrics")).text
    assert 'llamasketch_rail_differences{name="fake"} 1.0' in figures
    assert 'llamasketch_rail_difference_seconds{name="fake"}' in figures
    books.add(MovementKind.TAKEN_BACK, Money(-700, USD), strange.money_ref, at=system_clock() - LONG_AGO)
    assert (await differences_of(operator, closed=True))["differences"] == []


async def test_a_rail_that_tells_nothing_cannot_be_compared(operator: httpx.AsyncClient) -> None:
    answer = await operator.post("/v1/operator/differences", json={"rail": "quiet"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_rail")


@pytest.mark.parametrize("body", [{"rail": "A b"}, {"rail": 1}, {"all": True}, []])
async def test_what_is_not_as_it_should_be_is_refused(operator: httpx.AsyncClient, body: Any) -> None:
    answer = await operator.post("/v1/operator/differences", json=body)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("asked", [{"before": 0}, {"limit": 200}, {"rail": "A b"}, {"closed": "perhaps"}])
async def test_what_cannot_be_asked_is_refused(operator: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    answer = await operator.get("/v1/operator/differences", params=asked)
    assert answer.status_code == 422, answer.text


async def test_it_goes_on_page_by_page(gateway: Gateway, operator: httpx.AsyncClient) -> None:
    books = gateway.fake.network.books
    for minor in range(1, 6):
        books.add(MovementKind.OTHER, Money(minor, USD), at=system_clock() - LONG_AGO)
    await operator.post("/v1/operator/differences", json={"rail": "fake"})

    async def found() -> bool:
        rows = (await differences_of(operator))["differences"]
        return {1, 2, 3, 4, 5} <= {row["theirs_minor"] for row in rows}

    await soon(found, "the books were compared")
    seen: list[int] = []
    before: int | None = None
    while True:
        page = await differences_of(operator, limit=2, **({} if before is None else {"before": before}))
        seen += [row["id"] for row in page["differences"]]
        before = page["next_before"]
        if before is None:
            break
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) >= 5
