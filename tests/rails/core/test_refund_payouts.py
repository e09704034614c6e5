"""Refunds to invoices and addresses: what is paid is kept and claimed first, and nothing is ever paid twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.errors import Refusal
from ledger.log.model import Receipt, Transaction
from ledger.money import USD
from rails.contract import RailError
from rails.domain.refunding import RefundState
from rails.domain.refusals import DestinationUnusable
from rails.domain.topup import TopupView, payment_of
from rails.payments.refunds import PREPARING_FAILURES_MAX
from rails.testing.fake_capabilities import fake_capabilities
from rails.testing.fake_payouts import FakePayees, FakePayoutRail
from tests.effort import lives
from tests.rails.core.platform import Platform, make_platform
from tests.rails.core.refunding import paid, refund_of, request, send_all, waiting

T = TypeVar("T")
ADDRESS = "artist@payees"


def with_payees(platform: Platform) -> FakePayees:
    """Refunds of this platform go to invoices from now on."""
    payees = FakePayees()
    platform.rails["fake"] = FakePayoutRail(
        platform.network, capabilities=fake_capabilities((USD,)), payees=payees
    )
    return payees


async def test_an_address_is_asked_for_an_invoice_which_is_paid_once() -> None:
    platform = make_platform()
    payees = with_payees(platform)
    topup = await paid(platform)
    refund_id = await request(platform, topup, destination=ADDRESS)
    await send_all(platform)
    await send_all(platform)
    assert payees.paid == {"invoice0": 500}
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.SENT
    assert await waiting(platform) == []


async def test_an_invoice_that_one_refund_was_sent_to_is_no_destination_of_another(either: Platform) -> None:
    payees = with_payees(either)
    invoice = payees.invoice()
    first, second = await paid(either), await paid(either)
    ids = [await request(either, topup, destination=invoice) for topup in (first, second)]
    await send_all(either)
    states = [
        (await refund_of(either, topup, refund_id)).state
        for topup, refund_id in zip((first, second), ids, strict=True)
    ]
    assert sorted(states) == [RefundState.FAILED, RefundState.SENT]
    assert payees.paid == {invoice: 500}
    posted = [await either.posted(topup.account_id) for topup in (first, second)]
    assert sorted(posted) == [0, 500]


async def test_two_processes_that_prepare_at_once_pay_one_invoice() -> None:
    platform = make_platform()
    payees = with_payees(platform)
    topup = await paid(platform)
    refund_id = await request(platform, topup, destination=ADDRESS)
    rows = await waiting(platform)
    await asyncio.gather(*(platform.payments.refunds.send(row) for row in rows * 5), return_exceptions=True)
    await send_all(platform)
    assert list(payees.paid.values()) == [500]
    assert len(payees.asked) == 5
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.SENT


async def test_giving_up_on_an_address_does_not_fail_what_another_process_is_sending() -> None:
    platform = make_platform()
    payees = with_payees(platform)
    topup = await paid(platform)
    refund_id = await request(platform, topup, destination=ADDRESS)
    [stale] = await waiting(platform)
    payees.answers_to_lose = 1
    await send_all(platform)
    payees.silent = True
    await platform.payments.refunds.send({**stale, "attempts": PREPARING_FAILURES_MAX})
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.UNKNOWN
    await send_all(platform)
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.SENT
    assert payees.paid == {"invoice0": 500}


async def test_an_address_that_never_answers_gives_the_credits_back() -> None:
    platform = make_platform()
    with_payees(platform).silent = True
    topup = await paid(platform)
    refund_id = await request(platform, topup, destination=ADDRESS)
    [row] = await waiting(platform)
    with pytest.raises(RailError):
        await platform.payments.refunds.send(row)
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.REQUESTED
    await platform.payments.refunds.send({**row, "attempts": PREPARING_FAILURES_MAX})
    assert (await refund_of(platform, topup, refund_id)).state is RefundState.FAILED
    assert await platform.posted(topup.account_id) == 500


@pytest.mark.parametrize(("asks_for", "reason"), [(499, "other_amount"), (None, "unreadable")])
async def test_what_cannot_be_paid_is_refused_before_anything_is_held(
    asks_for: int | None, reason: str
) -> None:
    platform = make_platform()
    payees = with_payees(platform)
    topup = await paid(platform)
    destination = "rubbish" if asks_for is None else payees.invoice(asks_for)
    with pytest.raises(DestinationUnusable) as refused:
        await request(platform, topup, destination=destination)
    assert refused.value.details == {"reason": reason, "amount_minor": 500, "asset": "USD"}
    assert await waiting(platform) == []
    assert (await platform.account(topup.account_id)).available(platform.clock()) == 500


class Killed(Exception):
    """The process ended here."""


class PayoutMachine(RuleBasedStateMachine):
    """Refunds to invoices and to an address, by a process that is killed before or after each of its transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """None if it is refused or killed."""
        try:
            return self.loop.run_until_complete(work)
        except (Refusal, RailError, Killed):
            return None

    @initialize()
    def two_people_pay(self) -> None:
        self.platform = make_platform(randomness=random.Random(1).randbytes)
        self.payees = with_payees(self.platform)
        self.topups = [self.loop.run_until_complete(paid(self.platform, credits_=30)) for _ in range(2)]
        self.invoices = [self.payees.invoice(), self.payees.invoice(10)]
        self.by_refund: dict[str, TopupView] = {}
        submit = self.platform.log.submit
        self.dies: list[bool] = []

        async def killable(transaction: Transaction) -> Receipt:
            """Dies before or after what it submits, as the next entry says."""
            after = self.dies.pop(0) if self.dies else None
            if after is False:
                raise Killed
            receipt: Receipt = await submit(transaction)
            if after:
                raise Killed
            return receipt

        self.platform.log.submit = killable

    @rule(who=st.integers(0, 1), credits_=st.integers(1, 20), to=st.integers(0, 2))
    def a_refund_is_requested(self, who: int, credits_: int, to: int) -> None:
        topup = self.topups[who]
        destination = ADDRESS if to == 2 else self.invoices[to]
        refund_id = self.run(request(self.platform, topup, credits=credits_, destination=destination))
        if refund_id is not None:
            self.by_refund[refund_id] = topup

    @rule(
        lost=st.booleans(),
        refuses=st.booleans(),
        silent=st.booleans(),
        # Of a round's two transactions, the claim and the outcome: die at neither, one, or after one.
        dies=st.lists(st.none() | st.booleans(), max_size=3),
        attempts=st.sampled_from([0, PREPARING_FAILURES_MAX]),
    )
    def the_sweeper_comes_by(
        self, lost: bool, refuses: bool, silent: bool, dies: list[bool], attempts: int
    ) -> None:
        self.payees.answers_to_lose, self.payees.refuses, self.payees.silent = int(lost), refuses, silent
        for row in self.loop.run_until_complete(waiting(self.platform)):
            self.dies = list(dies)
            self.run(self.platform.payments.refunds.send({**row, "attempts": attempts}))
            self.dies = []

    @rule()
    def another_process_still_has_the_row_of_before(self) -> None:
        for row in self.loop.run_until_complete(waiting(self.platform)):
            self.run(self.platform.payments.refunds.send({**row, "prepared": None}))

    @invariant()
    def each_refund_is_paid_once_or_not_at_all(self) -> None:
        outcomes: dict[str, tuple[RefundState, int]] = {}
        for topup in self.topups:
            row = self.loop.run_until_complete(self.platform.store.payment(topup.payment_id))
            assert row is not None
            for refund_id, known in payment_of(row).refunds.items():
                outcomes[refund_id] = known.state, known.asked.amount.minor
        claims = {
            key: row["refund_id"]
            for (table, key), row in self.platform.log.tables.items()
            if table == "rail_refund_claims"
        }
        paid_for: dict[str, int] = {}
        for invoice, minor in self.payees.paid.items():
            whose = claims[f"fake:{invoice}"]
            assert whose not in paid_for
            paid_for[whose] = minor
        for refund_id, (state, minor) in outcomes.items():
            if state is RefundState.SENT:
                assert paid_for[refund_id] == minor
            elif state is RefundState.FAILED:
                assert refund_id not in paid_for
            else:
                assert paid_for.get(refund_id, minor) == minor

    @invariant()
    def credits_and_money_add_up(self) -> None:
        for topup in self.topups:
            account = self.loop.run_until_complete(self.platform.account(topup.account_id))
            row = self.loop.run_until_complete(self.platform.store.payment(topup.payment_id))
            assert row is not None
            sent = sum(
                known.asked.amount.minor
                for known in payment_of(row).refunds.values()
                if known.state is RefundState.SENT
            )
            assert account.posted(self.platform.clock()) == 30 - sent


PayoutMachine.TestCase.settings = settings(max_examples=lives(40), stateful_step_count=25, deadline=None)
TestPayoutMachine = PayoutMachine.TestCase
