"""What an invoice means. No node needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from lndgrpc.compiled import lightning_pb2 as ln

from rails.contract import PaymentRequestStatus, RailProtocolError, ReceiptState
from rails.lightning.invoices import Htlc, HtlcState, Invoice, InvoiceState, from_wire
from rails.lightning.observing import observe

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def htlc(amount_msat: int, state: HtlcState, minutes: int = 1, blocks: int = 80) -> Htlc:
    return Htlc(
        amount_msat=amount_msat,
        state=state,
        accepted_at=AT + timedelta(minutes=minutes),
        accept_height=600 - blocks,
        expiry_height=600,
    )


def invoice(
    state: InvoiceState, *htlcs: Htlc, paid: int = 0, hold: bool = False, value: int = 1000
) -> Invoice:
    return Invoice(
        payment_hash="ab" * 32,
        state=state,
        memo="",
        bolt11="",
        value_msat=value,
        amount_paid_msat=paid,
        preimage_known=not hold,
        created_at=AT,
        settled_at=AT + timedelta(minutes=5) if state is InvoiceState.SETTLED else None,
        add_index=1,
        settle_index=0,
        htlcs=htlcs,
    )


def one(seen: Invoice) -> tuple[ReceiptState, int, datetime]:
    (receipt,) = observe(seen).receipts
    return receipt.state, receipt.amount.minor, receipt.first_seen_at


def test_the_money_is_dated_by_its_first_arrival_not_by_its_settlement() -> None:
    parts = [htlc(400, HtlcState.SETTLED, 2), htlc(600, HtlcState.SETTLED, 1)]
    assert one(invoice(InvoiceState.SETTLED, *parts, paid=1000)) == (
        ReceiptState.SETTLED,
        1000,
        AT + timedelta(minutes=1),
    )


def test_an_earlier_try_that_went_back_is_no_loss_and_no_date() -> None:
    parts = [htlc(400, HtlcState.CANCELED, 1), htlc(1000, HtlcState.SETTLED, 9)]
    assert one(invoice(InvoiceState.SETTLED, *parts, paid=1000)) == (
        ReceiptState.SETTLED,
        1000,
        AT + timedelta(minutes=9),
    )


def test_a_settled_invoice_with_an_unsettled_part_is_still_held() -> None:
    parts = [htlc(400, HtlcState.SETTLED), htlc(600, HtlcState.ACCEPTED)]
    assert one(invoice(InvoiceState.SETTLED, *parts, paid=1000))[0] is ReceiptState.HELD


@pytest.mark.parametrize(
    ("blocks", "minutes"), [((80,), 281), ((80, 40), 81), ((24,), 1), ((10,), 1), ((600,), None)]
)
def test_what_is_held_can_be_taken_until_the_node_gives_back_its_first_part(
    blocks: tuple[int, ...], minutes: int | None
) -> None:
    parts = [htlc(500, HtlcState.ACCEPTED, blocks=each) for each in blocks]
    (receipt,) = observe(invoice(InvoiceState.ACCEPTED, *parts, hold=True)).receipts
    assert receipt.held_until == (None if minutes is None else AT + timedelta(minutes=minutes))


def test_what_is_settled_has_no_such_end() -> None:
    (receipt,) = observe(invoice(InvoiceState.SETTLED, htlc(1000, HtlcState.SETTLED), paid=1000)).receipts
    assert receipt.held_until is None


def test_a_settled_invoice_whose_parts_were_lost_is_no_money() -> None:
    assert (
        one(invoice(InvoiceState.SETTLED, htlc(1000, HtlcState.CANCELED), paid=1000))[0]
        is ReceiptState.RETURNED
    )


def test_a_settled_invoice_that_lost_one_part_is_what_arrived() -> None:
    parts = [htlc(400, HtlcState.SETTLED), htlc(600, HtlcState.CANCELED)]
    assert one(invoice(InvoiceState.SETTLED, *parts, paid=1000))[:2] == (ReceiptState.SETTLED, 400)


def test_a_settled_invoice_without_parts_is_believed() -> None:
    assert one(invoice(InvoiceState.SETTLED, paid=1000)) == (
        ReceiptState.SETTLED,
        1000,
        AT + timedelta(minutes=5),
    )


def test_a_canceled_hold_was_returned() -> None:
    seen = invoice(InvoiceState.CANCELED, htlc(1000, HtlcState.CANCELED), hold=True)
    assert one(seen)[:2] == (ReceiptState.RETURNED, 1000)
    assert observe(seen).status is PaymentRequestStatus.EXPIRED


def test_parts_of_a_hold_that_never_made_the_whole_were_never_held() -> None:
    assert not observe(invoice(InvoiceState.CANCELED, htlc(400, HtlcState.CANCELED), hold=True)).receipts


def test_an_expired_ordinary_invoice_has_no_money() -> None:
    assert not observe(invoice(InvoiceState.CANCELED, htlc(1000, HtlcState.CANCELED))).receipts


def test_parts_on_their_way_are_not_money_yet() -> None:
    assert not observe(invoice(InvoiceState.OPEN, htlc(400, HtlcState.ACCEPTED))).receipts


def test_a_state_that_we_do_not_know_is_said() -> None:
    message = ln.Invoice(r_hash=b"h" * 32)
    message.state = 9  # proto3 keeps enum values that it does not know
    with pytest.raises(RailProtocolError, match="unknown state"):
        from_wire(message)


def test_preimages_and_secrets_are_left_behind() -> None:
    message = ln.Invoice(r_hash=b"h" * 32, r_preimage=b"p" * 32, payment_addr=b"s" * 32)
    seen = from_wire(message)
    assert seen.preimage_known
    assert (b"p" * 32).hex() not in repr(seen)
    assert "pppp" not in repr(seen)
    assert "ssss" not in repr(seen)
