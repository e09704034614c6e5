"""Payments that leave the node (refunds), and the sandbox wallet that can receive them.

The only payee reachable from this node is the sandbox wallet; its invoices are made by
`POST /sandbox/wallet/invoice`. Protocol source: LND v0.21 `lnrpc/routerrpc`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from lndgrpc.compiled import lightning_pb2 as ln

from sandbox.common.clock import MovableClock
from sandbox.lnd import bolt11
from sandbox.lnd.errors import LndError
from sandbox.lnd.faults import Faults
from sandbox.lnd.store import Store

ROUTING_FEE_MSAT = 1_000
IN_FLIGHT, SUCCEEDED, FAILED = 1, 2, 3
_NO_ROUTE, _WRONG_DETAILS, _INSUFFICIENT_BALANCE = 2, 4, 5
BALANCE_MSAT = 10_000_000_000
"""What the node can send."""
_WALLET_CLTV_DELTA = 18
_WALLET_EXPIRY_SECONDS = 3600


@dataclass
class Payer:
    """Sends payments, at most once per payment hash."""

    store: Store
    clock: MovableClock
    faults: Faults
    wallet_key: bytes
    node_id: str
    randomness: Callable[[int], bytes]

    def send(self, request: Any) -> tuple[bytes, Any]:
        """Begin a payment; returns its hash and the message in flight. Raises `LndError`."""
        if not request.payment_request:
            raise LndError("payment request is required by this node")
        invoice = self.decode(request.payment_request)
        payment_hash = bytes.fromhex(invoice.payment_hash)
        now = int(self.clock())
        if invoice.date + invoice.expiry < now:
            raise LndError(f"invoice expired. Valid until {invoice.date + invoice.expiry}")
        if invoice.payee == self.node_id and not request.allow_self_payment:
            raise LndError("self-payments not allowed")
        asked = int(invoice.amount_msat or 0)
        offered = int(request.amt_msat) or int(request.amt) * 1000
        if asked and offered:
            raise LndError("amount must not be specified when paying a non-zero amount invoice")
        if not asked and not offered:
            raise LndError("amount must be specified when paying a zero amount invoice")
        known = self.store.payment(payment_hash)
        if known is not None and known.status != FAILED:
            text = "invoice is already paid" if known.status == SUCCEEDED else "payment is in transition"
            raise LndError(text, grpc.StatusCode.ALREADY_EXISTS)
        payment = ln.Payment(
            payment_hash=invoice.payment_hash,
            value_msat=asked or offered,
            value_sat=(asked or offered) // 1000,
            payment_request=request.payment_request,
            status=IN_FLIGHT,
            creation_time_ns=now * 10**9,
            payment_index=1,
        )
        with self.store.transaction():
            self.store.put_payment(payment_hash, payment)
        return payment_hash, payment

    def finish(self, payment_hash: bytes, fee_limit_msat: int) -> Any:
        """Bring a payment in flight to its end, unless it is made to be stuck."""
        if self.faults.take("payment_stuck"):
            return self.track(payment_hash)
        return self.resolve(payment_hash, fee_limit_msat)

    def resolve(self, payment_hash: bytes, fee_limit_msat: int) -> Any:
        """Decide a payment in flight."""
        payment = self.track(payment_hash)
        if payment.status != IN_FLIGHT:
            return payment
        theirs = self.store.wallet_invoice(payment_hash)
        payment.status = FAILED
        if payment.value_msat + ROUTING_FEE_MSAT > BALANCE_MSAT:
            payment.failure_reason = _INSUFFICIENT_BALANCE
        elif theirs is None or fee_limit_msat < ROUTING_FEE_MSAT:
            payment.failure_reason = _NO_ROUTE
        elif theirs[2] or payment.value_msat < theirs[1]:
            payment.failure_reason = _WRONG_DETAILS
        else:
            payment.status = SUCCEEDED
            payment.fee_msat, payment.fee_sat = ROUTING_FEE_MSAT, ROUTING_FEE_MSAT // 1000
            payment.payment_preimage = theirs[0].hex()
        with self.store.transaction():
            self.store.put_payment(payment_hash, payment)
            if payment.status == SUCCEEDED:
                self.store.wallet_received(payment_hash, payment.value_msat)
        return payment

    def track(self, payment_hash: bytes) -> Any:
        """The present state of a payment."""
        payment = self.store.payment(payment_hash)
        if payment is None:
            raise LndError("payment isn't initiated", grpc.StatusCode.NOT_FOUND)
        return payment

    def decode(self, text: str) -> Any:
        """Read a payment request or raise `LndError`."""
        try:
            invoice = bolt11.decode(text)
        except ValueError as error:
            raise LndError(f"invalid payment request: {error}") from error
        if invoice.currency != bolt11.CURRENCY:
            raise LndError("invoice not for current active network 'regtest'")
        return invoice

    def wallet_invoice(self, amount_msat: int, description: str, description_hash: bytes = b"") -> str:
        """An invoice of the sandbox wallet, so that something can be refunded to it."""
        preimage = self.randomness(32)
        payment_hash = hashlib.sha256(preimage).digest()
        terms = bolt11.Terms(
            payment_hash=payment_hash,
            amount_msat=amount_msat,
            description=description,
            description_hash=description_hash,
            expiry_seconds=_WALLET_EXPIRY_SECONDS,
            cltv_delta=_WALLET_CLTV_DELTA,
        )
        text = bolt11.encode(terms, self.randomness(32), int(self.clock()), self.wallet_key)
        with self.store.transaction():
            self.store.add_wallet_invoice(payment_hash, preimage, text, amount_msat)
        return text
