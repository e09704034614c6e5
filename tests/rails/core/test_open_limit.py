"""How many payment requests an account may have open is decided where the opening is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest

from rails.contract import PaymentRequestStatus
from rails.domain.refusals import TooManyOpenPayments
from rails.domain.topup import TopupState, TopupView
from rails.quotes.quoter import PaymentLimits
from tests.rails.core.platform import Platform, on_postgres, opened, settled

LIMIT = PaymentLimits().open_per_account


@pytest.fixture
def platform(either: Platform) -> Platform:
    return either


async def places(platform: Platform, account_id: str) -> set[str]:
    """The payments that take a place now."""
    return set((await platform.store.openings(account_id, platform.clock())).until)


async def opened_at_once(platforms: Iterable[Platform], account_id: str, times: int) -> list[TopupView]:
    """What was opened; every other answer is the one refusal."""
    asked = (opened(platform, account_id) for platform in platforms for _ in range(times))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    views = [answer for answer in answers if isinstance(answer, TopupView)]
    refused = [answer for answer in answers if isinstance(answer, TooManyOpenPayments)]
    assert len(views) + len(refused) == len(answers), answers
    assert all(refusal.limit == LIMIT for refusal in refused)
    return views


async def test_sixty_at_once_open_as_many_as_may_be_open(platform: Platform, account_id: str) -> None:
    views = await opened_at_once([platform], account_id, 60)
    assert len(views) == LIMIT
    assert platform.network.calls.count("open") == LIMIT, "for what is refused no rail is asked"
    assert await places(platform, account_id) == {view.payment_id for view in views}


async def test_two_processes_share_one_limit(
    make_database: Callable[..., str], rails_template: str, account_id: str
) -> None:
    url = make_database(rails_template)
    async with on_postgres(url) as one, on_postgres(url) as two:
        views = await opened_at_once([one, two], account_id, 30)
        assert len(views) == LIMIT
        assert await places(one, account_id) == await places(two, account_id)
        assert len(await one.store.of_account(account_id, 200)) == LIMIT


async def test_the_limit_of_one_account_is_not_that_of_another(platform: Platform) -> None:
    first, second = platform.ids.account(), platform.ids.account()
    await opened_at_once([platform], first, LIMIT + 1)
    assert len(await opened_at_once([platform], second, LIMIT + 1)) == LIMIT


async def test_what_is_refused_leaves_its_key_open_until_there_is_a_place(
    platform: Platform, account_id: str
) -> None:
    asked = [opened(platform, account_id, wanted=500, key=f"cmd_{n}") for n in range(LIMIT + 5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [n for n, answer in enumerate(answers) if isinstance(answer, TooManyOpenPayments)]
    assert len(refused) == 5
    first = next(answer for answer in answers if isinstance(answer, TopupView))
    await platform.payments.cancel(first.payment_id)
    again = await opened(platform, account_id, wanted=500, key=f"cmd_{refused[0]}")
    assert again.state is TopupState.WAITING
    assert len(await places(platform, account_id)) == LIMIT


async def test_the_same_key_at_once_takes_one_place(platform: Platform, account_id: str) -> None:
    asked = [opened(platform, account_id, wanted=500, key="cmd_1") for _ in range(30)]
    assert len({view.payment_id for view in await asyncio.gather(*asked)}) == 1
    assert len(await places(platform, account_id)) == 1


async def test_money_under_way_frees_the_place_and_takes_it_again_if_it_vanishes(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id)
    money = await platform.pay(topup.payment_id)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.SEEN
    assert await places(platform, account_id) == set()
    await platform.network.forget(await platform.reference(topup.payment_id), money)
    await platform.payments.observe(topup.payment_id)
    assert await places(platform, account_id) == {topup.payment_id}
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID
    assert await places(platform, account_id) == set()


async def test_cancelling_frees_the_place(platform: Platform, account_id: str) -> None:
    views = await opened_at_once([platform], account_id, LIMIT)
    assert (await platform.payments.cancel(views[0].payment_id)).state is TopupState.EXPIRED
    assert len(await places(platform, account_id)) == LIMIT - 1
    assert len(await opened_at_once([platform], account_id, 5)) == 1


async def test_a_declined_payment_may_still_be_paid_and_keeps_its_place(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id)
    reference = await platform.reference(topup.payment_id)
    await platform.network.stand(reference, PaymentRequestStatus.DECLINED, "card_declined")
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.DECLINED
    assert await places(platform, account_id) == {topup.payment_id}


async def test_what_nobody_closed_frees_its_place_with_the_end_of_its_quote(
    platform: Platform, account_id: str
) -> None:
    views = await opened_at_once([platform], account_id, LIMIT)
    platform.clock.advance(views[0].quote_expires_at - platform.clock() - timedelta(seconds=1))
    assert len(await places(platform, account_id)) == LIMIT
    platform.clock.advance(timedelta(seconds=1))
    assert await places(platform, account_id) == set(), "no sweep has run"
    assert len(await opened_at_once([platform], account_id, LIMIT)) == LIMIT


async def test_what_a_rail_could_not_open_keeps_its_place_until_it_is_given_up(
    platform: Platform, account_id: str
) -> None:
    platform.network.answers_to_lose = 1
    topup = await opened(platform, account_id)
    assert topup.state is TopupState.OPENING
    assert await places(platform, account_id) == {topup.payment_id}, "the runner goes on trying"
    assert (await platform.payments.cancel(topup.payment_id)).state is TopupState.EXPIRED
    assert await places(platform, account_id) == set()
    await platform.payments.observe_pending("fake")
    await platform.payments.open_request(topup.payment_id)
    assert platform.network.calls.count("open") == 1, "nobody opens what was given up"


async def test_what_links_open_takes_places_of_its_own_until_it_is_paid(
    platform: Platform, account_id: str
) -> None:
    most = PaymentLimits().open_by_links
    asked = (opened(platform, account_id, wanted=500, link=f"{n:032x}") for n in range(most + 3))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    views = [answer for answer in answers if isinstance(answer, TopupView)]
    refused = [answer for answer in answers if isinstance(answer, TooManyOpenPayments)]
    assert [len(views), len(refused)] == [most, 3]
    assert all(refusal.limit == most for refusal in refused)
    assert await places(platform, account_id) == set()
    assert len(await opened_at_once([platform], account_id, LIMIT + 1)) == LIMIT
    await platform.pay(views[0].payment_id)
    assert (await settled(platform, views[0])).link == views[0].link
    taken = await platform.store.openings(account_id, platform.clock(), by_link=True)
    assert set(taken.until) == {view.payment_id for view in views[1:]}
