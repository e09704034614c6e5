"""Whatever order news comes in, each funds receipt is credited once, and the parts sum to the whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ledger.clock import ManualClock
from ledger.domain import account as accounts
from ledger.domain.commands import Command
from ledger.domain.consideration import NOTHING, Worth
from ledger.domain.invariants import check_step
from ledger.domain.state import Account
from ledger.log.model import Event
from ledger.money import BTC, USD, USDT, Money, Rate
from rails.contract import FundsReceipt, Observation, PaymentRequestStatus, ReceiptState
from rails.domain import events
from rails.domain import payment as domain
from rails.domain.crediting import ledger_commands
from rails.domain.pricing import PACK, PackPrice, amount_up, credits_down
from rails.domain.purchases import part_of
from rails.domain.reading import LATE_GRACE, RecordObservation
from rails.domain.receipts import ReceiptStatus
from rails.domain.state import PAYMENTS, Payment, evolve
from rails.domain.topup import TopupState, payment_row, topup_state
from tests.effort import lives

START = datetime(2026, 1, 1, tzinfo=UTC)
PAYMENT_ID = "pay_00000000000000000000000001"
RATE = Rate(97_351, 10**9, BTC, USD)
OPENED = events.PaymentOpened(
    account_id="acct_00000000000000000000000001",
    rail="fake",
    ordinal=1,
    amount_due=amount_up(500, RATE, PACK),
    credits=500,
    price=PACK,
    rate=RATE,
    rate_source="test",
    quote_expires_at=START + timedelta(minutes=15),
)
_lots = count(1)


def observe(
    payment: Payment,
    receipts: Sequence[FundsReceipt],
    asked_at: datetime,
    *,
    spot: Rate | None = RATE,
    status: PaymentRequestStatus = PaymentRequestStatus.OPEN,
) -> tuple[Payment, Sequence[Event]]:
    """What the stream gains from one answer of the rail."""
    command = RecordObservation(
        observation=Observation(reference="r", status=status, receipts=tuple(receipts)),
        asked_at=asked_at,
        spot={} if spot is None else {"BTC": spot},
        lot_ids=tuple(f"lot_{next(_lots)}" for _ in range(8 * len(receipts))),
    )
    happened = domain.decide(payment, command, asked_at)
    for event in happened:
        payment = evolve(payment, event)
    return payment, happened


def credited(payment: Payment) -> int:
    return sum(receipt.credits_left for receipt in payment.receipts.values())


def receipt(
    number: int, minor: int, state: ReceiptState = ReceiptState.SETTLED, seen: datetime = START
) -> FundsReceipt:
    return FundsReceipt(money_ref=f"fake:{number}", amount=Money(minor, BTC), state=state, first_seen_at=seen)


amounts = st.lists(st.integers(1, 20_000_000), min_size=1, max_size=6)


@given(amounts, st.randoms(use_true_random=False))
def test_receipts_permuted_duplicated_and_partial_credit_the_same(
    minors: list[int], chance: random.Random
) -> None:
    receipts = [receipt(number, minor) for number, minor in enumerate(minors)]
    at_once, _ = observe(Payment(opened=OPENED), receipts, START)
    step_by_step = Payment(opened=OPENED)
    shuffled = receipts * 3
    chance.shuffle(shuffled)
    known: dict[str, FundsReceipt] = {}
    for news in shuffled:
        known[news.money_ref] = news
        step_by_step, _ = observe(step_by_step, list(known.values()), START)
    assert credited(step_by_step) == credited(at_once)
    whole = sum(minor for minor in minors if credits_down(Money(minor, BTC), RATE, PACK) >= 1)
    assert credited(at_once) == credits_down(Money(whole, BTC), RATE, PACK)


@given(st.lists(st.integers(0, 1_000), min_size=4, max_size=4), st.data())
def test_what_is_taken_of_a_worth_adds_up_to_the_unit_and_never_shrinks(
    parts: list[int], data: st.DataObject
) -> None:
    net, tax, fee, usd = parts
    worth = Worth(net, tax, fee, usd, min(usd, tax))
    whole = worth.gross_minor
    assume(whole > 0)
    less = data.draw(st.integers(0, whole))
    more = data.draw(st.integers(less, whole))
    assert part_of(worth, more, whole).gross_minor == more
    assert part_of(worth, whole, whole) == worth
    assert not (part_of(worth, more, whole) - part_of(worth, less, whole)).is_negative_somewhere()


@given(amounts)
def test_every_receipt_is_settled_at_most_once(minors: list[int]) -> None:
    payment, happened = Payment(opened=OPENED), []
    for _ in range(3):
        payment, more = observe(payment, [receipt(n, m) for n, m in enumerate(minors)], START)
        happened += more
    settled = [event.money_ref for event in happened if isinstance(event, events.PaymentSettled)]
    assert len(settled) == len(set(settled))
    assert len({e.lot_id for e in happened if isinstance(e, events.PaymentSettled)}) == len(settled)


@given(
    st.integers(1, 10**7),
    st.integers(1, 10**9),
    st.integers(1, 10**15),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_paying_what_is_asked_buys_what_was_asked(
    wanted: int, numerator: int, denominator: int, pack_credits: int, pack_cents: int
) -> None:
    rate, price = Rate(numerator, denominator, BTC, USD), PackPrice(pack_credits, pack_cents)
    due = amount_up(wanted, rate, price)
    assert credits_down(due, rate, price) >= wanted
    assert credits_down(Money(due.minor - 1, BTC), rate, price) < wanted
    if credits_down(Money(1, BTC), rate, price) <= 1 and numerator * pack_credits <= denominator * pack_cents:
        assert credits_down(due, rate, price) == wanted


@given(st.integers(0, 2 * 60 * 60), st.integers(1, 10**6))
def test_the_rate_follows_from_when_the_money_was_first_seen(late_seconds: int, spot_numerator: int) -> None:
    seen = OPENED.quote_expires_at + timedelta(seconds=late_seconds)
    spot = Rate(spot_numerator, 10**9, BTC, USD)
    _, happened = observe(Payment(opened=OPENED), [receipt(1, 10**9, seen=seen)], START, spot=spot)
    in_time = seen <= OPENED.quote_expires_at + LATE_GRACE
    (event,) = happened
    assert isinstance(event, events.PaymentSettled)
    assert event.rate == (RATE if in_time else spot)
    assert event.rate_basis == ("quote" if in_time else "spot")


def test_every_event_survives_its_stored_form() -> None:
    payment, happened = observe(Payment(opened=OPENED), [receipt(1, 10**8, ReceiptState.DISPUTED)], START)
    for event in [OPENED, *happened]:
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event
    row = payment_row(PAYMENT_ID, payment, OPENED.account_id, START)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(row["payment"])), Payment) == payment


def test_the_price_in_force_when_it_was_opened_stays() -> None:
    dear = msgspec.structs.replace(OPENED, price=PackPrice(100, 500))
    payment, _ = observe(Payment(opened=dear), [receipt(1, dear.amount_due.minor)], START)
    assert credited(payment) == 100


def test_events_of_other_streams_change_nothing() -> None:
    class Foreign(Event, frozen=True):
        money_ref: str = "fake:1"

    payment, _ = observe(Payment(opened=OPENED), [receipt(1, 10**8)], START)
    assert PAYMENTS.evolve(payment, Foreign()) == payment
    assert PAYMENTS.evolve(Payment(), Foreign()) == Payment()


class PaymentMachine(RuleBasedStateMachine):
    """One payment under a rail that may say anything, beside a naive model of the money."""

    opened = OPENED

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.payment = Payment(opened=self.opened)
        self.account = Account()
        self.receipts: dict[str, FundsReceipt] = {}
        self.rate: Rate | None = RATE
        self.history: list[Event] = []
        self.booked: list[Event] = []
        self.status = PaymentRequestStatus.OPEN
        self.stale: tuple[datetime, list[FundsReceipt]] | None = None

    # --- the world -----------------------------------------------------------------------------

    @rule(
        minor=st.integers(1, 30_000_000),
        state=st.sampled_from([ReceiptState.SEEN, ReceiptState.HELD, ReceiptState.SETTLED]),
    )
    def money_comes(self, minor: int, state: ReceiptState) -> None:
        if len(self.receipts) < 5:
            fresh = receipt(len(self.receipts) + 1, minor, state, self.clock())
            self.receipts[fresh.money_ref] = fresh

    @rule(minor=st.integers(1, 10**9))
    def other_money_comes(self, minor: int) -> None:
        if len(self.receipts) < 5:
            ref = f"fake:{len(self.receipts) + 1}"
            self.receipts[ref] = FundsReceipt(
                money_ref=ref,
                amount=Money(minor, USDT),
                state=ReceiptState.SETTLED,
                first_seen_at=self.clock(),
            )

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), state=st.sampled_from(ReceiptState), part=st.integers(1, 1000))
    def money_changes_and_we_ask(self, data: st.DataObject, state: ReceiptState, part: int) -> None:
        self._change(data, state, part)
        self.we_ask()

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), state=st.sampled_from(ReceiptState), part=st.integers(1, 1000))
    def money_changes_unnoticed(self, data: st.DataObject, state: ReceiptState, part: int) -> None:
        self._change(data, state, part)

    def _change(self, data: st.DataObject, state: ReceiptState, part: int) -> None:
        old = self.receipts[data.draw(st.sampled_from(sorted(self.receipts)))]
        back = old.amount.minor * part // 1000
        partial = state in (ReceiptState.SETTLED, ReceiptState.DISPUTED) and part < 500 and back > 0
        taken = Money(back, old.amount.asset) if partial else None
        self.receipts[old.money_ref] = replace(old, state=state, reversed_amount=taken)

    @rule(minutes=st.integers(1, 100))
    def time_passes(self, minutes: int) -> None:
        self.clock.advance(timedelta(minutes=minutes))

    @rule(known=st.booleans())
    def the_rate_comes_and_goes(self, known: bool) -> None:
        self.rate = Rate(90_000, 10**9, BTC, USD) if known else None

    @rule(status=st.sampled_from(PaymentRequestStatus))
    def the_way_to_pay_changes(self, status: PaymentRequestStatus) -> None:
        self.status = status

    # --- we ------------------------------------------------------------------------------------

    @rule()
    def we_ask(self) -> None:
        self.clock.advance(timedelta(microseconds=1))
        self._hear(list(self.receipts.values()), self.clock())
        assert self._hear(list(reversed(self.receipts.values())), self.clock()) == []

    @rule()
    def an_answer_is_delayed(self) -> None:
        self.clock.advance(timedelta(microseconds=1))
        self.stale = (self.clock(), list(self.receipts.values()))

    @precondition(lambda self: self.stale)
    @rule()
    def the_delayed_answer_comes_and_then_we_ask(self) -> None:
        assert self.stale is not None
        asked_at, receipts = self.stale
        self.stale = None
        self._hear(receipts, asked_at)
        self.we_ask()

    def _hear(self, receipts: list[FundsReceipt], asked_at: datetime) -> Sequence[Event]:
        self.payment, happened = observe(self.payment, receipts, asked_at, spot=self.rate, status=self.status)
        self._book(happened)
        self.history += happened
        return happened

    def _book(self, happened: Sequence[Event]) -> None:
        for event in happened:
            self._act(ledger_commands(PAYMENT_ID, "fake", event))

    def _act(self, commands: Sequence[Command]) -> None:
        for command in commands:
            for booked in accounts.decide(self.account, command, self.clock()):
                before, self.account = self.account, accounts.evolve(self.account, booked)
                assert check_step(before, booked, self.account) == []
                self.booked.append(booked)

    # --- always --------------------------------------------------------------------------------

    @invariant()
    def the_ledger_has_what_the_payment_says(self) -> None:
        assert self.account.posted(self.clock()) == credited(self.payment)
        assert self.account.debt == 0

    @invariant()
    def each_receipt_was_settled_at_most_once(self) -> None:
        settled = [event.money_ref for event in self.history if isinstance(event, events.PaymentSettled)]
        assert len(settled) == len(set(settled))

    @invariant()
    def what_is_credited_is_what_is_ours_rounded_down(self) -> None:
        for known in self.payment.receipts.values():
            if known.status in (ReceiptStatus.SETTLED, ReceiptStatus.DISPUTED, ReceiptStatus.REVERSED):
                assert known.credits_left == known.credits_left_if(known.taken_minor)
                assert 0 <= known.taken_minor <= known.amount.minor
                assert not (known.worth - known.worth_out).is_negative_somewhere()
                if known.taken_minor == known.amount.minor:
                    assert known.credits_left == 0
            else:
                assert known.credits == 0
                assert known.worth == NOTHING

    @invariant()
    def a_replay_gives_the_same_payment(self) -> None:
        replayed = Payment(opened=self.opened)
        for event in self.history:
            replayed = evolve(replayed, event)
        assert replayed == self.payment

    @invariant()
    def there_is_one_word_for_it(self) -> None:
        state = topup_state(self.payment)
        assert state in TopupState
        assert state is not TopupState.PAID or credited(self.payment) > 0


PaymentMachine.TestCase.settings = settings(max_examples=lives(75), stateful_step_count=40, deadline=None)
TestPaymentMachine = PaymentMachine.TestCase
