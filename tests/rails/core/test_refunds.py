"""Refunds: credits are held first, money is sent once, and whatever comes of it is booked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ledger.domain.commands import ExpireLots, GrantCredits, HoldCredits
from ledger.domain.consideration import Consideration, Worth
from ledger.domain.journal import postings
from ledger.domain.prepaying import prepaid_subscription
from ledger.domain.refusals import (
    InsufficientCredits,
    InvalidAmount,
    LotDisputed,
    LotNotFound,
    RefundTooLarge,
)
from ledger.domain.view import plan_in_force
from ledger.errors import IdempotencyConflict
from ledger.followups.sweeper import Sweeper
from ledger.identifiers import AccountId
from ledger.money import BTC, USD, USDT, Money
from ledger.plans import PLANS
from ledger.service import Ledger
from rails.contract import ReceiptState, Refund, RefundTo
from rails.domain import events
from rails.domain.payment import MoneyNotInSuspense
from rails.domain.purchases import PlanSold
from rails.domain.refunding import RefundState, ResolveRefund
from rails.domain.refusals import (
    DestinationMissing,
    DestinationNotTaken,
    NothingToRefund,
    RefundNotByHand,
    RefundTooLate,
    RefundUnclear,
    RefundUnderWay,
)
from rails.domain.topup import TopupState
from rails.payments.refunds import RULES, RefundOutcomeUnknown
from rails.store.tables import REFUNDS
from rails.testing.fake_rail import FakeRail, fake_capabilities
from tests.gateway.stack import QuietRail
from tests.rails.core.platform import Platform, on_postgres, opened, settled
from tests.rails.core.refunding import ACTOR, act, paid, refund_of, request, send_all, spend, waiting

# --- asking ----------------------------------------------------------------------------------------


async def test_a_refund_holds_the_credits_and_is_sent_afterwards(either: Platform) -> None:
    topup = await paid(either)
    refund_id = await request(either, topup)
    account = await either.account(topup.account_id)
    assert (account.posted(either.clock()), account.available(either.clock())) == (500, 0)
    assert either.network.refunded == []
    await send_all(either)
    assert [amount for _, amount, _ in either.network.refunded] == [Money(500, USD)]
    assert (await refund_of(either, topup, refund_id)).state is RefundState.SENT
    assert await either.posted(topup.account_id) == 0
    assert await waiting(either) == []
    seen = await either.payments.topup(topup.payment_id)
    assert (seen.state, seen.credited) == (TopupState.PAID, 0)
    assert [refund["state"] for refund in seen.to_json()["refunds"]] == ["sent"]


async def test_only_unspent_credits_are_refunded(platform: Platform) -> None:
    topup = await paid(platform)
    await spend(platform, topup.account_id, 200)
    await request(platform, topup)
    await send_all(platform)
    assert [amount for _, amount, _ in platform.network.refunded] == [Money(300, USD)]
    with pytest.raises(NothingToRefund):
        await request(platform, topup)


async def test_parts_are_refunded_one_after_the_other_and_never_more_than_is_left(platform: Platform) -> None:
    topup = await paid(platform)
    with pytest.raises(LotNotFound):
        await request(platform, topup, credits=501)
    with pytest.raises(RefundTooLarge):
        await request(platform, topup, credits=100, amount_minor=101)
    with pytest.raises(InvalidAmount):
        await request(platform, topup, amount_minor=0)
    await request(platform, topup, credits=100)
    with pytest.raises(RefundUnderWay):
        await request(platform, topup, credits=100)
    await send_all(platform)
    await request(platform, topup, amount_minor=150)
    await send_all(platform)
    assert [amount.minor for _, amount, _ in platform.network.refunded] == [100, 150]
    assert await platform.posted(topup.account_id) == 250
    assert (await platform.payments.topup(topup.payment_id)).credited == 250


async def test_the_same_key_is_one_refund_and_a_refusal_does_not_use_it_up(platform: Platform) -> None:
    topup = await paid(platform)
    first = await request(platform, topup, key="cmd_1", credits=100)
    assert await request(platform, topup, key="cmd_1", credits=100) == first
    with pytest.raises(IdempotencyConflict):
        await request(platform, topup, key="cmd_1", credits=101)
    with pytest.raises(RefundUnderWay):
        await request(platform, topup, key="cmd_2", credits=100)
    await send_all(platform)
    assert await request(platform, topup, key="cmd_2", credits=100) != first


async def test_of_two_payments_of_one_payment_request_one_has_to_be_named(platform: Platform) -> None:
    topup = await paid(platform)
    await platform.pay(topup.payment_id, 300)
    await settled(platform, topup)
    with pytest.raises(RefundUnclear) as refused:
        await request(platform, topup)
    for lot_id in refused.value.details["lots"]:
        await request(platform, topup, lot_id=lot_id)
        await send_all(platform)
    assert {amount.minor for _, amount, _ in platform.network.refunded} == {500, 300}


async def test_on_request_it_is_refunded_for_some_days_only(platform: Platform) -> None:
    topup = await paid(platform)
    platform.clock.advance(timedelta(days=14, seconds=1))
    with pytest.raises(RefundTooLate):
        await request(platform, topup, days_max=14)
    await request(platform, topup)


async def test_bitcoin_goes_back_in_whole_satoshi(platform: Platform) -> None:
    topup = await opened(platform, wanted=500, pay_asset="BTC")
    await platform.pay(topup.payment_id)
    await settled(platform, topup)
    await spend(platform, topup.account_id, 333)
    await request(platform, topup, credits=166)
    await send_all(platform)
    [(_, amount, _)] = platform.network.refunded
    assert amount.asset == BTC
    assert amount.minor % 1_000 == 0
    assert 0 <= 166 * 10_000 - amount.minor < 1_000


async def test_where_money_goes_is_named_where_the_rail_needs_it_and_only_there(platform: Platform) -> None:
    topup = await paid(platform)
    with pytest.raises(DestinationNotTaken):
        await request(platform, topup, destination="lnbc1")
    platform.rails["fake"] = FakeRail(
        platform.network, capabilities=fake_capabilities((USD,), refund_to=RefundTo.INVOICE)
    )
    with pytest.raises(DestinationMissing):
        await request(platform, topup)
    await request(platform, topup, destination="lnbc1")
    await send_all(platform)
    assert [where for _, _, where in platform.network.refunded] == ["lnbc1"]


async def test_what_sending_may_cost_is_kept_back_from_whoever_asks_for_a_refund(platform: Platform) -> None:
    """Else who owns the last hop of a route would earn its fee with every top-up that is refunded."""
    dear = replace(
        fake_capabilities((BTC,), refund_to=RefundTo.INVOICE),
        refund_fee_per_mille=10,
        refund_fee_least=10_000,
    )
    platform.rails["fake"] = FakeRail(platform.network, capabilities=dear)
    for credits_, sent in ((500, 4_950_000), (2, 10_000)):
        topup = await opened(platform, wanted=credits_, pay_asset="BTC")
        await platform.pay(topup.payment_id)
        await settled(platform, topup)
        await request(platform, topup, destination="lnbc1", days_max=14)
        await send_all(platform)
        assert platform.network.refunded[-1][1] == Money(sent, BTC)
    worth_its_fee = await opened(platform, wanted=1, pay_asset="BTC")
    await platform.pay(worth_its_fee.payment_id)
    await settled(platform, worth_its_fee)
    with pytest.raises(NothingToRefund):
        await request(platform, worth_its_fee, destination="lnbc1", days_max=14)
    await request(platform, worth_its_fee, destination="lnbc1")


# --- what comes of it ------------------------------------------------------------------------------


async def test_a_refund_that_fails_gives_the_credits_back(platform: Platform) -> None:
    topup = await paid(platform)
    platform.network.refund_outcome = Refund.FAILED
    refund_id = await request(platform, topup)
    await send_all(platform)
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.FAILED
    assert (await platform.account(topup.account_id)).available(platform.clock()) == 500
    platform.network.refund_outcome = Refund.SENT
    await request(platform, topup)
    await send_all(platform)
    assert await platform.posted(topup.account_id) == 0


async def test_unknown_is_asked_again_and_never_sent_again(platform: Platform) -> None:
    topup = await paid(platform)
    platform.network.refund_outcome = Refund.UNKNOWN
    refund_id = await request(platform, topup)
    [row] = await waiting(platform)
    for _ in range(3):
        with pytest.raises(RefundOutcomeUnknown):
            await platform.payments.refunds.send(row)
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.UNKNOWN
    assert (await platform.account(topup.account_id)).available(platform.clock()) == 0
    platform.network.refund_outcome = Refund.SENT
    await send_all(platform)
    assert len(platform.network.refunded) == 1
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.SENT


async def test_a_lost_answer_is_asked_for_again(platform: Platform) -> None:
    topup = await paid(platform)
    await request(platform, topup)
    platform.network.answers_to_lose = 1
    await send_all(platform)
    await send_all(platform)
    assert len(platform.network.refunded) == 1
    assert await platform.posted(topup.account_id) == 0


async def test_while_the_rail_is_away_it_waits(platform: Platform) -> None:
    topup = await paid(platform)
    refund_id = await request(platform, topup)
    platform.network.down = True
    await send_all(platform)
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.REQUESTED
    platform.network.down = False
    await send_all(platform)
    assert await platform.posted(topup.account_id) == 0


async def test_a_refund_that_bounces_days_later_gives_the_credits_back(platform: Platform) -> None:
    topup = await paid(platform)
    refund_id = await request(platform, topup, credits=200)
    await send_all(platform)
    platform.clock.advance(timedelta(days=5))
    await platform.network.fail_refund(refund_id)
    for _ in range(2):
        await platform.payments.observe(topup.payment_id)
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.RETURNED
    assert (await platform.account(topup.account_id)).available(platform.clock()) == 500
    assert (await platform.payments.topup(topup.payment_id)).credited == 500


async def test_after_a_bounce_a_dispute_takes_what_came_back_too(platform: Platform) -> None:
    topup = await paid(platform)
    refund_id = await request(platform, topup, credits=200)
    await send_all(platform)
    await platform.network.fail_refund(refund_id)
    await platform.payments.observe(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    [money] = platform.network.way(reference).receipts
    await platform.network.change(reference, money, ReceiptState.DISPUTED)
    await platform.payments.observe(topup.payment_id)
    assert await platform.posted(topup.account_id) == 0


async def test_what_went_back_outside_comes_on_top_of_our_own(platform: Platform) -> None:
    topup = await paid(platform)
    await request(platform, topup, credits=200)
    await send_all(platform)
    reference = await platform.reference(topup.payment_id)
    [money] = platform.network.way(reference).receipts
    await platform.network.change(reference, money, ReceiptState.SETTLED, 100)
    await platform.payments.observe(topup.payment_id)
    assert await platform.posted(topup.account_id) == 200
    await request(platform, topup)
    await send_all(platform)
    assert sum(amount.minor for _, amount, _ in platform.network.refunded) == 400


async def test_disputed_money_is_not_refunded(platform: Platform) -> None:
    topup = await paid(platform)
    await spend(platform, topup.account_id, 500)
    await platform.pay(topup.payment_id, 100)
    await settled(platform, topup)
    reference = await platform.reference(topup.payment_id)
    first = next(iter(platform.network.way(reference).receipts))
    await platform.network.change(reference, first, ReceiptState.DISPUTED)
    await platform.payments.observe(topup.payment_id)
    with pytest.raises(LotDisputed):
        await request(platform, topup)


async def test_what_a_pass_had_left_to_live_it_has_again_after_a_bounce(platform: Platform) -> None:
    topup = await paid(platform)
    ends = platform.clock() + timedelta(days=10)
    await spend(platform, topup.account_id, 500)
    paid_for = Consideration(asset=USD, worth=Worth(500), rail="fake", payment_id=topup.payment_id)
    [lot_id] = [
        event.event.lot_id for event in platform.log.log if isinstance(event.event, events.PaymentSettled)
    ]
    await act(
        platform,
        topup.account_id,
        GrantCredits(lot_id=f"{lot_id}_rest", credits=50, consideration=paid_for, expires_at=ends),
    )
    refund_id = await request(platform, topup, amount_minor=100)
    await send_all(platform)
    platform.clock.advance(timedelta(days=30))
    await act(platform, topup.account_id, ExpireLots())
    await platform.network.fail_refund(refund_id)
    await platform.payments.observe(topup.payment_id)
    account = await platform.account(topup.account_id)
    assert account.available(platform.clock()) == 10
    [lot] = account.lots
    assert lot.terms.expires_at is not None
    assert lot.terms.expires_at - platform.clock() == timedelta(days=10)


async def test_the_books_of_a_refund_and_its_return_add_up_to_what_was_kept(platform: Platform) -> None:
    topup = await paid(platform)
    refund_id = await request(platform, topup, credits=200, amount_minor=150)
    await send_all(platform)
    await platform.network.fail_refund(refund_id)
    await platform.payments.observe(topup.payment_id)
    sums: dict[str, int] = {}
    for envelope in await platform.log.events(topup.account_id):
        for posting in postings(envelope.event):
            if posting.asset == USD:
                sums[posting.account] = sums.get(posting.account, 0) + posting.amount_minor
    assert sum(sums.values()) == 0
    assert sums["Liabilities:Clearing:Fake"] == 500
    assert sums["Liabilities:Deferred:Fake"] == -450
    assert sums["Income:Retained:Fake"] == -50


# --- by hand ---------------------------------------------------------------------------------------


@pytest.fixture
async def watching(platform: Platform) -> Platform:
    """A core whose rail can only watch."""
    platform.rails["fake"] = QuietRail(
        FakeRail(platform.network, capabilities=fake_capabilities((USD,), refund_to=RefundTo.ADDRESS))
    )
    return platform


async def test_what_a_rail_cannot_send_an_operator_sends_and_records(watching: Platform) -> None:
    topup = await paid(watching)
    refund_id = await request(watching, topup, destination="el1qq")
    assert await waiting(watching) == [], "no sweeper tries"
    sent = ResolveRefund(refund_id=refund_id, outcome=Refund.SENT, external_ref="txid")
    for _ in range(2):
        await watching.payments.refunds.end_by_hand(topup.payment_id, sent, actor=ACTOR, key="cmd_1")
    refund = await refund_of(watching, topup, refund_id)
    assert (refund.state, refund.external_ref) == (RefundState.SENT, "txid")
    assert await watching.posted(topup.account_id) == 0
    with pytest.raises(RefundNotByHand):
        await watching.payments.refunds.end_by_hand(topup.payment_id, sent, actor=ACTOR)
    assert [row for row in watching.log.tables if row[0] == "rail_refunds"] == []


async def test_what_a_rail_sends_nobody_records_by_hand(platform: Platform) -> None:
    topup = await paid(platform)
    refund_id = await request(platform, topup)
    failed = ResolveRefund(refund_id=refund_id, outcome=Refund.FAILED)
    with pytest.raises(RefundNotByHand):
        await platform.payments.refunds.end_by_hand(topup.payment_id, failed, actor=ACTOR)


# --- money in suspense -----------------------------------------------------------------------------


async def test_money_in_suspense_goes_back_whole_and_is_not_credited_meanwhile(platform: Platform) -> None:
    topup = await opened(platform)
    money = await platform.pay(topup.payment_id, 2_000_000, USDT)
    assert (await settled(platform, topup)).state is TopupState.SUSPENSE
    refund_id = await request(platform, topup, money_ref=money)
    with pytest.raises(MoneyNotInSuspense):
        await platform.payments.accept_funds(topup.payment_id, money, ACTOR)
    with pytest.raises(RefundUnderWay):
        await request(platform, topup, money_ref=money)
    await send_all(platform)
    assert [amount for _, amount, _ in platform.network.refunded] == [Money(2_000_000, USDT)]
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.REVERSED
    with pytest.raises(NothingToRefund):
        await request(platform, topup, money_ref=money)
    await platform.network.fail_refund(refund_id)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.SUSPENSE


# --- guests ----------------------------------------------------------------------------------------


async def test_a_refund_under_way_ends_at_the_guest_who_asked_and_what_fails_goes_on(
    either: Platform,
) -> None:
    topup = await paid(either)
    person = either.ids.account()
    ledger = Ledger(either.log, either.log, clock=either.clock, identifiers=either.ids)
    refund_id = await request(either, topup, credits=200)
    await ledger.merge(AccountId(topup.account_id), AccountId(person))
    assert await either.posted(person) == 300
    either.network.refund_outcome = Refund.FAILED
    await send_all(either)
    assert (await refund_of(either, topup, refund_id)).state is RefundState.FAILED
    await ledger.merge(AccountId(topup.account_id), AccountId(person))
    assert await either.posted(person) == 500
    either.network.refund_outcome = Refund.SENT
    lots = [lot.terms.lot_id for lot in (await either.account(person)).lots]
    for lot_id in lots:
        await request(either, topup, lot_id=lot_id)  # of the guest's payment, out of the person's credits
        await send_all(either)
    assert sum(amount.minor for _, amount, _ in either.network.refunded[1:]) == 500
    assert await either.posted(person) == 0
    assert (await either.payments.topup(topup.payment_id)).credited == 0


# --- races -----------------------------------------------------------------------------------------


async def test_of_spending_and_refunding_at_once_in_two_processes_one_wins(
    rails_template: str, make_database: Callable[..., str]
) -> None:
    url = make_database(rails_template)
    async with on_postgres(url) as one, on_postgres(url) as other:
        for _ in range(8):
            topup = await paid(one)
            other.network, other.rails["fake"] = one.network, one.rails["fake"]
            hold = HoldCredits(
                hold_id=one.ids.hold(),
                job_id="job",
                credits=500,
                deadline=one.clock() + timedelta(minutes=5),
                allowance=False,
            )
            answers = await asyncio.gather(
                request(other, topup), act(one, topup.account_id, hold), return_exceptions=True
            )
            refused = [answer for answer in answers if isinstance(answer, Exception)]
            assert len(refused) == 1, answers
            assert isinstance(refused[0], InsufficientCredits | NothingToRefund)


async def test_two_processes_that_sweep_and_are_asked_at_once_send_each_refund_once(
    rails_template: str, make_database: Callable[..., str]
) -> None:
    url = make_database(rails_template)
    async with on_postgres(url) as one, on_postgres(url) as other:
        other.rails.update(one.rails)
        topups = [await paid(one) for _ in range(5)]
        asked = [request(each, topup) for topup in topups for each in (one, other) for _ in range(2)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert len([answer for answer in answers if isinstance(answer, str)]) == 5
        sweepers = [
            Sweeper(
                REFUNDS,
                each.payments.refunds.send,
                engine=each.store._engine,
                clock=each.clock,
                randomness=random.Random(1),
                rules=RULES,
            )
            for each in (one, other)
        ]
        done = await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
        assert sum(done) == 5
        assert await waiting(one) == []
        assert len(one.network.refunded) == 5
        for topup in topups:
            assert await one.posted(topup.account_id) == 0


async def test_a_plan_ends_with_the_last_of_its_credits_that_is_refunded(either: Platform) -> None:
    person = either.ids.account()
    plan = PlanSold(plan=PLANS["pro"].sold_for(1), months=1, subscription_id=prepaid_subscription(person))
    topup = await opened(either, person, purchase=plan)
    await either.pay(topup.payment_id)
    topup = await settled(either, topup)

    async def in_force() -> str:
        return plan_in_force(await either.account(person), either.clock()).name

    await request(either, topup, credits=3_000)
    await send_all(either)
    assert await in_force() == "pro", "some of it is still there"
    await request(either, topup)
    assert await in_force() == "pro", "it is not sent yet"
    await send_all(either)
    assert await in_force() == "free"
