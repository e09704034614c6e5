"""The invoice registry: what LND does to an invoice, and when.

States: OPEN → SETTLED (ordinary), OPEN → ACCEPTED → SETTLED (hold), OPEN or ACCEPTED → CANCELED.
Protocol source: LND v0.21 `invoices/invoiceregistry.go`; errors carry LND's own words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.common.clock import MovableClock
from sandbox.common.control import Refused
from sandbox.lnd import bolt11
from sandbox.lnd.errors import LndError, invoice_not_found
from sandbox.lnd.faults import Faults
from sandbox.lnd.feed import Feed
from sandbox.lnd.requests import NewInvoice, new_message
from sandbox.lnd.store import ACCEPTED, CANCELED, OPEN, SETTLED, Store, Stored

AUTO_CANCEL_BLOCKS = 18
"""LND gives a held HTLC back this many blocks before it expires."""
MPP_TIMEOUT_SECONDS = 120
FIRST_HEIGHT = 500

HTLC_ACCEPTED, HTLC_SETTLED, HTLC_CANCELED = 0, 1, 2
_REFUSED = "the payee refused the payment: incorrect_or_unknown_payment_details"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Parts of a payment that reach this node."""

    payment_hash: bytes
    payment_secret: bytes
    parts_msat: Sequence[int]
    total_msat: int
    final_cltv_delta: int


@dataclass
class Registry:
    """All invoices of the node and every way they change."""

    store: Store
    clock: MovableClock
    feed: Feed
    faults: Faults
    private_key: bytes
    randomness: Callable[[int], bytes]
    on_change: Callable[[], None] = field(default=lambda: None)
    """Called when the next timer may have moved."""
    _partial: set[bytes] = field(default_factory=set)
    """Hashes of OPEN invoices with parts that wait for the rest."""

    def __post_init__(self) -> None:
        self._partial |= {s.hash for s in self.store.pending() if s.message.state == OPEN and _waiting(s)}

    @property
    def height(self) -> int:
        """The best block."""
        return int(self.store.setting("height", str(FIRST_HEIGHT)))

    # --- the owner's side ----------------------------------------------------------------------

    def add(self, new: NewInvoice) -> Any:
        """Make and sign an invoice; returns its message. The payment hash must be new."""
        now = int(self.clock())
        secret = self.randomness(32)
        text = bolt11.encode(new.terms, secret, now, self.private_key)
        message, expires_at = new_message(new, text, secret, now), now + new.terms.expiry_seconds
        stored = Stored(message, hold=not new.preimage, preimage=new.preimage, expires_at=expires_at)
        with self.store.transaction():
            if not self.store.insert(stored):
                raise LndError("invoice with payment hash already exists")
        self.feed.publish(stored.message, to_everyone=True)
        self.on_change()
        return stored.message

    def lookup(self, payment_hash: bytes) -> Stored:
        """The invoice with this hash."""
        stored = self.store.invoice(payment_hash)
        if stored is None:
            raise invoice_not_found()
        return stored

    def settle(self, preimage: bytes) -> None:
        """Take the money of an ACCEPTED hold invoice. Nothing happens if it is already settled."""
        stored = self.lookup(hashlib.sha256(preimage).digest())
        if stored.message.state == OPEN:
            raise LndError("invoice still open")
        if stored.message.state == CANCELED:
            raise LndError("invoice already canceled")
        if stored.message.state == ACCEPTED:
            lost = self.faults.take("settle_without_money")
            stored.preimage = preimage
            self._settle(stored, HTLC_CANCELED if lost else HTLC_SETTLED)

    def cancel(self, payment_hash: bytes) -> None:
        """Cancel an OPEN or ACCEPTED invoice. Nothing happens if it is already canceled."""
        stored = self.lookup(payment_hash)
        if stored.message.state == SETTLED:
            raise LndError("invoice already settled")
        if stored.message.state != CANCELED:
            self._cancel(stored)

    # --- the payer's side ----------------------------------------------------------------------

    def arrive(self, arrival: Arrival) -> Stored:
        """HTLCs reach the node. Raises `Refused` if they are failed back."""
        stored = self.store.invoice(arrival.payment_hash)
        if stored is None or stored.message.state != OPEN:
            raise Refused(_REFUSED)
        message = stored.message
        if message.payment_addr != arrival.payment_secret or arrival.total_msat < max(message.value_msat, 1):
            raise Refused(_REFUSED)
        if arrival.final_cltv_delta < message.cltv_expiry:
            raise Refused("the payee refused the payment: final_expiry_too_soon")
        if any(h.mpp_total_amt_msat != arrival.total_msat for h in _waiting(stored)):
            raise Refused(_REFUSED)
        for amount in arrival.parts_msat:
            self._append_htlc(message, amount, arrival)
        held = sum(h.amt_msat for h in _waiting(stored))
        if held < arrival.total_msat:
            self._write(stored)
        elif stored.hold:
            message.state = ACCEPTED
            _set_paid(message, held)
            self._write(stored, single=True)
        else:
            self._settle(stored, HTLC_SETTLED)
        self.on_change()
        return stored

    def _append_htlc(self, message: Any, amount_msat: int, arrival: Arrival) -> None:
        index = int(self.store.setting("htlc_index", "0"))
        self.store.remember("htlc_index", str(index + 1))
        message.htlcs.add(
            chan_id=(FIRST_HEIGHT << 40) | (1 << 16),
            htlc_index=index,
            amt_msat=amount_msat,
            accept_height=self.height,
            accept_time=int(self.clock()),
            expiry_height=self.height + arrival.final_cltv_delta,
            state=HTLC_ACCEPTED,
            mpp_total_amt_msat=arrival.total_msat,
        )

    # --- time and blocks -----------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due: expire OPEN invoices, give back parts of incomplete payments."""
        now = int(self.clock())
        for payment_hash in list(self._partial):
            stored = self.lookup(payment_hash)
            for htlc in _waiting(stored):
                if htlc.accept_time + MPP_TIMEOUT_SECONDS <= now:
                    htlc.state, htlc.resolve_time = HTLC_CANCELED, now
            self._write(stored)
        for stored in self.store.open_due(now):
            self._cancel(self.lookup(stored.hash))

    def mine(self, blocks: int) -> int:
        """Blocks arrive; held money that comes too near its expiry goes back. Returns the new height."""
        height = self.height + blocks
        self.store.remember("height", str(height))
        for stored in self.store.pending():
            if (
                stored.message.state == ACCEPTED
                and min(h.expiry_height for h in _waiting(stored)) - AUTO_CANCEL_BLOCKS <= height
            ):
                self._cancel(stored)
        return height

    def next_due(self) -> float | None:
        """When `tick` has something to do next, in the node's Unix seconds."""
        due = [self.store.next_expiry()]
        for payment_hash in self._partial:
            due += [h.accept_time + MPP_TIMEOUT_SECONDS for h in _waiting(self.lookup(payment_hash))]
        return min((d for d in due if d is not None), default=None)

    # --- transitions ---------------------------------------------------------------------------

    def _settle(self, stored: Stored, htlc_state: int) -> None:
        message, now = stored.message, int(self.clock())
        paid = 0
        for htlc in _waiting(stored):
            htlc.state, htlc.resolve_time = htlc_state, now
            paid += htlc.amt_msat
        _set_paid(message, paid)
        message.state, message.settled, message.settle_date = SETTLED, True, now
        message.r_preimage = stored.preimage
        with self.store.transaction():
            gap, self.faults.settle_index_gap = self.faults.settle_index_gap, 0
            message.settle_index = int(self.store.setting("settle_index", "0")) + 1 + gap
            self.store.remember("settle_index", str(message.settle_index))
            self.store.update(stored)
        self._partial.discard(stored.hash)
        self.feed.publish(message, to_everyone=True)

    def _cancel(self, stored: Stored) -> None:
        now = int(self.clock())
        for htlc in _waiting(stored):
            htlc.state, htlc.resolve_time = HTLC_CANCELED, now
        stored.message.state = CANCELED
        self._write(stored, single=True)

    def _write(self, stored: Stored, *, single: bool = False) -> None:
        with self.store.transaction():
            self.store.update(stored)
        if stored.message.state == OPEN and _waiting(stored):
            self._partial.add(stored.hash)
        else:
            self._partial.discard(stored.hash)
        if single:
            self.feed.publish(stored.message, to_everyone=False)


def _waiting(stored: Stored) -> list[Any]:
    return [h for h in stored.message.htlcs if h.state == HTLC_ACCEPTED]


def _set_paid(message: Any, amount_msat: int) -> None:
    message.amt_paid_msat = amount_msat
    message.amt_paid = amount_msat  # deprecated, and not in satoshi
    message.amt_paid_sat = amount_msat // 1000
