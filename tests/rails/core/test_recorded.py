"""What each answer of a rail records, what the account gets for it, and what the payer then sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import msgspec
import pytest

from ledger.domain.consideration import Worth
from ledger.log.model import Event
from ledger.money import BTC, USD, USDT, Money, Rate
from rails.contract import FundsReceipt, Observation, PaymentRequestStatus, ReceiptState
from rails.domain import events
from rails.domain.crediting import ledger_commands
from rails.domain.payment import (
    AcceptFunds,
    ExpireQuote,
    IssueInstructions,
    MoneyNotInSuspense,
    OpenPayment,
    PaymentAlreadyOpen,
    PaymentCommand,
    decide,
)
from rails.domain.pricing import PACK, PackPrice, amount_up, credits_down
from rails.domain.reading import LATE_GRACE, RecordObservation, lots_needed_max, worth_of
from rails.domain.state import Payment, PaymentNotFound, evolve
from rails.domain.topup import payment_of, payment_row, view
from tests.rails.core.test_payment_properties import OPENED, PAYMENT_ID, RATE, START

RECORDED = Path(__file__).parent / "recorded.txt"
DUE = OPENED.amount_due.minor
EXPIRY = OPENED.quote_expires_at
MICROSECOND = timedelta(microseconds=1)
SPOT = Rate(80_000, 10**9, BTC, USD)
PARITY = Rate(1, 10**6, USDT, USD)
NAMES = {kind: name for name, kind in events.EVENTS.items()}
SEEN, HELD, SETTLED, RETURNED, REVERSED, DISPUTED = (
    ReceiptState.SEEN,
    ReceiptState.HELD,
    ReceiptState.SETTLED,
    ReceiptState.RETURNED,
    ReceiptState.REVERSED,
    ReceiptState.DISPUTED,
)


@dataclass(frozen=True)
class Reported:
    """An answer of the rail: the money it knows, how the payment request stands, when it was asked."""

    receipts: tuple[FundsReceipt, ...] = ()
    status: PaymentRequestStatus = PaymentRequestStatus.OPEN
    after: timedelta = timedelta(0)
    spot: Rate | None = SPOT
    code: str | None = None


def money(
    state: ReceiptState,
    minor: int = DUE,
    *,
    ref: str = "fake:1",
    back: int | None = None,
    seen: timedelta = timedelta(0),
    fee: Money | None = None,
    asset: object = BTC,
) -> FundsReceipt:
    return FundsReceipt(
        money_ref=ref,
        amount=Money(minor, asset),
        state=state,
        first_seen_at=START + seen,
        fee=fee,
        reversed_amount=None if back is None else Money(back, asset),
        external_ref=f"bank:{ref}",
    )


def reported(*states: ReceiptState, **more: object) -> list[Reported]:
    """The same money in one state after another, a minute apart."""
    return [
        Reported((money(state, **more),), after=timedelta(minutes=place))
        for place, state in enumerate(states)
    ]


FEE = Money(1_000, BTC)
LATE = EXPIRY - START + LATE_GRACE
STORIES: dict[str, list[Reported | PaymentCommand]] = {
    "paid at once": [Reported((money(SETTLED, fee=FEE),))],
    "seen, then settled": reported(SEEN, SEEN, SETTLED, SETTLED),
    "held, then captured": reported(HELD, HELD, SETTLED),
    "seen, then held, then given back": reported(SEEN, HELD, RETURNED, RETURNED, HELD, SETTLED),
    "held, and mentioned as seen afterwards": reported(HELD, SEEN),
    "seen, then gone by the rail's own word, then here again": reported(SEEN, REVERSED, SETTLED),
    "seen, then mentioned no more": [*reported(SEEN), Reported(after=timedelta(minutes=1))],
    "seen, then mentioned no more by an older answer": [
        Reported((money(SEEN),), after=timedelta(minutes=1)),
        Reported(after=timedelta(0)),
    ],
    "seen, then gone in the moment in which the payment request expires": [
        *reported(SEEN),
        Reported(status=PaymentRequestStatus.EXPIRED, after=timedelta(minutes=1)),
    ],
    "held, then mentioned no more": [*reported(HELD), Reported(after=timedelta(minutes=1))],
    "settled, then mentioned no more": [*reported(SETTLED), Reported(after=timedelta(minutes=1))],
    "an older answer comes after a newer one": [
        Reported((money(SETTLED),), after=timedelta(minutes=1)),
        Reported((money(REVERSED),), after=timedelta(0)),
    ],
    "the fee is named later, once": [
        *reported(SETTLED),
        Reported((money(SETTLED, fee=FEE),), after=timedelta(minutes=1)),
        Reported((money(SETTLED, fee=Money(2_000, BTC)),), after=timedelta(minutes=2)),
    ],
    "in three parts, out of order": [
        Reported((money(SETTLED, DUE // 3, ref="fake:2", seen=timedelta(minutes=2)),)),
        Reported(
            (
                money(SETTLED, DUE // 3, ref="fake:2", seen=timedelta(minutes=2)),
                money(SETTLED, DUE // 3, ref="fake:3", seen=timedelta(minutes=1)),
                money(SETTLED, DUE - 2 * (DUE // 3), ref="fake:1"),
            ),
            after=timedelta(minutes=3),
        ),
    ],
    "first seen at the last moment of the quote's rate": [Reported((money(SETTLED, seen=LATE),))],
    "first seen too late for the quote's rate": [Reported((money(SETTLED, seen=LATE + MICROSECOND),))],
    "seen in time, named later when it settles": [
        Reported((money(SEEN, seen=LATE),)),
        Reported((money(SETTLED, seen=LATE + MICROSECOND),), after=timedelta(minutes=1)),
    ],
    "too late and no rate, then a rate": [
        Reported((money(SETTLED, seen=LATE + MICROSECOND, fee=FEE),), spot=None),
        Reported((money(SETTLED, seen=LATE + MICROSECOND, fee=FEE),), spot=None, after=timedelta(minutes=1)),
        Reported((money(SETTLED, seen=LATE + MICROSECOND, fee=FEE),), after=timedelta(minutes=2)),
    ],
    "too late and no rate, then taken back and paid again": [
        Reported((money(SETTLED, seen=LATE + MICROSECOND),), spot=None),
        Reported((money(REVERSED, seen=LATE + MICROSECOND),), spot=None, after=timedelta(minutes=1)),
        Reported((money(REVERSED, seen=LATE + MICROSECOND),), after=timedelta(minutes=2)),
        Reported((money(SETTLED, seen=LATE + MICROSECOND, back=DUE),), after=timedelta(minutes=3)),
        Reported((money(SETTLED, seen=LATE + MICROSECOND, back=1),), after=timedelta(minutes=4)),
    ],
    "of another asset, accepted": [
        Reported((money(SETTLED, 5_000_000_000, asset=USDT, fee=Money(7, USDT)),)),
        Reported((money(SETTLED, 5_000_000_000, asset=USDT),), after=timedelta(minutes=1)),
        AcceptFunds(
            money_ref="fake:1", rate=PARITY, lot_id="lot_accepted", asked_at=START + timedelta(minutes=2)
        ),
    ],
    "of another asset, sent back in part and then wholly": [
        Reported((money(SETTLED, 500, asset=USDT),)),
        Reported((money(SETTLED, 500, asset=USDT, back=200),), after=timedelta(minutes=1)),
        Reported((money(SETTLED, 500, asset=USDT, back=200),), after=timedelta(minutes=2)),
        Reported((money(RETURNED, 500, asset=USDT),), after=timedelta(minutes=3)),
    ],
    "less than one credit": [Reported((money(SETTLED, 1, fee=Money(1, BTC)),))],
    "taken back in part, further, and wholly": [
        *reported(SETTLED),
        Reported((money(SETTLED, back=DUE // 4),), after=timedelta(minutes=1)),
        Reported((money(REVERSED, back=DUE // 2),), after=timedelta(minutes=2)),
        Reported((money(REVERSED),), after=timedelta(minutes=3)),
        Reported((money(REVERSED),), after=timedelta(minutes=4)),
    ],
    "taken back wholly and ours again in two steps": [
        *reported(SETTLED, REVERSED),
        Reported((money(SETTLED, back=DUE // 2),), after=timedelta(minutes=2)),
        Reported((money(SETTLED),), after=timedelta(minutes=3)),
        Reported((money(REVERSED, back=DUE - 1),), after=timedelta(minutes=4)),
    ],
    "a settled block was reorganised": reported(SETTLED, SEEN, SETTLED),
    "disputed and won": reported(SETTLED, DISPUTED, DISPUTED, SETTLED),
    "disputed and lost": reported(SETTLED, DISPUTED, REVERSED, REVERSED),
    "disputed in part, then further, then won": [
        *reported(SETTLED),
        Reported((money(DISPUTED, back=DUE // 4),), after=timedelta(minutes=1)),
        Reported((money(DISPUTED, back=DUE // 2),), after=timedelta(minutes=2)),
        Reported((money(SETTLED),), after=timedelta(minutes=3)),
    ],
    "taken back in part, the rest disputed, and won": [
        *reported(SETTLED),
        Reported((money(SETTLED, back=DUE // 4),), after=timedelta(minutes=1)),
        Reported((money(DISPUTED),), after=timedelta(minutes=2)),
        Reported((money(SETTLED, back=DUE // 4),), after=timedelta(minutes=3)),
    ],
    "a dispute over what had been taken back already": [
        *reported(SETTLED),
        Reported((money(SETTLED, back=DUE // 4),), after=timedelta(minutes=1)),
        Reported((money(DISPUTED, back=DUE // 4),), after=timedelta(minutes=2)),
    ],
    "of another asset, then the right one, too little": [
        Reported((money(SETTLED, 500, asset=USDT),)),
        Reported(
            (money(SETTLED, 500, asset=USDT), money(SETTLED, DUE - 1, ref="fake:2")),
            after=timedelta(minutes=1),
        ),
    ],
    "disputed while we were down": [Reported((money(DISPUTED),))],
    "declined twice, then paid": [
        Reported(status=PaymentRequestStatus.DECLINED, code="card_declined"),
        Reported(status=PaymentRequestStatus.DECLINED, code="card_declined", after=timedelta(minutes=1)),
        Reported(status=PaymentRequestStatus.DECLINED, after=timedelta(minutes=2)),
        Reported((money(SETTLED),), after=timedelta(minutes=3)),
        Reported((money(SETTLED),), PaymentRequestStatus.DECLINED, timedelta(minutes=4), code="expired_card"),
    ],
    "expired at the rail": [
        Reported(status=PaymentRequestStatus.EXPIRED),
        Reported(status=PaymentRequestStatus.EXPIRED),
    ],
    "closed at the rail, then paid": [
        Reported(status=PaymentRequestStatus.CLOSED),
        Reported((money(SETTLED),), PaymentRequestStatus.CLOSED, timedelta(minutes=1)),
    ],
    "paid in part when the quote runs out": [
        Reported((money(SETTLED, DUE - 1),)),
        ExpireQuote(),
        Reported((money(SETTLED, DUE - 1),), PaymentRequestStatus.CLOSED, timedelta(minutes=1)),
    ],
    "paid wholly when the quote runs out": [*reported(SETTLED), ExpireQuote()],
    "on its way when the quote runs out": [*reported(SEEN), ExpireQuote()],
    "given back when the quote runs out": [*reported(HELD, RETURNED), ExpireQuote()],
}


def returned() -> Iterator[str]:
    for sentence, steps in STORIES.items():
        yield sentence
        payment, lots = Payment(), (f"lot_{number}" for number in count(1))
        payment = evolve(payment, OPENED)
        payment = evolve(payment, events.InstructionsIssued(reference_digest="ab" * 32))
        for step in steps:
            yield f"  {named(step)}"
            for event in decide(payment, command_of(step, lots), EXPIRY):
                payment = evolve(payment, event)
                yield f"    {stored(event)}"
                for command in ledger_commands(PAYMENT_ID, "fake", event):
                    yield f"      {type(command).__name__} {msgspec.json.encode(command).decode()}"
        yield from (f"  known: {msgspec.json.encode(known).decode()}" for known in payment.receipts.values())
        row = payment_row(PAYMENT_ID, payment, OPENED.account_id, START)
        assert payment_of(msgspec.to_builtins(row)) == payment
        del row["payment"]
        yield f"  row: {msgspec.json.encode(row).decode()}"
        seen = view(PAYMENT_ID, payment, row, {"uri": "fake:1"})
        yield f"  seen by its payer: {msgspec.json.encode(seen.to_json()).decode()}"
        yield ""


def named(step: Reported | PaymentCommand) -> str:
    if not isinstance(step, Reported):
        return type(step).__name__
    pieces = ", ".join(f"{r.money_ref} {r.state.value}" for r in step.receipts) or "no money"
    return f"after {step.after}: {step.status.value}, {pieces}"


def command_of(step: Reported | PaymentCommand, lots: Iterator[str]) -> PaymentCommand:
    if not isinstance(step, Reported):
        return step
    return RecordObservation(
        observation=Observation(
            reference="r", status=step.status, receipts=step.receipts, decline_code=step.code
        ),
        asked_at=START + step.after,
        spot={} if step.spot is None else {"BTC": step.spot},
        lot_ids=tuple(next(lots) for _ in range(8)),
    )


def stored(event: Event) -> str:
    return f"{NAMES[type(event)]} {msgspec.json.encode(event).decode()}"


def test_every_answer_of_a_rail_records_what_it_always_did() -> None:
    """A field that changes here is stored otherwise from now on: `recorded.txt` is read, then edited."""
    assert "\n".join(returned()) == RECORDED.read_text()


OPEN = evolve(Payment(), OPENED)


def test_an_event_without_money_that_nobody_here_knows_changes_nothing() -> None:
    class Foreign(Event, frozen=True):
        text: str = ""

    assert evolve(OPEN, Foreign()) == OPEN


def test_a_payment_is_opened_once_and_gets_its_instructions_once() -> None:
    assert decide(Payment(), OpenPayment(facts=OPENED), START) == [OPENED]
    with pytest.raises(PaymentAlreadyOpen):
        decide(OPEN, OpenPayment(facts=OPENED), START)
    [issued] = decide(OPEN, IssueInstructions(reference_digest="ab"), START)
    assert issued == events.InstructionsIssued(reference_digest="ab")
    assert decide(evolve(OPEN, issued), IssueInstructions(reference_digest="cd"), START) == []


@pytest.mark.parametrize(
    "command",
    [
        IssueInstructions(reference_digest="ab"),
        ExpireQuote(),
        RecordObservation(
            observation=Observation(reference="r", status=PaymentRequestStatus.OPEN), asked_at=START
        ),
        AcceptFunds(money_ref="fake:1", rate=SPOT, lot_id="lot_1", asked_at=START),
    ],
)
def test_nothing_can_be_done_with_a_payment_that_was_never_opened(command: PaymentCommand) -> None:
    with pytest.raises(PaymentNotFound):
        decide(Payment(), command, START)


def test_a_quote_runs_out_at_its_expiry_and_not_before() -> None:
    assert decide(OPEN, ExpireQuote(), EXPIRY - MICROSECOND) == []
    assert decide(OPEN, ExpireQuote(), EXPIRY) == [events.PaymentExpired()]


def read(payment: Payment, *steps: Reported) -> Payment:
    lots = (f"lot_{number}" for number in count(1))
    for step in steps:
        for event in decide(payment, command_of(step, lots), START):
            payment = evolve(payment, event)
    return payment


def accept(rate: Rate = PARITY) -> AcceptFunds:
    return AcceptFunds(money_ref="fake:1", rate=rate, lot_id="lot_a", asked_at=START)


def test_only_money_of_another_asset_that_is_still_here_can_be_accepted() -> None:
    mismatched = Reported((money(SETTLED, 5_000_000_000, asset=USDT),))
    assert decide(read(OPEN, mismatched), accept(), START)
    partly_back = Reported((money(SETTLED, 5_000_000_000, asset=USDT, back=1),), after=timedelta(minutes=1))
    nearly_nothing = Reported((money(SETTLED, 1, asset=USDT),))
    for payment in (
        OPEN,
        read(OPEN, Reported((money(SETTLED),))),
        read(OPEN, mismatched, partly_back),
        read(OPEN, nearly_nothing),
    ):
        with pytest.raises(MoneyNotInSuspense):
            decide(payment, accept(), START)


def test_an_observation_needs_a_bounded_number_of_lots() -> None:
    two = Observation(
        reference="r",
        status=PaymentRequestStatus.OPEN,
        receipts=(money(SETTLED), money(SETTLED, ref="fake:2")),
    )
    assert lots_needed_max(two) == 16
    assert lots_needed_max(replace(two, receipts=())) == 0


def test_the_fee_is_a_part_of_the_money_only_if_it_is_of_its_kind_and_no_larger() -> None:
    amount, rate = Money(1_000_000, BTC), Rate(1, 1_000, BTC, USD)
    assert worth_of(amount, None, rate) == Worth(1_000_000, 0, 0, 1_000)
    assert worth_of(amount, Money(300, BTC), rate) == Worth(999_700, 0, 300, 1_000)
    assert worth_of(amount, Money(300, USD), rate) == Worth(1_000_000, 0, 0, 1_000)
    assert worth_of(amount, Money(2_000_000, BTC), rate) == Worth(0, 0, 1_000_000, 1_000)


def test_credits_round_down_and_what_is_asked_for_them_rounds_up() -> None:
    rate, price = Rate(1, 1, USD, USD), PackPrice(500, 501)
    assert credits_down(Money(501, USD), rate, price) == 500
    assert credits_down(Money(500, USD), rate, price) == 499
    assert amount_up(500, rate, price) == Money(501, USD)
    assert amount_up(1, rate, price) == Money(2, USD)


@pytest.mark.parametrize(
    "rate", [Rate(1, 1, USD, BTC), Rate(0, 1, BTC, USD), Rate(-1, 1, BTC, USD), Rate(1, -1, BTC, USD)]
)
def test_only_a_positive_rate_to_dollars_prices_credits(rate: Rate) -> None:
    with pytest.raises(ValueError, match=r"credits are priced in USD, not in BTC|a rate must be positive"):
        amount_up(1, rate, PACK)
    with pytest.raises(ValueError, match=r"credits are priced in USD, not in BTC|a rate must be positive"):
        credits_down(Money(1, rate.source), rate, PACK)


def test_money_is_priced_by_a_rate_of_its_own_asset() -> None:
    with pytest.raises(ValueError, match="a rate from BTC cannot price USD"):
        credits_down(Money(1, USD), RATE, PACK)


def test_one_topup_of_several_attempts_is_named_by_the_first() -> None:
    second = evolve(Payment(), msgspec.structs.replace(OPENED, attempt_of="pay_first"))
    row: Mapping[str, object] = payment_row(PAYMENT_ID, second, OPENED.account_id, START)
    assert row["root_id"] == "pay_first"
    assert view(PAYMENT_ID, second, row, None).to_json()["attempt_of"] == "pay_first"
    first = payment_row(PAYMENT_ID, OPEN, OPENED.account_id, START)
    assert first["root_id"] == PAYMENT_ID
    assert view(PAYMENT_ID, OPEN, first, None).to_json()["attempt_of"] is None
