"""What the payment core does with money that arrives, and with money that goes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger.domain.merging import decide_merge
from ledger.log.model import Transaction
from ledger.money import BTC, USDT, Money
from rails.contract import ReceiptState
from rails.domain.refusals import (
    MoneyCreditedElsewhere,
)
from rails.domain.topup import TopupState, TopupView
from tests.rails.core.platform import Platform, opened, settled

# --- money -----------------------------------------------------------------------------------------


async def test_settlement_and_grant_are_one_transaction(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    await platform.pay(topup.payment_id)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.SEEN
    assert await platform.posted(account_id) == 0
    paid = await settled(platform, topup)
    assert paid.state is TopupState.PAID
    assert paid.credited == 500
    assert await platform.posted(account_id) == 500
    newest = platform.log.log[-2:]
    assert [envelope.stream for envelope in newest] == [topup.payment_id, account_id]
    assert len({envelope.batch for envelope in newest}) == 1
    lot = newest[1].event
    assert lot.lot_id == newest[0].event.lot_id
    assert lot.consideration.payment_id == topup.payment_id
    assert lot.consideration.worth.gross_minor == 500
    assert lot.consideration.worth.usd_minor == 500


async def test_the_same_news_again_writes_nothing(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    await platform.pay(topup.payment_id)
    await settled(platform, topup)
    before = len(platform.log.log)
    for _ in range(3):
        await platform.payments.observe(topup.payment_id)
    assert len(platform.log.log) == before


async def test_an_underpayment_is_credited_and_the_rest_may_follow(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    await platform.pay(topup.payment_id, 1_234_567)
    partial = await settled(platform, topup)
    assert partial.state is TopupState.UNDERPAID
    assert partial.credited == 123
    assert partial.amount_missing == Money(5_000_000 - 1_234_567, BTC)
    await platform.pay(topup.payment_id, partial.amount_missing.minor)
    full = await settled(platform, topup)
    assert full.state is TopupState.PAID
    assert full.credited == 500


async def test_an_overpayment_is_credited_wholly(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    await platform.pay(topup.payment_id, 750)
    assert (await settled(platform, topup)).state is TopupState.PAID
    assert await platform.posted(account_id) == 750


async def test_money_within_an_hour_of_the_expiry_gets_the_quotes_rate(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    platform.clock.set(topup.quote_expires_at + timedelta(minutes=60))
    platform.rates.prices["BTC"] *= 2
    await platform.payments.expire(topup.payment_id)
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID
    assert await platform.posted(account_id) == 500


async def test_later_money_gets_the_rate_at_crediting(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    platform.clock.set(topup.quote_expires_at + timedelta(minutes=60, microseconds=1))
    platform.rates.prices["BTC"] *= 2
    await platform.pay(topup.payment_id)
    await settled(platform, topup)
    assert await platform.posted(account_id) == 1000


async def test_money_without_a_rate_is_granted_when_one_returns(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    platform.clock.advance(timedelta(days=2))
    price = platform.rates.prices.pop("BTC")
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.UNPRICED
    await platform.payments.price_unpriced("fake")
    assert await platform.posted(account_id) == 0
    platform.rates.prices["BTC"] = price
    await platform.payments.price_unpriced("fake")
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID
    assert await platform.posted(account_id) == 500


async def test_a_wrong_asset_waits_in_suspense_until_its_payer_agrees(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id, 3 * 10**8, USDT)
    assert (await settled(platform, topup)).state is TopupState.SUSPENSE
    assert await platform.posted(account_id) == 0
    agreed = await platform.payments.accept_funds(topup.payment_id, money_ref, account_id)
    assert agreed.state is TopupState.PAID
    assert await platform.posted(account_id) == 300


async def test_less_than_a_credit_waits_in_suspense(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    await platform.pay(topup.payment_id, 9_999)
    assert (await settled(platform, topup)).state is TopupState.SUSPENSE
    assert await platform.posted(account_id) == 0


async def test_a_rest_that_buys_no_credit_is_not_asked_for(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    await platform.pay(topup.payment_id, 4_995_000)
    most = await settled(platform, topup)
    assert (most.state, most.credited) == (TopupState.PAID, 499)


async def test_a_rest_that_buys_a_credit_is_asked_for(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    await platform.pay(topup.payment_id, 4_990_000)
    short = await settled(platform, topup)
    assert (short.state, short.credited) == (TopupState.UNDERPAID, 499)
    assert short.amount_missing == Money(10_000, BTC)


async def test_money_that_vanishes_was_never_credited(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    await platform.payments.observe(topup.payment_id)
    await platform.network.forget(await platform.reference(topup.payment_id), money_ref)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.WAITING


async def test_one_funds_receipt_is_never_credited_to_two_payments(
    platform: Platform, account_id: str
) -> None:
    first, second = await opened(platform, account_id), await opened(platform, account_id)
    money_ref = await platform.pay(first.payment_id)
    await settled(platform, first)
    receipt = platform.network.way(await platform.reference(first.payment_id)).receipts[money_ref]
    await platform.network.put(await platform.reference(second.payment_id), receipt)
    with pytest.raises(MoneyCreditedElsewhere):
        await platform.payments.observe(second.payment_id)
    assert await platform.posted(account_id) == 500


async def test_money_of_a_merged_guest_reaches_the_person(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    person_id = platform.ids.account()

    def merge(uow: Any) -> Any:
        out, into = decide_merge(uow.state(account_id), uow.state(person_id), account_id, person_id, uow.now)
        uow.append(account_id, out)
        uow.append(person_id, into)
        return {}

    await platform.log.submit(
        Transaction(
            key=platform.ids.command(), actor="test", body={}, streams=(account_id, person_id), decide=merge
        )
    )
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).account_id == person_id
    assert await platform.posted(person_id) == 500
    assert await platform.posted(account_id) == 0


# --- back again ------------------------------------------------------------------------------------


async def paid(platform: Platform, account_id: str) -> tuple[TopupView, str, str]:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    await settled(platform, topup)
    return topup, money_ref, await platform.reference(topup.payment_id)


async def test_a_reversal_takes_the_credits_back(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, ReceiptState.REVERSED)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.REVERSED
    assert await platform.posted(account_id) == 0


async def test_a_partial_reversal_leaves_what_the_rest_is_worth(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, ReceiptState.SETTLED, 120)
    assert (await platform.payments.observe(topup.payment_id)).credited == 380
    await platform.network.change(reference, money_ref, ReceiptState.SETTLED, 200)
    await platform.payments.observe(topup.payment_id)
    assert await platform.posted(account_id) == 300


async def test_a_failed_refund_gives_the_credits_back(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, ReceiptState.SETTLED, 120)
    await platform.payments.observe(topup.payment_id)
    await platform.network.change(reference, money_ref, ReceiptState.SETTLED)
    await platform.payments.observe(topup.payment_id)
    assert await platform.posted(account_id) == 500


async def test_a_dispute_takes_the_credits_and_winning_it_gives_them_back(
    platform: Platform, account_id: str
) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, ReceiptState.DISPUTED)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.DISPUTED
    assert await platform.posted(account_id) == 0
    await platform.network.change(reference, money_ref, ReceiptState.SETTLED)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.PAID
    assert await platform.posted(account_id) == 500


async def test_a_lost_dispute_stays_taken(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    for state in (ReceiptState.DISPUTED, ReceiptState.REVERSED):
        await platform.network.change(reference, money_ref, state)
        await platform.payments.observe(topup.payment_id)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.REVERSED
    assert await platform.posted(account_id) == 0
    assert (await platform.account(account_id)).status.disputes == ()


async def test_disputed_while_we_were_down_is_credited_and_taken_at_once(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    await platform.network.change(
        await platform.reference(topup.payment_id), money_ref, ReceiptState.DISPUTED
    )
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.DISPUTED
    assert await platform.posted(account_id) == 0


async def test_an_older_answer_cannot_undo_newer_news(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    asked_earlier = platform.clock()
    older = await platform.rails["fake"].observe(reference)
    platform.clock.advance(timedelta(seconds=1))
    await settled(platform, topup)
    await platform.payments._recorder.record(topup.payment_id, older, asked_earlier)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID
    assert await platform.posted(account_id) == 500
    assert money_ref


async def test_what_a_notification_brought_cannot_undo_what_was_asked_later(
    platform: Platform, account_id: str
) -> None:
    """It waits its turn; meanwhile somebody asks, and is told of the money as final."""
    topup = await opened(platform, account_id)
    await platform.pay(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    brought = replace(await platform.rails["fake"].observe(reference), as_of=platform.clock())
    platform.clock.advance(timedelta(seconds=1))
    await settled(platform, topup)
    await platform.payments.deal_with("fake", reference, brought)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID
    assert await platform.posted(account_id) == 500


async def test_what_a_notification_brings_without_its_time_is_asked_again(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id)
    await platform.pay(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    older = await platform.rails["fake"].observe(reference)
    await settled(platform, topup)
    await platform.payments.deal_with("fake", reference, older)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.PAID


async def test_an_answer_counts_as_of_the_time_that_it_names(platform: Platform, account_id: str) -> None:
    """Two polls: the earlier one is asked for later, and written down last."""
    topup = await opened(platform, account_id)
    await platform.pay(topup.payment_id)
    reference = await platform.reference(topup.payment_id)
    earlier = replace(await platform.rails["fake"].observe(reference), as_of=platform.clock())
    await platform.network.settle()
    platform.clock.advance(timedelta(seconds=1))
    later = replace(await platform.rails["fake"].observe(reference), as_of=platform.clock())
    await platform.payments.deal_with("fake", reference, later)
    platform.clock.advance(timedelta(seconds=1))
    await platform.payments.deal_with("fake", reference, earlier)
    assert await platform.posted(account_id) == 500
