"""Packs, passes and plan periods bought over a rail: whole or not at all, and nothing that arrives is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from ledger.domain.journal import postings
from ledger.domain.prepaying import prepaid_subscription
from ledger.domain.view import AccountView, plan_in_force, view
from ledger.money import BTC, USD, USDT, Money
from ledger.plans import PACKS, PLANS, Pack
from rails.contract import ReceiptState
from rails.domain.purchases import PackSold, PlanSold, Purchase
from rails.domain.refusals import AmountTooSmall, TopupUnclear
from rails.domain.state import LATE_GRACE
from rails.domain.topup import TopupState, TopupView
from tests.rails.core.platform import START, Platform, opened, settled

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PACK, SESSION = PackSold(pack=PACKS["pack_2500"]), PackSold(pack=PACKS["session"])


def plan(account_id: str, name: str = "pro", months: int = 1) -> PlanSold:
    return PlanSold(
        plan=PLANS[name].sold_for(months), months=months, subscription_id=prepaid_subscription(account_id)
    )


async def bought(
    platform: Platform, account_id: str, purchase: Purchase, minor: int | None = None, **asked: Any
) -> TopupView:
    topup = await opened(platform, account_id, purchase=purchase, **asked)
    await platform.pay(topup.payment_id, minor)
    return await settled(platform, topup)


async def looks(platform: Platform, account_id: str) -> AccountView:
    account, now = await platform.account(account_id), platform.clock()
    return view(account, plan_in_force(account, now), now)


async def until_of(platform: Platform, account_id: str) -> datetime:
    seen = (await looks(platform, account_id)).subscription
    assert seen is not None
    return seen.lasts_until


async def back(platform: Platform, topup: TopupView, state: ReceiptState) -> TopupView:
    [money] = topup.received
    await platform.network.change(await platform.reference(topup.payment_id), money.money_ref, state)
    return await platform.payments.observe(topup.payment_id)


# Packs and passes


@pytest.mark.parametrize(
    ("pay_asset", "due"),
    [("USD", Money(2_500, USD)), ("BTC", Money(25_000_000, BTC)), ("USDT", Money(2_500_000_000, USDT))],
)
async def test_a_pack_is_bought_at_its_own_price_in_any_asset(
    platform: Platform, account_id: str, pay_asset: str, due: Money
) -> None:
    dear = PackSold(pack=Pack(name="dear", label="Dear", price_usd_minor=2_500, credits=10))
    topup = await bought(platform, account_id, dear, pay_asset=pay_asset)
    assert (topup.amount_due, topup.state, topup.credited) == (due, TopupState.PAID, 10)
    assert topup.to_json()["purchase"] == {
        "kind": "pack",
        "name": "dear",
        "label": "Dear",
        "price_usd_minor": 2_500,
        "months": None,
        "lasts_seconds": None,
        "granted": 1,
        "rest_awaited_until": None,
    }


async def test_a_pass_ends_after_its_time_from_the_payment_on(platform: Platform, account_id: str) -> None:
    await bought(platform, account_id, SESSION)
    [lot] = (await platform.account(account_id)).lots
    assert (lot.terms.source, lot.terms.credits) == ("pass", 200)
    platform.clock.advance(4 * HOUR - timedelta(seconds=1))
    assert await platform.posted(account_id) == 200
    platform.clock.advance(timedelta(seconds=1))
    assert await platform.posted(account_id) == 0


async def test_what_falls_short_waits_for_the_rest_and_both_together_buy_it(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id, purchase=SESSION)
    await platform.pay(topup.payment_id, 20)
    short = await settled(platform, topup)
    assert (short.state, short.credited, short.amount_missing.minor) == (TopupState.UNDERPAID, 0, 30)
    assert short.rest_awaited_until == topup.quote_expires_at + LATE_GRACE
    platform.clock.set(topup.quote_expires_at + LATE_GRACE)
    await platform.pay(topup.payment_id, 30)
    full = await settled(platform, topup)
    assert (full.state, full.credited, full.purchases) == (TopupState.PAID, 200, 1)
    [lot] = (await platform.account(account_id)).lots
    assert lot.terms.consideration is not None
    assert lot.terms.consideration.worth.gross_minor == 50


async def test_what_stays_short_becomes_plain_credits_by_itself(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, purchase=plan(account_id))
    await platform.pay(topup.payment_id, 1_999)
    assert (await settled(platform, topup)).credited == 0
    platform.clock.set(topup.quote_expires_at + LATE_GRACE + timedelta(days=2))
    await platform.payments.observe_pending("fake")
    after = await platform.payments.topup(topup.payment_id)
    assert (after.state, after.credited, after.purchases) == (TopupState.UNDERPAID, 1_999, 0)
    assert (await looks(platform, account_id)).plan == "free"
    await platform.pay(topup.payment_id, 1)
    await settled(platform, topup)
    assert (await looks(platform, account_id)).plan == "free", (
        "one cent more does not buy what was not bought"
    )


async def test_what_is_left_over_becomes_plain_credits(platform: Platform, account_id: str) -> None:
    topup = await bought(platform, account_id, SESSION, 75)
    assert (topup.state, topup.credited) == (TopupState.PAID, 225)
    lots = {lot.terms.source: lot for lot in (await platform.account(account_id)).lots}
    assert {source: lot.terms.credits for source, lot in lots.items()} == {"pass": 200, "payment": 25}
    worths = [lot.terms.consideration.worth.gross_minor for lot in lots.values() if lot.terms.consideration]
    assert sum(worths) == 75


async def test_a_pack_paid_twice_is_bought_twice_and_a_plan_once(platform: Platform, account_id: str) -> None:
    for purchase, credited in ((SESSION, 400), (plan(account_id), 8_000 + 2_000)):
        topup = await bought(platform, account_id, purchase)
        await platform.pay(topup.payment_id)
        assert (await settled(platform, topup)).credited == credited


async def test_late_money_buys_what_it_is_worth_by_then(platform: Platform, account_id: str) -> None:
    for factor, credited in ((2, 200 + 50), (1, 50)):
        topup = await opened(platform, account_id, purchase=SESSION, pay_asset="BTC")
        platform.clock.set(topup.quote_expires_at + LATE_GRACE + timedelta(seconds=1))
        platform.rates.prices["BTC"] *= factor
        await platform.pay(topup.payment_id)
        assert (await settled(platform, topup)).credited == (credited if factor == 2 else 200)
        platform.rates.prices["BTC"] /= 2 * factor
    topup = await opened(platform, account_id, purchase=SESSION, pay_asset="BTC")
    platform.clock.set(topup.quote_expires_at + LATE_GRACE + timedelta(seconds=1))
    platform.rates.prices["BTC"] /= 2
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).credited == 25


async def test_late_money_without_a_rate_waits_and_then_buys(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, purchase=SESSION, pay_asset="BTC")
    platform.clock.set(topup.quote_expires_at + LATE_GRACE + timedelta(seconds=1))
    price = platform.rates.prices.pop("BTC")
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.UNPRICED
    platform.rates.prices["BTC"] = price
    await platform.payments.price_unpriced("fake")
    assert (await platform.payments.topup(topup.payment_id)).credited == 200


async def test_a_purchase_is_not_asked_for_beside_an_amount(platform: Platform, account_id: str) -> None:
    with pytest.raises(TopupUnclear):
        await opened(platform, account_id, purchase=PACK, wanted=5)
    cheap = PackSold(pack=Pack(name="cheap", label="Cheap", price_usd_minor=1, credits=1))
    platform.rails["fake"].capabilities.minimum["USD"] = 50  # type: ignore[index]
    with pytest.raises(AmountTooSmall):
        await opened(platform, account_id, purchase=cheap)


async def test_the_price_of_an_open_payment_outlives_the_catalogue(
    platform: Platform, account_id: str
) -> None:
    """The same key stands for the same purchase, whatever that costs by now."""
    first = await opened(platform, account_id, purchase=PACK, key="cmd_1")
    dear = PackSold(pack=msgspec.structs.replace(PACK.pack, price_usd_minor=9_900))
    again = await opened(platform, account_id, purchase=dear, key="cmd_1")
    assert (again.payment_id, again.amount_due) == (first.payment_id, Money(2_500, USD))


# Plans


async def test_a_plan_period_is_granted_and_in_force_at_once(platform: Platform, account_id: str) -> None:
    topup = await bought(platform, account_id, plan(account_id), pay_asset="USDT")
    assert (topup.state, topup.credited) == (TopupState.PAID, 8_000)
    seen = await looks(platform, account_id)
    assert (seen.plan, seen.available, seen.priority) == ("pro", 8_000, True)
    assert await until_of(platform, account_id) == datetime(2026, 2, 1, 12, tzinfo=UTC)


async def test_paying_before_the_end_adds_a_period_and_the_31st_comes_back(
    platform: Platform, account_id: str
) -> None:
    platform.clock.set(datetime(2026, 1, 31, 8, tzinfo=UTC))
    ends = []
    for _ in range(3):
        await bought(platform, account_id, plan(account_id))
        ends.append(await until_of(platform, account_id))
    assert [f"{end:%m-%d}" for end in ends] == ["02-28", "03-31", "04-30"]
    await bought(platform, account_id, plan(account_id, months=12))
    assert f"{await until_of(platform, account_id):%Y-%m-%d}" == "2027-04-30"
    assert await platform.posted(account_id) == (3 + 12) * 8_000


async def test_after_the_grace_a_period_begins_when_it_is_paid(platform: Platform, account_id: str) -> None:
    await bought(platform, account_id, plan(account_id))
    platform.clock.set(datetime(2026, 2, 2, 11, tzinfo=UTC))
    await bought(platform, account_id, plan(account_id))
    assert await until_of(platform, account_id) == datetime(2026, 3, 1, 12, tzinfo=UTC), "within the grace"
    platform.clock.set(datetime(2026, 3, 5, tzinfo=UTC))
    assert (await looks(platform, account_id)).plan == "free", "nothing renews by itself"
    await bought(platform, account_id, plan(account_id))
    assert await until_of(platform, account_id) == datetime(2026, 4, 5, tzinfo=UTC)


async def test_a_higher_plan_begins_at_once_and_a_lower_one_behind(
    platform: Platform, account_id: str
) -> None:
    await bought(platform, account_id, plan(account_id, "starter"))
    platform.clock.advance(10 * DAY)
    await bought(platform, account_id, plan(account_id, "pro"))
    assert (await looks(platform, account_id)).plan == "pro"
    pro_until = await until_of(platform, account_id)
    assert pro_until == datetime(2026, 2, 11, 12, tzinfo=UTC)
    await bought(platform, account_id, plan(account_id, "starter"))
    platform.clock.set(pro_until)
    assert (await looks(platform, account_id)).plan == "starter"


@pytest.mark.parametrize("name", ["pro", "unlimited"])
@pytest.mark.parametrize("won", [True, False])
async def test_a_disputed_plan_is_out_of_force_until_the_dispute_is_won(
    platform: Platform, account_id: str, name: str, won: bool
) -> None:
    topup = await bought(platform, account_id, plan(account_id, name))
    platform.clock.advance(10 * DAY)
    disputed = await back(platform, topup, ReceiptState.DISPUTED)
    assert disputed.state is TopupState.DISPUTED
    assert ((await looks(platform, account_id)).plan, (await looks(platform, account_id)).posted) == (
        "free",
        20,
    )
    assert (await platform.account(account_id)).status.schedules == ()
    platform.clock.advance(5 * DAY)
    await back(platform, topup, ReceiptState.SETTLED if won else ReceiptState.REVERSED)
    seen = await looks(platform, account_id)
    assert seen.plan == (name if won else "free")
    assert seen.posted == ({"pro": 8_000, "unlimited": 1_000}[name] if won else 20)
    if won:
        assert await until_of(platform, account_id) == datetime(2026, 2, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["pro", "unlimited"])
async def test_money_that_goes_back_and_comes_again_balances_in_the_books(
    platform: Platform, account_id: str, name: str
) -> None:
    topup = await bought(platform, account_id, plan(account_id, name))
    for state in (ReceiptState.REVERSED, ReceiptState.SETTLED, ReceiptState.REVERSED, ReceiptState.SETTLED):
        platform.clock.advance(40 * DAY)
        await back(platform, topup, state)
    cleared = sum(
        line.amount_minor
        for envelope in platform.log.log
        for line in postings(envelope.event)
        if line.account == "Liabilities:Clearing:Fake"
    )
    assert cleared == PLANS[name].price_usd_minor
    assert platform.clock() > START
