"""Requests of one stranger at once get what each of them alone is held to, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest

from generation.domain.requests import Limits
from rails.quotes.quoter import PaymentLimits
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of
from tests.hostile import races
from tests.hostile.attacks import Target
from tests.hostile.races import AT_ONCE, LOOPS, ROUNDS

FUNDING = {"rail": "fake", "pay_asset": "USD"}
WANTED = {**FUNDING, "credits": 50}
FREE_IMAGES = 20
PLACES = PaymentLimits()
HELD_IMAGES = Limits().paid_apart_account


@pytest.fixture(scope="module")
async def crowded(open_gateway: Open) -> AsyncIterator[Gateway]:
    """A gateway where all of a crowd may send at once: what is left to bound them is decided under a lock."""
    async with open_gateway(uploads_waiting_network=100) as gateway:
        yield gateway


@pytest.fixture
def target(crowded: Gateway) -> Target:
    address = urlsplit(crowded.url)
    assert address.hostname is not None
    assert address.port is not None
    return Target(address.hostname, address.port)


@pytest.fixture
async def token(crowded: Gateway) -> str:
    return str((await crowded.client().post("/v1/visitors")).json()["token"])


@pytest.fixture
async def visitor(crowded: Gateway, token: str) -> httpx.AsyncClient:
    return crowded.bearer(token)


async def test_topups_at_once_open_as_many_as_an_account_may_have(target: Target, token: str) -> None:
    for _ in range(2):
        outcome = await races.topups(target, token, WANTED)
        assert outcome.reached == PLACES.open_per_account
        assert outcome.statuses[201] == PLACES.open_per_account
        assert outcome.codes == {"too_many_open_payments": AT_ONCE - PLACES.open_per_account}


@pytest.mark.thorough
async def test_images_at_once_that_pay_apart_await_as_many_payments_as_an_account_may_have(
    target: Target, token: str, visitor: httpx.AsyncClient
) -> None:
    for _ in range(2):
        outcome = await races.unpaid_images(target, token, FUNDING)
        assert outcome.reached == HELD_IMAGES
        assert outcome.statuses[202] == HELD_IMAGES
        assert set(outcome.codes) == {"too_many_paid_apart"}
        assert outcome.codes.total() == AT_ONCE - HELD_IMAGES
    assert (await credits_of(visitor))["held"] == 0


@pytest.mark.thorough
async def test_topups_by_a_link_at_once_open_as_many_as_links_may(target: Target, token: str) -> None:
    link = await races.link_of(target, token)
    outcome = await races.link_topups(target, token, link, WANTED)
    assert outcome.reached == PLACES.open_by_links
    assert outcome.statuses[201] == PLACES.open_by_links
    assert set(outcome.codes) == {"too_many_open_payments", "rate_limited"}
    again = await races.link_topups(target, token, link, WANTED)
    assert (again.reached, again.codes) == (0, {"rate_limited": AT_ONCE})


@pytest.mark.thorough
async def test_loops_that_ask_and_cancel_under_one_key_make_one_image(
    target: Target, token: str, visitor: httpx.AsyncClient
) -> None:
    outcome = await races.cancels_of_one_key(target, token)
    assert outcome.reached == 1
    assert outcome.statuses[202] == LOOPS * ROUNDS
    assert not outcome.codes
    await _has_all_free_images(visitor)


async def test_loops_that_ask_and_cancel_get_every_credit_back_once(
    target: Target, token: str, visitor: httpx.AsyncClient
) -> None:
    outcome = await races.cancels(target, token)
    assert outcome.reached == FREE_IMAGES
    assert outcome.statuses[202] >= FREE_IMAGES
    assert set(outcome.codes) <= {"insufficient_credits"}
    await _has_all_free_images(visitor)


async def _has_all_free_images(visitor: httpx.AsyncClient) -> None:
    account = (await visitor.get("/v1/account")).json()
    assert account["free_today"]["left"] == FREE_IMAGES
    assert (account["credits"]["held"], account["credits"]["available"]) == (0, FREE_IMAGES)
