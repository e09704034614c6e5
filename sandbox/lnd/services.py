"""The gRPC services, on the compiled servicers of `lnd-grpc-client`."""

# ruff: noqa: N802 -- method names are the protocol's
from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeAlias

import grpc
from lndgrpc.compiled import invoices_pb2 as inv
from lndgrpc.compiled import invoices_pb2_grpc, lightning_pb2_grpc, router_pb2_grpc, stateservice_pb2_grpc
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import stateservice_pb2 as stateservice

from sandbox.lnd.bolt11 import FEATURES
from sandbox.lnd.errors import LndError, invoice_not_found
from sandbox.lnd.node import Node
from sandbox.lnd.payments import BALANCE_MSAT, IN_FLIGHT
from sandbox.lnd.requests import check_add, check_add_hold, route_hint
from sandbox.lnd.store import CANCELED, SETTLED, Stored
from sandbox.lnd.wallet import RESERVE_SAT

VERSION = "0.21.2-beta commit=sandbox"
MAX_PAGE = 10_000
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Unary: TypeAlias = Callable[[Any, Any, Context], Awaitable[Any]]


def answers(method: Unary) -> Unary:
    """Turn an `LndError` into the call's status."""

    @wraps(method)
    async def call(self: Any, request: Any, context: Context) -> Any:
        try:
            return await method(self, request, context)
        except LndError as error:
            await context.abort(error.code, error.text)

    return call


def register(node: Node, server: grpc.aio.Server) -> None:
    """Add all services to a server."""
    stateservice_pb2_grpc.add_StateServicer_to_server(StateService(node), server)
    lightning_pb2_grpc.add_LightningServicer_to_server(LightningService(node), server)
    invoices_pb2_grpc.add_InvoicesServicer_to_server(InvoicesService(node), server)
    router_pb2_grpc.add_RouterServicer_to_server(RouterService(node), server)


class _OnNode:
    def __init__(self, node: Node) -> None:
        self._node = node


# The stubs carry no types, so their bases are Any; that is what each `misc` below silences.
class StateService(_OnNode, stateservice_pb2_grpc.StateServicer):  # type: ignore[misc]
    """Whether the node is ready. Needs no macaroon."""

    async def GetState(self, _request: Any, _context: Context) -> Any:
        """The wallet's state."""
        state = stateservice.WalletState.Value(self._node.faults.wallet_state)
        return stateservice.GetStateResponse(state=state)


class LightningService(_OnNode, lightning_pb2_grpc.LightningServicer):  # type: ignore[misc]
    """The main service."""

    @answers
    async def GetInfo(self, _request: Any, _context: Context) -> Any:
        """Who this node is."""
        return ln.GetInfoResponse(
            version=VERSION,
            identity_pubkey=self._node.node_id,
            alias="sandbox",
            num_active_channels=1,
            num_peers=1,
            block_height=self._node.registry.height,
            synced_to_chain=self._node.faults.synced,
            synced_to_graph=True,
            chains=[ln.Chain(chain="bitcoin", network=self._node.faults.network)],
        )

    @answers
    async def ChannelBalance(self, _request: Any, _context: Context) -> Any:
        """What the node could send and receive."""
        return ln.ChannelBalanceResponse(
            local_balance=ln.Amount(sat=BALANCE_MSAT // 1000, msat=BALANCE_MSAT),
            remote_balance=ln.Amount(
                sat=self._node.faults.remote_sat, msat=self._node.faults.remote_sat * 1000
            ),
        )

    @answers
    async def ListChannels(self, request: Any, _context: Context) -> Any:
        """The only channel."""
        faults = self._node.faults
        if request.active_only and not faults.channel_active:
            return ln.ListChannelsResponse()
        local = BALANCE_MSAT // 1000
        channel = ln.Channel(
            active=faults.channel_active,
            channel_point=f"{'00' * 32}:0",
            capacity=local + faults.remote_sat,
            local_balance=local,
            remote_balance=faults.remote_sat,
            remote_chan_reserve_sat=RESERVE_SAT,
        )
        return ln.ListChannelsResponse(channels=[channel])

    @answers
    async def AddInvoice(self, request: Any, _context: Context) -> Any:
        """Make an invoice."""
        node = self._node
        message = node.registry.add(check_add(request, node.randomness, node.hinted_hop))
        return ln.AddInvoiceResponse(
            r_hash=message.r_hash,
            payment_request=message.payment_request,
            add_index=message.add_index,
            payment_addr=message.payment_addr,
        )

    @answers
    async def LookupInvoice(self, request: Any, _context: Context) -> Any:
        """One invoice by payment hash."""
        payment_hash = bytes(request.r_hash)
        if not payment_hash:
            raise invoice_not_found()
        if len(payment_hash) != 32:
            raise LndError(f"payment hash must be exactly 32 bytes, is instead {len(payment_hash)}")
        return self._node.registry.lookup(payment_hash).message

    @answers
    async def ListInvoices(self, request: Any, _context: Context) -> Any:
        """A page of invoices in order of add index."""
        limit = min(int(request.num_max_invoices) or 100, MAX_PAGE)
        page = self._node.store.page(
            int(request.index_offset), limit, backwards=request.reversed, pending=request.pending_only
        )
        messages = [stored.message for stored in page]
        return ln.ListInvoiceResponse(
            invoices=messages,
            first_index_offset=messages[0].add_index if messages else 0,
            last_index_offset=messages[-1].add_index if messages else 0,
        )

    async def SubscribeInvoices(self, request: Any, _context: Context) -> AsyncIterator[Any]:
        """Adds and settles; an index of 0 asks for no backlog of its kind."""
        node = self._node
        with node.feed.everything() as queue:
            backlog: list[Stored] = []
            if request.add_index:
                backlog += node.store.added_after(int(request.add_index))
            if request.settle_index:
                backlog += node.store.settled_after(int(request.settle_index))
            for stored in backlog:
                for _ in range(await node.faults.copies()):
                    yield stored.message
            while (message := await queue.get()) is not None:
                for _ in range(await node.faults.copies()):
                    yield message

    @answers
    async def DecodePayReq(self, request: Any, _context: Context) -> Any:
        """Read a payment request."""
        invoice = self._node.payer.decode(request.pay_req)
        amount = int(invoice.amount_msat or 0)
        return ln.PayReq(
            destination=invoice.payee or "",
            payment_hash=invoice.payment_hash,
            num_satoshis=amount // 1000,
            num_msat=amount,
            timestamp=invoice.date,
            expiry=invoice.expiry,
            description=invoice.description or "",
            description_hash=invoice.description_hash or "",
            cltv_expiry=invoice.min_final_cltv_expiry,
            payment_addr=bytes.fromhex(invoice.payment_secret or ""),
            route_hints=[route_hint(hop) for hint in invoice.route_hints or [] for hop in hint.routes],
            features={bit: ln.Feature(name=name, is_known=True) for bit, name in FEATURES.items()},
        )


class InvoicesService(_OnNode, invoices_pb2_grpc.InvoicesServicer):  # type: ignore[misc]
    """Hold invoices."""

    @answers
    async def AddHoldInvoice(self, request: Any, _context: Context) -> Any:
        """Make an invoice whose preimage only the caller knows."""
        node = self._node
        message = node.registry.add(check_add_hold(request, node.hinted_hop))
        return inv.AddHoldInvoiceResp(
            payment_request=message.payment_request,
            add_index=message.add_index,
            payment_addr=message.payment_addr,
        )

    @answers
    async def SettleInvoice(self, request: Any, _context: Context) -> Any:
        """Take the held money."""
        if len(request.preimage) != 32:
            raise LndError(f"invalid preimage length of {len(request.preimage)}, want 32")
        with _not_found_is_unknown():
            self._node.registry.settle(bytes(request.preimage))
        return inv.SettleInvoiceResp()

    @answers
    async def CancelInvoice(self, request: Any, _context: Context) -> Any:
        """Give the held money back, or close an open invoice."""
        with _not_found_is_unknown():
            self._node.registry.cancel(_hash(request.payment_hash))
        return inv.CancelInvoiceResp()

    @answers
    async def LookupInvoiceV2(self, request: Any, _context: Context) -> Any:
        """One invoice by payment hash or payment address."""
        match request.WhichOneof("invoice_ref"):
            case "payment_hash" if len(request.payment_hash) != 32:
                text = f"unable to parse pay hash: {_wrong_hash(request.payment_hash).text}"
                raise LndError(text, grpc.StatusCode.INVALID_ARGUMENT)
            case "payment_hash":
                return self._node.registry.lookup(_hash(request.payment_hash)).message
            case "payment_addr":
                stored = self._node.store.by_payment_addr(bytes(request.payment_addr))
                if stored is None:
                    raise invoice_not_found()
                return stored.message
            case _:
                raise LndError("invoice ref must be set", grpc.StatusCode.INVALID_ARGUMENT)

    async def SubscribeSingleInvoice(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """The present state, then each change; ends with a final state. Nothing for an unknown hash."""
        node, payment_hash = self._node, bytes(request.r_hash)
        if len(payment_hash) != 32:
            await context.abort(grpc.StatusCode.UNKNOWN, _wrong_hash(payment_hash).text)
        with node.feed.single(payment_hash) as queue:
            stored = node.store.invoice(payment_hash)
            message = stored.message if stored else await queue.get()
            while message is not None:
                for _ in range(await node.faults.copies()):
                    yield message
                if message.state in (SETTLED, CANCELED):
                    return
                message = await queue.get()


class RouterService(_OnNode, router_pb2_grpc.RouterServicer):  # type: ignore[misc]
    """Payments that leave the node."""

    async def SendPaymentV2(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """Pay an invoice; the last message is final unless the payment is stuck."""
        payer = self._node.payer
        limit = int(request.fee_limit_msat) or int(request.fee_limit_sat) * 1000
        try:
            payment_hash, payment = payer.send(request)
        except LndError as error:
            await context.abort(error.code, error.text)
            return
        if not request.no_inflight_updates:
            yield payment
        payment = payer.finish(payment_hash, limit)
        async for update in self._until_final(payment_hash, payment, skip_first=payment.status == IN_FLIGHT):
            yield update

    async def TrackPaymentV2(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """The present state of a payment, then its end."""
        payment_hash = bytes(request.payment_hash)
        try:
            payment = self._node.payer.track(_hash(payment_hash))
        except LndError as error:
            await context.abort(error.code, error.text)
            return
        skip = bool(request.no_inflight_updates) and payment.status == IN_FLIGHT
        async for update in self._until_final(payment_hash, payment, skip_first=skip):
            yield update

    async def _until_final(
        self, payment_hash: bytes, payment: Any, *, skip_first: bool
    ) -> AsyncIterator[Any]:
        with self._node.feed.single(payment_hash) as queue:
            while True:
                if not skip_first:
                    yield payment
                if payment.status != IN_FLIGHT:
                    return
                skip_first = False
                update = await queue.get()
                if update is None:
                    return
                payment = self._node.payer.track(payment_hash)


def _hash(data: bytes) -> bytes:
    if len(data) != 32:
        raise _wrong_hash(data)
    return bytes(data)


def _wrong_hash(data: bytes) -> LndError:
    return LndError(f"invalid hash length of {len(data)}, want 32")


@contextmanager
def _not_found_is_unknown() -> Iterator[None]:
    """Settling and cancelling say the same words as looking up, with another status."""
    try:
        yield
    except LndError as error:
        raise LndError(error.text) from error
