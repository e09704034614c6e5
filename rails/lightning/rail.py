"""`LightningRail`: invoices and hold invoices on an LND node, behind the core's rail contract.

`reference` is the payment hash in hex. The macaroon can only make and read invoices; refunds need
another credential and live in `refunds.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from ledger.clock import Clock
from ledger.money import BTC
from rails.contract import (
    Capabilities,
    Health,
    Instructions,
    Notification,
    Observation,
    Order,
    RailProtocolError,
    RailUnavailable,
)
from rails.lightning.channels import Channels
from rails.lightning.client import LndClient, NewInvoice
from rails.lightning.credentials import Preimages
from rails.lightning.errors import InvoiceExists, InvoiceFinal
from rails.lightning.invoices import Invoice, InvoiceState
from rails.lightning.listening import Listener, Pace
from rails.lightning.observing import observe
from rails.lightning.throttle import Throttle

MSAT_PER_SAT = 1_000
"""Some wallets cannot pay, or misread, an invoice with a part of a satoshi: whole ones are asked."""
DESCRIPTION_BYTES_MAX = 500
"""BOLT11 holds 639 bytes of description; the payment id is added to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator chooses."""

    production: bool
    network: str = "mainnet"
    """In production the node must be on this network."""
    private_hints: bool = False
    """Put our unannounced channels into invoices (only for nodes that have no announced ones)."""
    hold_cltv_delta: int = 80
    """Blocks for a hold: LND gives the money back 18 blocks before they are over."""
    cltv_delta: int = 80
    minimum_msat: int = MSAT_PER_SAT
    maximum_msat: int = 4_000_000_000
    quote_seconds: int = 900
    pace: Pace = field(default_factory=Pace)


class LightningRail:
    """Money over Lightning. Implements `Rail`, `Expiry`, `Holds` and `NoticesOutages`."""

    name = "lightning"

    def __init__(
        self,
        client: LndClient,
        preimages: Preimages,
        throttle: Throttle,
        clock: Clock,
        settings: Settings,
        channels: Channels | None = None,
    ) -> None:
        self._client = client
        self._channels = channels
        """Without it nobody knows how much can arrive."""
        self._preimages = preimages
        self._throttle = throttle
        self._clock = clock
        self._settings = settings
        self._listener = Listener(client, settings.pace)
        self._node_is_right = False
        self._log = structlog.get_logger()
        self.capabilities = Capabilities(
            assets=(BTC,),
            label="Lightning",
            minimum={BTC.code: settings.minimum_msat},
            maximum={BTC.code: settings.maximum_msat - settings.maximum_msat % MSAT_PER_SAT},
            order=20,
            quote_seconds=settings.quote_seconds,
            payer_learns_secret=True,
            asked_in={BTC.code: MSAT_PER_SAT},
        )

    # --- Rail ----------------------------------------------------------------------------------

    async def open(self, order: Order) -> Instructions:
        """Make an invoice that expires with the quote. The same payment always gets the same one."""
        await self._require_right_node()
        new = self._new_invoice(order)
        await self._throttle.admit()
        payment_hash = self._preimages.hash_of(order.payment_id).hex()
        try:
            bolt11 = await self._client.add_invoice(new)
        except InvoiceExists:
            bolt11 = _same_order(await self._client.lookup(payment_hash), new)
        return Instructions(
            kind="invoice",
            reference=payment_hash,
            uri=f"LIGHTNING:{bolt11.upper()}",
            text=bolt11,
            details={
                "bolt11": bolt11,
                "payment_hash": payment_hash,
                "lightning_uri": f"lightning:{bolt11}",
            },
        )

    async def observe(self, reference: str) -> Observation:
        """Ask the node about one invoice. Raises `InvoiceNotFound` if it knows no such invoice."""
        return observe(await self._client.lookup(_checked(reference)))

    def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        """Notifications for ever; the cursor is `<add_index>:<settle_index>`."""
        return self._listener.notifications(cursor)

    async def health(self) -> Health:
        """Whether the node is up, synced, on the right network, and our macaroon no more than it should be."""
        try:
            await self._client.require_active()
            info = await self._client.info()
            self._node_is_right = False  # node and macaroon may have been replaced since
            await self._require_right_node()
        except (RailUnavailable, RailProtocolError) as error:
            return Health(ok=False, detail=str(error))
        if not info.synced_to_chain:
            return Health(ok=False, detail="the Lightning node is catching up with the chain")
        return await self._can_receive()

    async def outage(self) -> Health:
        """The node does not answer, has ended its stream, or is not ready."""
        return await self._listener.outages.next()

    async def close(self) -> None:
        """Let go of the channel."""
        await self._client.close()
        if self._channels is not None:
            await self._channels.close()

    # --- Expiry --------------------------------------------------------------------------------

    async def cancel(self, reference: str) -> Observation:
        """Close an unpaid invoice. Money that is held or settled stays where it is."""
        invoice = await self._client.lookup(_checked(reference))
        if invoice.state is InvoiceState.OPEN:
            return await self._cancel(reference)
        return observe(invoice)

    # --- Holds ---------------------------------------------------------------------------------

    async def capture(self, reference: str) -> Observation:
        """Settle a held invoice and look whether every HTLC is settled. If unpaid or gone, say so."""
        invoice = await self._client.lookup(_checked(reference))
        if invoice.state is not InvoiceState.ACCEPTED:
            return observe(invoice)
        preimage = self._preimages.found_in(invoice.memo, reference)
        if preimage is None:
            raise RailProtocolError(
                "the held invoice is not one of ours, or LIGHTNING_PREIMAGE_KEY has changed"
            )
        try:
            await self._client.settle(preimage)
        except InvoiceFinal:
            self._log.warning("lightning_capture_too_late", reference=reference)
        return await self.observe(reference)

    async def release(self, reference: str) -> Observation:
        """Give held money back; an open invoice is closed. Settled money stays ours."""
        return await self._cancel(_checked(reference))

    # -------------------------------------------------------------------------------------------

    async def _cancel(self, reference: str) -> Observation:
        try:
            await self._client.cancel(reference)
        except InvoiceFinal:
            self._log.info("lightning_cancel_too_late", reference=reference)
        return await self.observe(reference)

    async def _can_receive(self) -> Health:
        """Open, with what can arrive. That this cannot be asked closes nothing: invoices can still be paid."""
        if self._channels is None:
            return Health(ok=True)
        try:
            msat = await self._channels.receivable_msat()
        except (RailUnavailable, RailProtocolError) as error:
            return Health(ok=True, detail=f"what can arrive is not known: {error}")
        most = self.capabilities.maximum[BTC.code]
        sats = msat // MSAT_PER_SAT
        little = f"the channels can receive {sats} sat now, and {most // MSAT_PER_SAT} are offered at most"
        return Health(ok=True, detail=little if msat < most else "", receivable={BTC.code: msat})

    async def _require_right_node(self) -> None:
        """Once per look at its health: in production the right network, and a macaroon without sight of our channels."""
        if self._node_is_right:
            return
        if self._settings.production:
            info = await self._client.info()
            if info.network != self._settings.network:
                raise RailUnavailable(
                    f"the Lightning node is on {info.network}, and {self._settings.network} is wanted"
                )
            if await self._client.can_see_channels():
                raise RailUnavailable("the Lightning macaroon can do more than make and read invoices")
        self._node_is_right = True

    def _new_invoice(self, order: Order) -> NewInvoice:
        if order.amount_due.asset != BTC:
            raise ValueError(f"the Lightning rail is paid in {BTC.code}, not {order.amount_due.asset.code}")
        left = (order.expires_at - self._clock()) // timedelta(seconds=1)
        description = order.description.encode()[:DESCRIPTION_BYTES_MAX].decode(errors="ignore")
        return NewInvoice(
            memo=f"{description} ({order.payment_id})",
            value_msat=order.amount_due.minor,
            expiry_seconds=max(left, 1),
            cltv_delta=self._settings.hold_cltv_delta if order.hold else self._settings.cltv_delta,
            private_hints=self._settings.private_hints,
            preimage=None if order.hold else self._preimages.of(order.payment_id),
            payment_hash=self._preimages.hash_of(order.payment_id) if order.hold else None,
        )


def _same_order(known: Invoice, new: NewInvoice) -> str:
    """The invoice made before a crash, if it is for the same order."""
    if known.memo != new.memo or known.value_msat != new.value_msat:
        raise RailProtocolError("the node has an invoice with this payment hash for another order")
    return known.bolt11


def _checked(reference: str) -> str:
    if len(reference) != 64 or not set(reference) <= set("0123456789abcdef"):
        raise RailProtocolError("a Lightning reference is a payment hash of 64 hex digits")
    return reference
