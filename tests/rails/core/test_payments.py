"""The payment core with a fake rail and the real ledger domain."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger.domain.merging import decide_merge
from ledger.errors import TooBusy
from ledger.log.model import Transaction
from ledger.money import BTC, USD, USDT, Money
from rails.contract import HintRejected, PieceState, RailUnavailable, Standing
from rails.payment_state import PaymentNotFound
from rails.recording import Companion
from rails.refusals import (
    AmountTooLarge,
    AmountTooSmall,
    AssetNotAccepted,
    MoneyCreditedElsewhere,
    NoWebhooks,
    RailClosed,
    TooManyOpenPayments,
    TopupUnclear,
    UnknownRail,
)
from rails.service import UnknownReference
from rails.topup import TopupState, TopupView
from tests.rails.core.platform import RETURN_URL, Platform, make_platform


@pytest.fixture
def platform() -> Platform:
    return make_platform()


@pytest.fixture
def account_id(platform: Platform) -> str:
    return platform.ids.account()


async def opened(platform: Platform, account_id: str, **asked: Any) -> TopupView:
    asked = asked or {"wanted": 500}
    return await platform.payments.open_topup(account_id, "fake", return_url=RETURN_URL, **asked)


async def settled(platform: Platform, topup: TopupView) -> TopupView:
    await platform.network.settle()
    return await platform.payments.observe(topup.payment_id)


# --- opening ---------------------------------------------------------------------------------------


async def test_a_topup_waits_with_instructions_and_a_quote(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    assert topup.state is TopupState.WAITING
    assert topup.amount_due == Money(500, USD)
    assert topup.credits == 500
    assert topup.instructions is not None
    assert topup.instructions["kind"] == "address"
    assert topup.quote_expires_at == platform.clock() + timedelta(minutes=15)
    assert await platform.posted(account_id) == 0


async def test_credits_are_quoted_in_the_asset_to_pay_with(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=500, pay_asset="BTC")
    assert topup.amount_due == Money(5_000_000, BTC)  # 5 USD at 100,000 are 5,000 sat, in millisatoshi
    assert topup.to_json()["quote"]["rate"] == {
        "numerator": "1",
        "denominator": "10000",
        "from": "BTC",
        "to": "USD",
    }


async def test_an_amount_in_dollars_is_rounded_up_in_the_asset_to_pay_with(
    platform: Platform, account_id: str
) -> None:
    platform.rates.prices["BTC"] *= 3
    topup = await opened(platform, account_id, amount=Money(100, USD), pay_asset="BTC")
    assert topup.amount_due == Money(333_334, BTC)
    assert topup.credits == 100


async def test_what_cannot_be_sold_is_refused_by_name(platform: Platform, account_id: str) -> None:
    with pytest.raises(UnknownRail):
        await platform.payments.open_topup(account_id, "shells", wanted=1, return_url=RETURN_URL)
    for asked, refusal in (
        ({"wanted": 500, "pay_asset": "DOGE"}, AssetNotAccepted),
        ({"amount": Money(5, BTC)}, AssetNotAccepted),
        ({"wanted": 0}, AmountTooSmall),
        ({"wanted": -5}, AmountTooSmall),
        ({"amount": Money(-5, USD)}, AmountTooSmall),
        ({"wanted": 10**30}, AmountTooLarge),
        ({"wanted": 5, "amount": Money(5, USD)}, TopupUnclear),
        ({"pay_asset": "USD"}, TopupUnclear),
    ):
        with pytest.raises(refusal):
            await opened(platform, account_id, **asked)
    assert platform.network.calls == []


async def test_without_a_fresh_rate_the_rail_says_so_and_closes(platform: Platform, account_id: str) -> None:
    del platform.rates.prices["BTC"]
    with pytest.raises(RailClosed) as refusal:
        await opened(platform, account_id, wanted=500, pay_asset="BTC")
    assert refusal.value.reason
    shown = platform.payments.rails()["rails"][0]
    assert [asset["open"] for asset in shown["assets"]] == [True, False, True]


async def test_one_key_opens_one_payment_for_ever(platform: Platform, account_id: str) -> None:
    first = await opened(platform, account_id, wanted=500, key="cmd_1")
    platform.clock.advance(timedelta(days=400))
    assert (await opened(platform, account_id, wanted=500, key="cmd_1")).payment_id == first.payment_id
    assert platform.network.calls.count("open") == 1


async def test_open_payments_of_an_account_are_bounded(platform: Platform, account_id: str) -> None:
    for _ in range(platform.payments.limits.open_per_account):
        await opened(platform, account_id)
    with pytest.raises(TooManyOpenPayments):
        await opened(platform, account_id)


async def test_a_crash_before_the_answer_is_healed_with_the_same_way_to_pay(
    platform: Platform, account_id: str
) -> None:
    platform.network.answers_to_lose = 1
    topup = await opened(platform, account_id)
    assert topup.state is TopupState.OPENING
    assert topup.instructions is None
    await platform.payments.observe_pending("fake")
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.WAITING
    assert platform.network.calls.count("open") == 2


async def test_another_attempt_belongs_to_the_same_topup(platform: Platform, account_id: str) -> None:
    first = await opened(platform, account_id)
    platform.clock.advance(timedelta(seconds=1))
    second = await opened(platform, account_id, wanted=500, pay_asset="BTC", attempt_of=first.payment_id)
    platform.clock.advance(timedelta(seconds=1))
    third = await opened(platform, account_id, wanted=500, attempt_of=second.payment_id)
    for topup in (first, second, third):
        attempts = await platform.payments.attempts(topup.payment_id)
        assert [a.payment_id for a in attempts] == [t.payment_id for t in (first, second, third)]
    with pytest.raises(PaymentNotFound):
        await opened(platform, platform.ids.account(), wanted=1, attempt_of=first.payment_id)


async def test_two_attempts_that_are_both_paid_are_both_credited(platform: Platform, account_id: str) -> None:
    first = await opened(platform, account_id)
    second = await opened(platform, account_id, wanted=500, attempt_of=first.payment_id)
    for topup in (first, second):
        await platform.pay(topup.payment_id)
        await settled(platform, topup)
    assert await platform.posted(account_id) == 1000


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


async def test_money_that_vanishes_was_never_credited(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    await platform.payments.observe(topup.payment_id)
    await platform.network.forget(await platform.reference(topup.payment_id), money_ref)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.WAITING


async def test_one_piece_of_money_is_never_credited_to_two_payments(
    platform: Platform, account_id: str
) -> None:
    first, second = await opened(platform, account_id), await opened(platform, account_id)
    money_ref = await platform.pay(first.payment_id)
    await settled(platform, first)
    piece = platform.network.way(await platform.reference(first.payment_id)).pieces[money_ref]
    await platform.network.put(await platform.reference(second.payment_id), piece)
    with pytest.raises(MoneyCreditedElsewhere):
        await platform.payments.observe(second.payment_id)
    assert await platform.posted(account_id) == 500


# --- back again ------------------------------------------------------------------------------------


async def paid(platform: Platform, account_id: str) -> tuple[TopupView, str, str]:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    await settled(platform, topup)
    return topup, money_ref, await platform.reference(topup.payment_id)


async def test_a_reversal_takes_the_credits_back(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, PieceState.REVERSED)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.REVERSED
    assert await platform.posted(account_id) == 0


async def test_a_partial_reversal_leaves_what_the_rest_is_worth(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, PieceState.SETTLED, 120)
    assert (await platform.payments.observe(topup.payment_id)).credited == 380
    await platform.network.change(reference, money_ref, PieceState.SETTLED, 200)
    await platform.payments.observe(topup.payment_id)
    assert await platform.posted(account_id) == 300


async def test_a_failed_refund_gives_the_credits_back(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, PieceState.SETTLED, 120)
    await platform.payments.observe(topup.payment_id)
    await platform.network.change(reference, money_ref, PieceState.SETTLED)
    await platform.payments.observe(topup.payment_id)
    assert await platform.posted(account_id) == 500


async def test_a_dispute_takes_the_credits_and_winning_it_gives_them_back(
    platform: Platform, account_id: str
) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    await platform.network.change(reference, money_ref, PieceState.DISPUTED)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.DISPUTED
    assert await platform.posted(account_id) == 0
    await platform.network.change(reference, money_ref, PieceState.SETTLED)
    assert (await platform.payments.observe(topup.payment_id)).state is TopupState.PAID
    assert await platform.posted(account_id) == 500


async def test_a_lost_dispute_stays_taken(platform: Platform, account_id: str) -> None:
    topup, money_ref, reference = await paid(platform, account_id)
    for state in (PieceState.DISPUTED, PieceState.REVERSED):
        await platform.network.change(reference, money_ref, state)
        await platform.payments.observe(topup.payment_id)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.REVERSED
    assert await platform.posted(account_id) == 0
    assert (await platform.account(account_id)).standing.disputes == ()


async def test_disputed_while_we_were_down_is_credited_and_taken_at_once(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id)
    money_ref = await platform.pay(topup.payment_id)
    await platform.network.change(await platform.reference(topup.payment_id), money_ref, PieceState.DISPUTED)
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


# --- the way to pay --------------------------------------------------------------------------------


async def test_an_expired_way_to_pay_still_finds_its_payer(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    platform.clock.set(topup.quote_expires_at)
    assert (await platform.payments.expire(topup.payment_id)).state is TopupState.EXPIRED
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID


async def test_a_decline_is_said_and_the_next_try_may_succeed(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    await platform.network.stand(
        await platform.reference(topup.payment_id), Standing.DECLINED, "card_declined"
    )
    declined = await platform.payments.observe(topup.payment_id)
    assert declined.state is TopupState.DECLINED
    assert declined.to_json()["decline_code"] == "card_declined"
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID


async def test_cancelling_frees_a_place_among_open_payments(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    assert (await platform.payments.cancel(topup.payment_id)).state is TopupState.EXPIRED
    assert await platform.store.count_unpaid(account_id) == 0


async def test_an_unknown_payment_is_not_found(platform: Platform) -> None:
    for ask in (platform.payments.topup, platform.payments.observe, platform.payments.attempts):
        with pytest.raises(PaymentNotFound):
            await ask("pay_00000000000000000000000000")


# --- holds -----------------------------------------------------------------------------------------


async def test_a_capture_grants_and_decides_for_its_companion_in_one_transaction(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id, wanted=1, hold=True, job_id="job_1")
    await platform.pay(topup.payment_id)
    held = await platform.payments.observe(topup.payment_id)
    assert held.state is TopupState.SEEN
    assert await platform.posted(account_id) == 0
    seen: list[int] = []

    def decide(draft: Any, payment: Any, happened: Any) -> None:
        assert payment.facts().job_id == "job_1"
        assert len(happened) == 1
        seen.append(draft.state(account_id).posted(draft.now))

    await platform.payments.capture(topup.payment_id, Companion(decide=decide))
    assert seen == [1]
    assert await platform.posted(account_id) == 1


async def test_released_money_was_never_ours(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=1, hold=True)
    await platform.pay(topup.payment_id)
    await platform.payments.observe(topup.payment_id)
    released = await platform.payments.release(topup.payment_id)
    assert released.state is TopupState.WAITING
    assert released.received[0].state == "released"
    assert await platform.posted(account_id) == 0


# --- hints -----------------------------------------------------------------------------------------


async def test_a_webhook_is_verified_stored_once_and_answered(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    headers, body = platform.network.webhook(await platform.reference(topup.payment_id), "evt_1")
    assert (
        await platform.payments.accept_hint("fake", {"Fake-Signature": headers["fake-signature"]}, body) == 1
    )
    assert await platform.payments.accept_hint("fake", headers, body) == 0
    assert await platform.store.waiting_hints("fake") == 1
    with pytest.raises(HintRejected):
        await platform.payments.accept_hint("fake", {}, body)
    with pytest.raises(UnknownRail):
        await platform.payments.accept_hint("shells", headers, body)


async def test_the_inbox_is_bounded(platform: Platform, account_id: str) -> None:
    object.__setattr__(platform.payments.limits, "hints_waiting_max", 1)
    for number, expectation in ((1, None), (2, TooBusy)):
        headers, body = platform.network.webhook("fake-1", f"evt_{number}")
        if expectation is None:
            await platform.payments.accept_hint("fake", headers, body)
        else:
            with pytest.raises(expectation):
                await platform.payments.accept_hint("fake", headers, body)


async def test_a_hint_about_nothing_of_ours_is_said(platform: Platform) -> None:
    with pytest.raises(UnknownReference):
        await platform.payments.deal_with("fake", "fake-of-someone-else")


async def test_an_unreachable_rail_changes_nothing(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    platform.network.down = True
    with pytest.raises(RailUnavailable):
        await platform.payments.observe(topup.payment_id)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.WAITING


async def test_erased_instructions_leave_the_payment_payable(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    await platform.store.erase_instructions(topup.payment_id)
    assert (await platform.payments.topup(topup.payment_id)).instructions is None
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID


async def test_a_rail_without_webhooks_takes_none(platform: Platform) -> None:
    class Deaf:
        name = "deaf"

    platform.payments._rails["deaf"] = Deaf()  # type: ignore[index]
    with pytest.raises(NoWebhooks):
        await platform.payments.accept_hint("deaf", {}, b"")


async def test_money_of_a_merged_guest_reaches_the_person(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    person_id = platform.ids.account()

    def merge(draft: Any) -> Any:
        out, into = decide_merge(
            draft.state(account_id), draft.state(person_id), account_id, person_id, draft.now
        )
        draft.append(account_id, out)
        draft.append(person_id, into)
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
