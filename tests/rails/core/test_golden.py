"""Stored events are data: each version has a golden form that is never edited."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ledger.domain.consideration import Worth
from ledger.log.model import Event
from ledger.money import BTC, USD, Money, Rate
from rails.domain import events as e
from rails.domain.pricing import PackPrice

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
RATE = Rate(97_351, 10**9, BTC, USD)
AMOUNT = Money(5_136_054, BTC)
FEE = Money(77, BTC)
WORTH = Worth(net_minor=5_135_977, fee_minor=77, usd_minor=499)

EXAMPLES: dict[str, Event] = {
    "rails.payment_opened.v1": e.PaymentOpened(
        account_id="acct_01",
        rail="example",
        ordinal=7,
        amount_due=AMOUNT,
        credits=500,
        price=PackPrice(500, 500),
        rate=RATE,
        rate_source="median(a, b)",
        quote_expires_at=AT,
        attempt_of="pay_00",
        hold=True,
        job_id="job_01",
    ),
    "rails.instructions_issued.v1": e.InstructionsIssued(reference_digest="ab" * 32),
    "rails.funds_seen.v1": e.FundsSeen(money_ref="x:1", amount=AMOUNT, first_seen_at=AT, asked_at=AT),
    "rails.funds_held.v1": e.FundsHeld(money_ref="x:1", amount=AMOUNT, first_seen_at=AT, asked_at=AT),
    "rails.funds_released.v1": e.FundsReleased(money_ref="x:1", asked_at=AT),
    "rails.funds_vanished.v1": e.FundsVanished(money_ref="x:1", asked_at=AT),
    "rails.funds_mismatched.v1": e.FundsMismatched(
        money_ref="x:1", amount=AMOUNT, first_seen_at=AT, asked_at=AT, fee=FEE, external_ref="p"
    ),
    "rails.funds_too_small.v1": e.FundsTooSmall(
        money_ref="x:1", amount=AMOUNT, first_seen_at=AT, asked_at=AT, fee=FEE, external_ref="p"
    ),
    "rails.funds_unpriced.v1": e.FundsUnpriced(
        money_ref="x:1", amount=AMOUNT, first_seen_at=AT, asked_at=AT, fee=FEE, external_ref="p"
    ),
    "rails.funds_short.v1": e.FundsShort(
        money_ref="x:1", amount=AMOUNT, first_seen_at=AT, asked_at=AT, fee=FEE, external_ref="p"
    ),
    "rails.payment_settled.v1": e.PaymentSettled(
        money_ref="x:1",
        amount=AMOUNT,
        credits=500,
        lot_id="lot_01",
        rate=RATE,
        rate_basis="quote",
        worth=WORTH,
        first_seen_at=AT,
        asked_at=AT,
        fee=FEE,
        external_ref="p",
    ),
    "rails.fee_reported.v1": e.FeeReported(money_ref="x:1", fee=FEE),
    "rails.costs_reported.v1": e.CostsReported(money_ref="x:1", costs=FEE, asked_at=AT),
    "rails.payment_reversed.v1": e.PaymentReversed(
        money_ref="x:1",
        taken=AMOUNT,
        asked_at=AT,
        parts=(e.TakenPart(reversal_id="x:1#1", lot_id="lot_01", credits=500, worth=WORTH),),
    ),
    "rails.payment_reinstated.v1": e.PaymentReinstated(
        money_ref="x:1",
        taken=Money(0, BTC),
        lot_id="lot_02",
        credits=500,
        worth=WORTH,
        rate=RATE,
        asked_at=AT,
    ),
    "rails.dispute_opened.v1": e.DisputeOpened(
        money_ref="x:1",
        taken=AMOUNT,
        asked_at=AT,
        parts=(e.TakenPart(reversal_id="x:1#1", lot_id="lot_01", credits=500, worth=WORTH),),
    ),
    "rails.dispute_won.v1": e.DisputeWon(
        money_ref="x:1",
        taken=Money(0, BTC),
        asked_at=AT,
        parts=(e.RestoredPart(reversal_id="x:1#1", lot_id="lot_02", credits=500, worth=WORTH),),
    ),
    "rails.dispute_lost.v1": e.DisputeLost(money_ref="x:1", reversal_ids=("x:1#1",), asked_at=AT),
    "rails.payment_expired.v1": e.PaymentExpired(closed=True),
    "rails.payment_declined.v1": e.PaymentDeclined(decline_code="card_declined"),
    "rails.refund_requested.v1": e.RefundRequested(
        refund_id="ref_01",
        account_id="acct_01",
        money_ref="x:1",
        amount=Money(5_136_000, BTC),
        credits=500,
        lot_id="lot_01",
        worth=WORTH,
        lot_priority=30,
        lot_expires_at=AT,
        requested_at=AT,
        by_hand=True,
        reason="asked for",
    ),
    "rails.refund_unresolved.v1": e.RefundUnresolved(refund_id="ref_01"),
    "rails.refund_confirmed.v1": e.RefundConfirmed(refund_id="ref_01", cost=FEE, external_ref="txid"),
    "rails.refund_rejected.v1": e.RefundRejected(refund_id="ref_01", reason="the address is wrong"),
    "rails.refund_returned.v1": e.RefundReturned(
        refund_id="ref_01",
        money_ref="x:1",
        lot_id="lot_03",
        credits=500,
        worth=WORTH,
        rate=RATE,
        priority=30,
        expires_at=AT,
        asked_at=AT,
    ),
}


def test_every_stored_name_has_an_example() -> None:
    assert set(EXAMPLES) == set(e.EVENTS)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_event_is_stored_and_read_as_it_always_was(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert json.loads(msgspec.json.encode(EXAMPLES[name])) == json.loads(golden)
    assert msgspec.json.decode(golden, type=e.EVENTS[name]) == EXAMPLES[name]
