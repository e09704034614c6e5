"""The payment core with a fake rail and the real ledger domain: asking for money, and being notified of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger.money import BTC, USD, Money
from rails.contract import Instructions, NotificationRejected, Order, PaymentRequestStatus, RailUnavailable
from rails.domain.refusals import (
    AmountTooLarge,
    AmountTooSmall,
    AssetNotAccepted,
    NoWebhooks,
    RailClosed,
    TopupUnclear,
    UnknownRail,
)
from rails.domain.state import PaymentNotFound
from rails.domain.topup import TopupState
from rails.payments.recording import TransactionHook
from rails.payments.service import NotificationsFull, UnknownReference
from rails.testing.fake_rail import FakeRail
from tests.rails.core.platform import RETURN_URL, Platform, assemble, notifications_waiting, opened, settled

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


async def test_a_crash_before_the_answer_is_healed_with_the_same_payment_request(
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


# --- the payment request --------------------------------------------------------------------------------


async def test_an_expired_payment_request_still_finds_its_payer(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    platform.clock.set(topup.quote_expires_at)
    assert (await platform.payments.expire(topup.payment_id)).state is TopupState.EXPIRED
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID


async def test_a_decline_is_said_and_the_next_try_may_succeed(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    await platform.network.stand(
        await platform.reference(topup.payment_id), PaymentRequestStatus.DECLINED, "card_declined"
    )
    declined = await platform.payments.observe(topup.payment_id)
    assert declined.state is TopupState.DECLINED
    assert declined.to_json()["decline_code"] == "card_declined"
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID


async def test_an_unknown_payment_is_not_found(platform: Platform) -> None:
    for ask in (platform.payments.topup, platform.payments.observe, platform.payments.attempts):
        with pytest.raises(PaymentNotFound):
            await ask("pay_00000000000000000000000000")


# --- holds -----------------------------------------------------------------------------------------


async def test_a_capture_grants_and_decides_for_its_hook_in_one_transaction(
    platform: Platform, account_id: str
) -> None:
    topup = await opened(platform, account_id, wanted=1, hold=True, job_id="job_1")
    await platform.pay(topup.payment_id)
    held = await platform.payments.observe(topup.payment_id)
    assert held.state is TopupState.SEEN
    assert await platform.posted(account_id) == 0
    seen: list[int] = []

    def decide(uow: Any, payment: Any, happened: Any) -> None:
        assert payment.facts().job_id == "job_1"
        assert len(happened) == 1
        seen.append(uow.state(account_id).posted(uow.now))

    await platform.payments.capture(topup.payment_id, TransactionHook(decide=decide))
    assert seen == [1]
    assert await platform.posted(account_id) == 1


async def test_released_money_was_never_ours(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id, wanted=1, hold=True)
    await platform.pay(topup.payment_id)
    await platform.payments.observe(topup.payment_id)
    released = await platform.payments.release(topup.payment_id)
    assert released.state is TopupState.EXPIRED, "nobody can pay it any more"
    assert released.received[0].state == "released"
    assert await platform.posted(account_id) == 0


# --- notifications -----------------------------------------------------------------------------------------


async def test_a_webhook_is_verified_stored_once_and_answered(platform: Platform, account_id: str) -> None:
    topup = await opened(platform, account_id)
    headers, body = platform.network.webhook(await platform.reference(topup.payment_id), "evt_1")
    assert (
        await platform.payments.accept_notification(
            "fake", {"Fake-Signature": headers["fake-signature"]}, body
        )
        == 1
    )
    assert await platform.payments.accept_notification("fake", headers, body) == 0
    assert await notifications_waiting(platform.store) == 1
    with pytest.raises(NotificationRejected):
        await platform.payments.accept_notification("fake", {}, body)
    with pytest.raises(UnknownRail):
        await platform.payments.accept_notification("shells", headers, body)


async def test_the_inbox_is_bounded(platform: Platform, account_id: str) -> None:
    object.__setattr__(platform.payments.limits, "notifications_waiting_max", 1)
    for number, expectation in ((1, None), (2, NotificationsFull)):
        headers, body = platform.network.webhook("fake-1", f"evt_{number}")
        if expectation is None:
            await platform.payments.accept_notification("fake", headers, body)
        else:
            with pytest.raises(expectation):
                await platform.payments.accept_notification("fake", headers, body)


async def test_a_notification_about_nothing_of_ours_is_said(platform: Platform) -> None:
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
    del platform.store._rows["rail_instructions", topup.payment_id]
    assert (await platform.payments.topup(topup.payment_id)).instructions is None
    await platform.pay(topup.payment_id)
    assert (await settled(platform, topup)).state is TopupState.PAID


async def test_a_rail_without_webhooks_takes_none(platform: Platform) -> None:
    class Deaf:
        name = "deaf"

    platform.payments._rails["deaf"] = Deaf()  # type: ignore[index]
    with pytest.raises(NoWebhooks):
        await platform.payments.accept_notification("deaf", {}, b"")


async def test_a_payment_that_its_rail_never_opened_is_closed_without_asking_it(
    platform: Platform, account_id: str
) -> None:
    platform.network.answers_to_lose = 1
    topup = await opened(platform, account_id)
    assert topup.state is TopupState.OPENING
    platform.network.down = True
    assert (await platform.payments.cancel(topup.payment_id)).state is TopupState.EXPIRED
    platform.network.down = False
    await platform.payments.open_request(topup.payment_id)
    assert (await platform.payments.topup(topup.payment_id)).state is TopupState.EXPIRED, "it stays closed"


async def test_what_another_process_closes_while_its_rail_opens_it_is_closed_there_too(
    platform: Platform, account_id: str
) -> None:
    other = assemble(platform.clock, platform.log, platform.store).payments

    class Opening(FakeRail):
        """It is cancelled at another process before the answer is here."""

        async def open(self, order: Order) -> Instructions:
            instructions = await super().open(order)
            assert (await other.cancel(order.payment_id)).state is TopupState.EXPIRED
            return instructions

    platform.rails["fake"] = Opening(platform.network)
    topup = await opened(platform, account_id)
    assert topup.state is TopupState.EXPIRED
    way = platform.network.way(await platform.reference(topup.payment_id))
    assert way.status is PaymentRequestStatus.CLOSED, "it can be paid"
