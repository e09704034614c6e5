"""What each kind of event books and what the statement says of it, line by line, as accountants see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ledger.domain.consideration import Slice, Worth
from ledger.domain.journal import JournalContext, postings
from ledger.domain.lots import Source
from ledger.domain.movements import movement
from ledger.log.model import Event
from ledger.money import USD, Asset
from tests.ledger.samples import BOUGHT, FREE, REVOKED, SAMPLES, SATS

BOOKED = Path(__file__).parent / "booked.txt"
replace = msgspec.structs.replace

CAPTURED = SAMPLES["ledger.hold_captured.v1"]
GRANTED = SAMPLES["ledger.credits_granted.v1"]
REVERSED = SAMPLES["ledger.credits_reversed.v1"]
SENT = SAMPLES["ledger.refund_sent.v1"]
STOPPED = SAMPLES["ledger.earning_stopped.v1"]
BY_LIGHTNING = Slice("lot_2", 4, "payment", "BTC", "lightning", Worth(40_000, 0, 7, 4))

VARIANTS: dict[str, Event] = {
    **{f"granted: {source}": replace(GRANTED, source=source, consideration=None) for source in Source},
    "captured: bought credits of two rails": replace(
        CAPTURED, slices=(BOUGHT, BY_LIGHTNING), overage=(), revoked=(REVOKED, REVOKED)
    ),
    "captured: free credits only": replace(CAPTURED, slices=(FREE,), returned=(), revoked=(), overage=()),
    "reversed: nothing left, nothing held": replace(REVERSED, left=None, held=None),
    "reversed: free credits left": replace(REVERSED, left=FREE, held=FREE),
    "refunded: all that was paid": replace(SENT, amount_minor=BOUGHT.worth.gross_minor),
    "refunded: more than was paid": replace(SENT, amount_minor=100),
    "refunded: the dollars of what was sent are rounded down": replace(
        SENT, slices=(replace(BOUGHT, worth=Worth(70, 7, 3, 50, 5)),), amount_minor=33
    ),
    "refunded: nothing was paid": replace(SENT, slices=(FREE,), amount_minor=0),
    "refunded: in bitcoin": replace(
        SENT, slices=(BY_LIGHTNING, FREE), asset="BTC", rail="lightning", amount_minor=40_000
    ),
    "stopped: more came back than was unearned": replace(
        STOPPED, worth=Worth(430, 50, 20, 450, 50), unearned=Worth(0, 0, 0, 0, 0)
    ),
    "stopped: less came back than was unearned": replace(STOPPED, worth=Worth(100, 10, 0, 105, 10)),
    "stopped: the same amount at a better rate": replace(
        STOPPED, worth=Worth(400, 0, 20, 300, 0), unearned=Worth(400, 0, 20, 420, 0)
    ),
    "billed beyond the allowance, in bitcoin": replace(
        SAMPLES["ledger.overage_billed.v1"], consideration=SATS
    ),
    "moved out: no credits": replace(SAMPLES["ledger.credits_moved_out.v1"], credits=0, slices=()),
    "moved in: no credits": replace(SAMPLES["ledger.credits_moved_in.v1"], credits=0, lots=()),
    "moved in: a lot that nobody paid for": replace(
        SAMPLES["ledger.credits_moved_in.v1"],
        lots=tuple(replace(lot, consideration=None) for lot in SAMPLES["ledger.credits_moved_in.v1"].lots),
    ),
}


def lines_of(event: Event) -> Iterator[str]:
    change = movement(event)
    if change is None:
        yield "  no line in the statement"
    else:
        about = f"{change.reference_type or '-'} {change.reference_id or '-'}"
        yield (
            f"  {change.kind} {change.credits}: posted {change.posted:+}, held {change.held:+}, "
            f"debt {change.debt:+}; {about}"
        )
    for line in postings(event):
        yield f"  {line.account:40}{line.amount_minor:+15} {line.asset.code:6}{line.usd_minor:+8}".rstrip()


def test_every_event_is_booked_line_by_line_as_the_accountants_have_it() -> None:
    """A line that changes here changes every book that was ever exported: `booked.txt` is read, then edited."""
    booked = "\n".join(
        "\n".join([name, *lines_of(event), ""]) for name, event in {**SAMPLES, **VARIANTS}.items()
    )
    assert booked == BOOKED.read_text()


def test_an_asset_that_a_deployment_adds_is_booked_in_its_own_minor_units() -> None:
    gold = Asset("XAU", 4)
    event = replace(SENT, asset="XAU")
    assert {line.asset for line in postings(event, JournalContext(assets={"XAU": gold, "USD": USD}))} >= {
        gold
    }


def test_an_asset_that_nobody_knows_any_more_is_booked_in_whole_units() -> None:
    assert Asset("OLD", 0) in {line.asset for line in postings(replace(SENT, asset="OLD"))}
