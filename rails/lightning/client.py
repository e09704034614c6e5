"""A thin, typed client of LND's invoice API, over the compiled stubs of `lnd-grpc-client`.

Protocol source: LND `lnrpc/lightning.proto`, `invoicesrpc`, `routerrpc`, `stateservice` (v0.16 stubs,
wire-compatible with v0.21). Amounts are millisatoshis. No message is ever logged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from lndgrpc.compiled import invoices_pb2 as inv
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import stateservice_pb2 as stateservice

from rails.contract import RailUnavailable
from rails.lightning.connection import Connection
from rails.lightning.errors import AnswerUnreadable, CredentialRefused
from rails.lightning.invoices import Invoice, from_wire

PAGE_SIZE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """What to ask the node for. Exactly one of `preimage` and `payment_hash` is given."""

    memo: str
    value_msat: int
    """0 lets the payer choose."""
    expiry_seconds: int
    cltv_delta: int
    private_hints: bool
    """Tell the payer of our unannounced channels."""
    preimage: bytes | None = None
    payment_hash: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """Which node this is."""

    version: str
    network: str
    synced_to_chain: bool
    block_height: int


class LndClient:
    """Invoices of one node. Every call may raise `RailUnavailable` or an `LndRefused`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def close(self) -> None:
        """Let go of the channel."""
        await self._connection.close()

    # --- the node ------------------------------------------------------------------------------

    async def require_active(self, *, wait_ms: int | None = None) -> None:
        """Raise `RailUnavailable` unless the node is ready for calls, and says so in time. Needs no macaroon."""
        answer = await self._connection.call(
            lambda stubs: stubs.state.GetState,
            stateservice.GetStateRequest(),
            method="GetState",
            wait_ms=wait_ms,
        )
        if answer.state != stateservice.SERVER_ACTIVE:
            states = {number: name for name, number in stateservice.WalletState.items()}
            name = states.get(answer.state, f"state {answer.state}")
            raise RailUnavailable(f"the Lightning node is not ready: {name}")

    async def info(self) -> NodeInfo:
        """Version, network and whether the node has caught up with the chain."""
        answer = await self._connection.call(
            lambda stubs: stubs.lightning.GetInfo, ln.GetInfoRequest(), method="GetInfo"
        )
        return NodeInfo(
            version=answer.version,
            network=answer.chains[0].network if answer.chains else "unknown",
            synced_to_chain=answer.synced_to_chain,
            block_height=answer.block_height,
        )

    async def can_see_channels(self) -> bool:
        """Whether our macaroon allows what an invoice macaroon must not (a harmless reading call)."""
        try:
            await self._connection.call(
                lambda stubs: stubs.lightning.ChannelBalance,
                ln.ChannelBalanceRequest(),
                method="ChannelBalance",
            )
        except CredentialRefused:
            return False
        return True

    # --- invoices ------------------------------------------------------------------------------

    async def add_invoice(self, new: NewInvoice) -> str:
        """Make an invoice and return its BOLT11. Raises `InvoiceExists` if its hash is known."""
        common = {
            "memo": new.memo,
            "value_msat": new.value_msat,
            "expiry": new.expiry_seconds,
            "cltv_expiry": new.cltv_delta,
            "private": new.private_hints,
        }
        if new.preimage is not None:
            answer = await self._connection.call(
                lambda stubs: stubs.lightning.AddInvoice,
                ln.Invoice(r_preimage=new.preimage, **common),
                method="AddInvoice",
            )
        else:
            answer = await self._connection.call(
                lambda stubs: stubs.invoices.AddHoldInvoice,
                inv.AddHoldInvoiceRequest(hash=new.payment_hash, **common),
                method="AddHoldInvoice",
            )
        return str(answer.payment_request)

    async def lookup(self, payment_hash: str) -> Invoice:
        """One invoice. Raises `InvoiceNotFound`."""
        answer = await self._connection.call(
            lambda stubs: stubs.lightning.LookupInvoice,
            ln.PaymentHash(r_hash=bytes.fromhex(payment_hash)),
            method="LookupInvoice",
        )
        return from_wire(answer)

    async def settle(self, preimage: bytes) -> None:
        """Take the money of an accepted hold invoice; settled already is success too."""
        await self._connection.call(
            lambda stubs: stubs.invoices.SettleInvoice,
            inv.SettleInvoiceMsg(preimage=preimage),
            method="SettleInvoice",
        )

    async def cancel(self, payment_hash: str) -> None:
        """Cancel an open or accepted invoice; canceled already is success too."""
        await self._connection.call(
            lambda stubs: stubs.invoices.CancelInvoice,
            inv.CancelInvoiceMsg(payment_hash=bytes.fromhex(payment_hash)),
            method="CancelInvoice",
        )

    async def pages(
        self, after_add_index: int = 0, *, pending_only: bool = False
    ) -> AsyncGenerator[Invoice, None]:
        """All invoices with a larger add index, oldest first, page by page.

        Raises `AnswerUnreadable` where a page does not go on from the one before: such pages may have no end.
        """
        offset = after_add_index
        while True:
            answer = await self._connection.call(
                lambda stubs: stubs.lightning.ListInvoices,
                ln.ListInvoiceRequest(
                    index_offset=offset, num_max_invoices=PAGE_SIZE, pending_only=pending_only
                ),
                method="ListInvoices",
                wait_ms=60_000,
            )
            for message in answer.invoices:
                yield from_wire(message)
            if len(answer.invoices) < PAGE_SIZE:
                return
            # No two invoices have the same index, so that a full page goes on by its size at least.
            if answer.last_index_offset < offset + PAGE_SIZE:
                raise AnswerUnreadable("ListInvoices: a page does not go on from the one before")
            offset = int(answer.last_index_offset)

    async def subscribe(self, add_index: int, settle_index: int) -> AsyncGenerator[Invoice, None]:
        """Adds and settles after these indexes, then live. Index 0 brings no backlog of its kind."""
        messages = self._connection.stream(
            lambda stubs: stubs.lightning.SubscribeInvoices,
            ln.InvoiceSubscription(add_index=add_index, settle_index=settle_index),
            method="SubscribeInvoices",
        )
        async with aclosing(messages):
            async for message in messages:
                yield from_wire(message)

    async def follow(self, payment_hash: str) -> AsyncGenerator[Invoice, None]:
        """One invoice: its state now, then every change, until it is final."""
        messages = self._connection.stream(
            lambda stubs: stubs.invoices.SubscribeSingleInvoice,
            inv.SubscribeSingleInvoiceRequest(r_hash=bytes.fromhex(payment_hash)),
            method="SubscribeSingleInvoice",
        )
        async with aclosing(messages):
            async for message in messages:
                yield from_wire(message)
