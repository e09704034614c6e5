"""Sending money back, with a credential of its own that can do nothing else.

What is paid is always one BOLT11 invoice: the payer's own, or one that is made for the refund by the owner of a
Lightning address. The core keeps that invoice, and claims its payment hash for this refund alone, before it is paid.
The node starts a payment hash at most once, so asking again never pays again. Before anything is sent the node is asked
whether it was sent already.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import structlog
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import router_pb2 as router

from ledger.money import BTC, Money
from rails.contract import (
    PreparedRefund,
    RailProtocolError,
    RailUnavailable,
    Refund,
    RefundImpossible,
    RefundTo,
)
from rails.lightning import destinations
from rails.lightning.connection import Connection
from rails.lightning.errors import (
    AnswerUnreadable,
    InvoiceNotFound,
    LndRefused,
    PaymentExists,
    PaymentNotFound,
)
from rails.lightning.lookups import Lookups
from rails.lightning.rail import LightningRail

ATTEMPT_SECONDS = 60
"""LND starts no new attempt after this; one under way may end later."""
ANSWER_SECONDS = 75
FEE_LIMIT_PER_MILLE = 10
FEE_LIMIT_FLOOR_MSAT = 10_000
FEE_MSAT_MAX = 10**15
"""More than anybody has: what says more is not read."""
_HASH = re.compile(r"[0-9a-f]{64}")
_OUTCOMES = {2: Refund.SENT, 3: Refund.FAILED}


class RefundingLightningRail(LightningRail):
    """A Lightning rail that can also send money back. Implements `Refunds`, `PreparesRefunds` and `RefundCosts`."""

    def __init__(self, *arguments: Any, payouts: Payouts) -> None:
        super().__init__(*arguments)
        self.capabilities = replace(
            self.capabilities,
            refund_to=RefundTo.INVOICE,
            refund_fee_per_mille=FEE_LIMIT_PER_MILLE,
            refund_fee_least=FEE_LIMIT_FLOOR_MSAT,
        )
        self._payouts = payouts

    async def refund(
        self,
        reference: str,
        amount: Money,
        destination: str | None,
        key: str,
    ) -> Refund:
        """Pay the BOLT11 invoice `destination`, which asks for this amount or leaves it open.

        Raises `ValueError` for another asset or without a destination, and `RailUnavailable` only
        before anything was sent.
        """
        if amount.asset != BTC or amount.minor <= 0 or destination is None:
            raise ValueError("a Lightning refund needs an amount in BTC and a BOLT11 invoice")
        return await self._payouts.pay(destination, amount.minor, key)

    def destination_fault(self, destination: str, amount: Money) -> str | None:
        """`unreadable`, or `other_amount` of an invoice that asks for another one."""
        try:
            known = self._payouts.read(destination)
        except destinations.DestinationUnreadable:
            return "unreadable"
        return "other_amount" if known.amount_msat not in (None, amount.minor) else None

    async def prepare_refund(self, amount: Money, destination: str) -> PreparedRefund:
        """The invoice to pay, and its payment hash."""
        return await self._payouts.prepare(destination, amount.minor)

    async def refund_cost(self, destination: str | None, key: str) -> Money | None:
        """The routing fee of what was paid to this invoice."""
        fee_msat = None if destination is None else await self._payouts.fee_msat(destination)
        return None if fee_msat is None else Money(fee_msat, BTC)

    async def close(self) -> None:
        """Let go of both channels."""
        await super().close()
        await self._payouts.close()


class Payouts:
    """Outgoing payments, at most once per payment hash."""

    def __init__(self, connection: Connection, lookups: Lookups, *, plain_http: bool = False) -> None:
        self._connection = connection
        self._lookups = lookups
        self._plain_http = plain_http
        self._log = structlog.get_logger()

    async def close(self) -> None:
        """Let go of the channel and of those who were asked."""
        await self._connection.close()
        await self._lookups.close()

    def read(self, destination: str) -> destinations.Destination:
        """What was named. Raises `DestinationUnreadable`."""
        return destinations.read(destination, plain_http=self._plain_http)

    async def prepare(self, destination: str, amount_msat: int) -> PreparedRefund:
        """An invoice for this amount, or one that leaves it open, which this node has never begun to pay."""
        try:
            known = self.read(destination)
        except destinations.DestinationUnreadable:
            raise RefundImpossible("it cannot be read") from None
        looked_up = known.kind is destinations.Kind.LOOKUP
        bolt11 = await self._lookups.invoice(known.text, amount_msat) if looked_up else known.text
        try:
            asked = await self._decode(bolt11)
        except LndRefused:
            raise RefundImpossible("the node cannot read the invoice, or it is of another network") from None
        if asked.num_msat != amount_msat and (looked_up or asked.num_msat != 0):
            raise RefundImpossible("the invoice asks for another amount")
        if await self._payment(asked.payment_hash) is not None:
            raise RefundImpossible("this node has paid that invoice already, or tried to")
        return PreparedRefund(destination=bolt11, claim=f"ln:{asked.payment_hash}")

    async def pay(self, bolt11: str, amount_msat: int, key: str) -> Refund:
        """Pay once. UNKNOWN until the node knows how it ended: ask again with the same key."""
        try:
            asked = await self._decode(bolt11)
        except LndRefused:
            return Refund.FAILED  # not an invoice: nothing can ever have been sent to it
        known = await self._track(str(asked.payment_hash))
        if known is not None:
            return known
        if asked.num_msat not in (0, amount_msat):
            self._log.warning("lightning_refund_of_another_amount", key=key)
            return Refund.FAILED
        return await self._send(bolt11, amount_msat, 0 if asked.num_msat else amount_msat, asked.payment_hash)

    async def _decode(self, bolt11: str) -> Any:
        asked = await self._connection.call(
            lambda stubs: stubs.lightning.DecodePayReq, ln.PayReqString(pay_req=bolt11), method="DecodePayReq"
        )
        if not _HASH.fullmatch(asked.payment_hash):
            raise AnswerUnreadable("DecodePayReq: the payment hash is none")
        return asked

    async def fee_msat(self, bolt11: str) -> int | None:
        """What the route of a payment took (`Payment.fee_msat` of LND); None while it is not known."""
        payment = await self._payment((await self._decode(bolt11)).payment_hash)
        fee = None if payment is None else payment.fee_msat
        return fee if type(fee) is int and 0 <= fee <= FEE_MSAT_MAX else None

    async def _track(self, payment_hash: str) -> Refund | None:
        """How a payment stands, or None if it was never started."""
        payment = await self._payment(payment_hash)
        return None if payment is None else _OUTCOMES.get(payment.status, Refund.UNKNOWN)

    async def _payment(self, payment_hash: str) -> Any:
        """What the node knows of a payment, or None if it was never started."""
        request = router.TrackPaymentRequest(payment_hash=bytes.fromhex(payment_hash))
        updates = self._connection.stream(
            lambda stubs: stubs.router.TrackPaymentV2, request, method="TrackPaymentV2", seconds=10
        )
        try:
            async with aclosing(updates):
                async for payment in updates:
                    return payment
        except (PaymentNotFound, InvoiceNotFound):
            return None
        return ln.Payment()  # of no known status

    async def _send(self, bolt11: str, amount_msat: int, chosen_msat: int, payment_hash: str) -> Refund:
        request = router.SendPaymentRequest(
            payment_request=bolt11,
            amt_msat=chosen_msat,
            timeout_seconds=ATTEMPT_SECONDS,
            fee_limit_msat=max(amount_msat * FEE_LIMIT_PER_MILLE // 1000, FEE_LIMIT_FLOOR_MSAT),
        )
        updates = self._connection.stream(
            lambda stubs: stubs.router.SendPaymentV2, request, method="SendPaymentV2", seconds=ANSWER_SECONDS
        )
        try:
            async with aclosing(updates):
                async for payment in updates:
                    if payment.status in _OUTCOMES:
                        return _OUTCOMES[payment.status]
        except PaymentExists:
            return await self._outcome(payment_hash, Refund.UNKNOWN)
        except RailUnavailable:
            return Refund.UNKNOWN
        except RailProtocolError as error:
            # Refused before it began (expired, to ourselves), unless the node says it did begin.
            self._log.warning("lightning_refund_refused", reason=str(error))
            return await self._outcome(payment_hash, Refund.FAILED)
        return Refund.UNKNOWN

    async def _outcome(self, payment_hash: str, never_started: Refund) -> Refund:
        try:
            return await self._track(payment_hash) or never_started
        except (RailUnavailable, RailProtocolError):
            return Refund.UNKNOWN
