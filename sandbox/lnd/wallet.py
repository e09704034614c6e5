"""The payer's side of the sandbox: a wallet that decodes an invoice, checks it, and pays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.common.control import Refused
from sandbox.lnd import bolt11
from sandbox.lnd.registry import Arrival, Registry
from sandbox.lnd.store import ACCEPTED, SETTLED

RESERVE_SAT = 354
"""What the payer's side of the node's channel must keep."""
MAX_PARTS = 64
_STATES = {0: "open", 1: "settled", 2: "canceled", 3: "accepted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What the payer does."""

    text: str
    amount_msat: int | None = None
    """Instead of the invoice's amount: more, or less (which the payee refuses)."""
    parts: int = 1
    """Split into that many HTLCs."""
    send_parts: int | None = None
    """Send only the first of them: the set stays incomplete until the others follow."""
    even_if_expired: bool = False
    """Send although the invoice has expired, as a careless wallet does."""


@dataclass
class Wallet:
    """Pays invoices of this node."""

    registry: Registry

    def describe(self, text: str) -> dict[str, Any]:
        """What a wallet shows before paying. Raises `Refused`."""
        invoice = self._decode(text)
        stored = self.registry.store.invoice(bytes.fromhex(invoice.payment_hash))
        expires_at = invoice.date + invoice.expiry
        return {
            "payment_hash": invoice.payment_hash,
            "amount_msat": int(invoice.amount_msat or 0),
            "description": invoice.description or "",
            "payee": invoice.payee,
            "created_at": invoice.date,
            "expires_at": expires_at,
            "expired": expires_at <= self.registry.clock(),
            "state": _STATES[stored.message.state] if stored else "unknown",
            "hold": bool(stored and stored.hold),
            "received_msat": int(stored.message.amt_paid_msat) if stored else 0,
        }

    def pay(self, payment: Payment) -> dict[str, Any]:
        """Pay, and return whether the money is gone (`paid`), locked (`held`) or partly under way."""
        invoice = self._decode(payment.text)
        amount = self._amount(invoice, payment)
        if invoice.payee != bolt11.public_key(self.registry.private_key):
            raise Refused("no route: the payee is not on this sandbox's network")
        if invoice.date + invoice.expiry <= self.registry.clock() and not payment.even_if_expired:
            raise Refused("the invoice has expired", 410)
        faults = self.registry.faults
        if not faults.channel_active or amount > max(faults.remote_sat - RESERVE_SAT, 0) * 1000:
            raise Refused("no route: the payee cannot receive this much")
        parts = _split(amount, payment.parts)
        stored = self.registry.arrive(
            Arrival(
                payment_hash=bytes.fromhex(invoice.payment_hash),
                payment_secret=bytes.fromhex(invoice.payment_secret),
                parts_msat=parts[: payment.send_parts] if payment.send_parts is not None else parts,
                total_msat=amount,
                final_cltv_delta=invoice.min_final_cltv_expiry,
            )
        )
        state = {SETTLED: "paid", ACCEPTED: "held"}.get(stored.message.state, "in_flight")
        answer = {"state": state, "payment_hash": invoice.payment_hash, "amount_msat": amount}
        if state == "paid":
            answer["preimage"] = bytes(stored.message.r_preimage).hex()
        return answer

    def _decode(self, text: str) -> Any:
        bare = text.strip()
        if bare.lower().startswith(bolt11.URI_SCHEME):
            bare = bare[len(bolt11.URI_SCHEME) :]
        try:
            invoice = bolt11.decode(bare)
        except ValueError as error:
            raise Refused(str(error), 400) from error
        if invoice.currency != bolt11.CURRENCY:
            raise Refused("this invoice is for another network: the sandbox pays regtest only", 400)
        if not invoice.has_payment_hash or not invoice.payment_secret:
            raise Refused("this invoice lacks a payment hash or payment secret", 400)
        return invoice

    def _amount(self, invoice: Any, payment: Payment) -> int:
        amount = int(invoice.amount_msat or 0) if payment.amount_msat is None else payment.amount_msat
        if amount <= 0:
            raise Refused("the invoice leaves the amount open: give amount_msat", 400)
        if not 1 <= payment.parts <= min(MAX_PARTS, amount):
            raise Refused(f"parts must be between 1 and {MAX_PARTS}", 400)
        return amount


def _split(amount: int, parts: int) -> list[int]:
    share, rest = divmod(amount, parts)
    return [share + (1 if index < rest else 0) for index in range(parts)]
