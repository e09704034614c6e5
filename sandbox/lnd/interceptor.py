"""What stands before every RPC: the wallet's state, the macaroon, and faults."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from sandbox.lnd.errors import LndError
from sandbox.lnd.macaroons import Op, verify
from sandbox.lnd.node import Node

_OPEN_SERVICE = "/lnrpc.State/"
_NOT_READY = {
    "NON_EXISTING": "wallet not created, create one to enable full RPC access",
    "LOCKED": "wallet locked, unlock it to enable full RPC access",
    "UNLOCKED": "the RPC server is in the process of starting up, but not yet ready to accept calls",
    "WAITING_TO_START": "waiting to start, RPC services not available",
}
PERMISSIONS = {
    "/lnrpc.Lightning/GetInfo": Op("info", "read"),
    "/lnrpc.Lightning/AddInvoice": Op("invoices", "write"),
    "/lnrpc.Lightning/LookupInvoice": Op("invoices", "read"),
    "/lnrpc.Lightning/ListInvoices": Op("invoices", "read"),
    "/lnrpc.Lightning/SubscribeInvoices": Op("invoices", "read"),
    "/lnrpc.Lightning/DecodePayReq": Op("offchain", "read"),
    "/lnrpc.Lightning/ChannelBalance": Op("offchain", "read"),
    "/lnrpc.Lightning/ListChannels": Op("offchain", "read"),
    "/invoicesrpc.Invoices/AddHoldInvoice": Op("invoices", "write"),
    "/invoicesrpc.Invoices/SettleInvoice": Op("invoices", "write"),
    "/invoicesrpc.Invoices/CancelInvoice": Op("invoices", "write"),
    "/invoicesrpc.Invoices/LookupInvoiceV2": Op("invoices", "write"),
    "/invoicesrpc.Invoices/SubscribeSingleInvoice": Op("invoices", "read"),
    "/routerrpc.Router/SendPaymentV2": Op("offchain", "write"),
    "/routerrpc.Router/TrackPaymentV2": Op("offchain", "read"),
}


class Gate(grpc.aio.ServerInterceptor):
    """Refuses calls as LND's own interceptor chain does."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Let the call through, or answer it with an error."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_OPEN_SERVICE):
            return handler
        try:
            self._check_state()
            self._check_macaroon(method, handler_call_details.invocation_metadata)
            if self._node.faults.hits("unavailable", method):
                raise LndError("the node is unavailable", grpc.StatusCode.UNAVAILABLE)
        except LndError as error:
            return _refusing(handler, error)
        if handler.unary_unary and self._node.faults.hits("timeout_after_commit", method):
            return _never_answering(handler)
        return handler

    def _check_state(self) -> None:
        state = self._node.faults.wallet_state
        if state in _NOT_READY:
            raise LndError(_NOT_READY[state])

    def _check_macaroon(self, method: str, metadata: Sequence[tuple[str, Any]]) -> None:
        given = [value for name, value in metadata if name == "macaroon"]
        if len(given) != 1:
            raise LndError(f"expected 1 macaroon, got {len(given)}")
        data = _from_hex(given[0])
        allowed, _ = verify(data, self._node.store.root_key, self._node.clock)
        if Op("uri", method) not in allowed and PERMISSIONS.get(method) not in allowed:
            raise LndError("permission denied")


def _from_hex(text: str) -> bytes:
    wrong = next((letter for letter in text if letter not in string.hexdigits), None)
    if wrong is not None:
        raise LndError(f"encoding/hex: invalid byte: U+{ord(wrong):04X} '{wrong}'")
    if len(text) % 2:
        raise LndError("encoding/hex: odd length hex string")
    return bytes.fromhex(text)


def _refusing(handler: Any, error: LndError) -> Any:
    async def refuse(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await context.abort(error.code, error.text)

    async def refuse_stream(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await context.abort(error.code, error.text)
        yield None

    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(
            refuse_stream, handler.request_deserializer, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        refuse, handler.request_deserializer, handler.response_serializer
    )


def _never_answering(handler: Any) -> Any:
    async def commit_and_hang(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await handler.unary_unary(request, context)
        await asyncio.Event().wait()  # until the caller's deadline cancels the call

    return grpc.unary_unary_rpc_method_handler(
        commit_and_hang, handler.request_deserializer, handler.response_serializer
    )
