"""Whatever order it comes in: nobody has, or has used, more credits than the money that we kept is worth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.domain import holds as holds_
from ledger.domain.commands import CaptureHold, HoldCredits, ReleaseHold
from ledger.domain.events import RefundSent
from ledger.domain.state import Account
from ledger.errors import Refusal
from rails.contract import ReceiptState, Refund
from rails.domain.refunding import RefundState
from rails.domain.topup import TopupView, payment_of
from tests.effort import lives
from tests.rails.core.platform import Platform, make_platform, opened, settled
from tests.rails.core.refunding import act, request, send_all

T = TypeVar("T")


class RefundMachine(RuleBasedStateMachine):
    """One payment of up to three dollars, and all that may become of it."""

    platform: Platform
    topup: TopupView

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.holds: list[str] = []
        self.used = 0

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """None if it is refused, which is an answer."""
        try:
            return self.loop.run_until_complete(work)
        except Refusal:
            return None

    @initialize(credits_=st.integers(1, 300), cents=st.integers(1, 300))
    def somebody_pays(self, credits_: int, cents: int) -> None:
        self.platform = make_platform(randomness=random.Random(1).randbytes)
        self.loop.run_until_complete(self._pay(credits_, cents))

    async def _pay(self, credits_: int, cents: int) -> None:
        self.topup = await opened(self.platform, wanted=credits_)
        await self.platform.pay(self.topup.payment_id, cents)
        await settled(self.platform, self.topup)

    @property
    def account(self) -> Account:
        found: Account = self.loop.run_until_complete(self.platform.account(self.topup.account_id))
        return found

    @property
    def way(self) -> Any:
        reference = self.loop.run_until_complete(self.platform.reference(self.topup.payment_id))
        return self.platform.network.way(reference)

    def payment(self) -> Any:
        row = self.loop.run_until_complete(self.platform.store.payment(self.topup.payment_id))
        assert row is not None
        return payment_of(row)

    # --- the person ----------------------------------------------------------------------------

    @rule(credits_=st.integers(1, 200))
    def asks_for_an_image(self, credits_: int) -> None:
        hold_id = self.platform.ids.hold()
        held = HoldCredits(
            hold_id=hold_id,
            job_id="job",
            credits=credits_,
            deadline=self.platform.clock() + timedelta(days=99),
            allowance=False,
        )
        self.run(act(self.platform, self.topup.account_id, held))
        if holds_.get(self.account.holds, hold_id) is not None:
            self.holds.append(hold_id)

    @precondition(lambda self: self.holds)
    @rule(delivered=st.booleans())
    def an_image_ends(self, delivered: bool) -> None:
        hold_id = self.holds.pop()
        hold = holds_.get(self.account.holds, hold_id)
        assert hold is not None
        command = CaptureHold(hold_id=hold_id) if delivered else ReleaseHold(hold_id=hold_id)
        self.run(act(self.platform, self.topup.account_id, command))
        self.used += sum(portion.credits for portion in hold.slices) if delivered else 0

    # --- refunds -------------------------------------------------------------------------------

    @rule(
        credits_=st.none() | st.integers(1, 300), minor=st.none() | st.integers(1, 300), nth=st.integers(0, 3)
    )
    def a_refund_is_requested(self, credits_: int | None, minor: int | None, nth: int) -> None:
        lots = [lot.terms.lot_id for lot in self.account.lots]
        chosen = lots[nth % len(lots)] if lots else None
        self.run(request(self.platform, self.topup, credits=credits_, amount_minor=minor, lot_id=chosen))

    @rule(outcome=st.sampled_from(Refund), lost=st.integers(0, 1))
    def the_sweeper_comes_by(self, outcome: Refund, lost: int) -> None:
        self.platform.network.refund_outcome = outcome
        self.platform.network.answers_to_lose = lost
        self.run(send_all(self.platform))
        self.platform.network.answers_to_lose = 0

    @rule(nth=st.integers(0, 3))
    def a_refund_bounces(self, nth: int) -> None:
        sent = [key for key, known in self.payment().refunds.items() if known.state is RefundState.SENT]
        if sent:
            self.run(self.platform.network.fail_refund(sent[nth % len(sent)]))
            self.run(self.platform.payments.observe(self.topup.payment_id))

    # --- the bank ------------------------------------------------------------------------------

    @rule(
        percent=st.integers(0, 100),
        state=st.sampled_from(["settled", "disputed", "reversed"]),
    )
    def money_goes_back_or_comes_again(self, percent: int, state: str) -> None:
        [(money, receipt)] = self.way.receipts.items()
        # A bank takes no more than what is left of a charge, and nothing is refunded of a disputed one.
        sent = self.platform.network.sent_back(self.way.reference, receipt.amount.asset)
        back = max(min(receipt.amount.minor * percent // 100, receipt.amount.minor - sent), 0)
        if state == "settled" or back == 0:
            change = self.platform.network.change(
                self.way.reference, money, ReceiptState.SETTLED, back or None
            )
        else:
            change = self.platform.network.change(self.way.reference, money, ReceiptState(state), back)
        self.run(change)
        self.run(self.platform.payments.observe(self.topup.payment_id))

    # --- always --------------------------------------------------------------------------------

    @invariant()
    def nobody_has_more_than_was_kept(self) -> None:
        account, now = self.account, self.platform.clock()
        held = [portion for hold in holds_.each(account.holds) for portion in hold.slices]
        held += [portion for refund in account.status.refunds for portion in refund.held]
        worth = account.available(now) + sum(portion.credits for portion in held if not portion.revoked)
        payment = self.payment()
        kept = sum(
            receipt.amount.minor - receipt.taken_minor - receipt.refunded_minor
            for receipt in payment.receipts.values()
        )
        # Money that a bank took while it was on its way back already is our loss.
        lost = sum(
            portion.credits
            for envelope in self.platform.log.log
            if isinstance(envelope.event, RefundSent)
            for portion in envelope.event.slices
            if portion.revoked
        )
        # A cent a credit; each refund may round a fraction of a cent in its payer's favour.
        assert worth + self.used - account.debt <= kept + lost + len(payment.refunds)

    @invariant()
    def nothing_is_sent_twice_or_beyond_the_money(self) -> None:
        sent = sum(amount.minor for _, amount, _ in self.platform.network.refunded)
        assert len(self.platform.network.refunded) <= len(self.payment().refunds)
        for receipt in self.payment().receipts.values():
            assert 0 <= receipt.refunded_minor <= receipt.amount.minor
            assert receipt.refunded_credits >= 0
            assert receipt.credits_left >= 0
        bounced = sum(
            known.asked.amount.minor
            for known in self.payment().refunds.values()
            if known.state in (RefundState.RETURNED, RefundState.FAILED)
        )
        whole = sum(receipt.amount.minor for receipt in self.payment().receipts.values())
        assert sent - bounced <= whole

    @invariant()
    def what_is_held_for_refunds_is_what_has_not_ended(self) -> None:
        open_ = {refund_id for refund_id, known in self.payment().refunds.items() if known.state.open}
        assert {refund.refund_id for refund in self.account.status.refunds} == open_
        rows = {key for table, key in self.platform.log.tables if table == "rail_refunds"}
        assert rows == open_


RefundMachine.TestCase.settings = settings(max_examples=lives(40), stateful_step_count=30, deadline=None)
TestRefundMachine = RefundMachine.TestCase
