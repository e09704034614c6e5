"""What a node answers, held against the stand-in and against a real one: where they drift apart a test fails.

Raw stubs, so that our client hides nothing. Only calls that a payer and the owner of a node may make; what is done to
the process itself is in the tests of each.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import pytest
from lndgrpc.compiled import invoices_pb2 as inv
from lndgrpc.compiled import invoices_pb2_grpc, lightning_pb2_grpc, router_pb2_grpc, stateservice_pb2_grpc
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import router_pb2 as router
from lndgrpc.compiled import stateservice_pb2 as stateservice

from sandbox.lnd.bolt11 import Terms, encode
from tests.waiting import until

SECONDS = 60
OPEN, SETTLED, CANCELED, ACCEPTED = 0, 1, 2, 3
UNKNOWN, NOT_FOUND = grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND
BTC_MSAT = 10**11


class Payee(Protocol):
    """A node as the suite moves it."""

    async def pay(self, bolt11: str) -> None:
        """Somebody pays this invoice of the node; returns when the money is there, held or settled."""

    async def end(self) -> None:
        """The node is told to stop, and has stopped."""

    async def begin(self) -> None:
        """It is started; its states are to be seen from now on."""


@dataclass
class Raw:
    """Stubs with the admin macaroon."""

    payee: Payee
    channel: grpc.aio.Channel
    macaroon: str

    async def unary(self, stub: Any, method: str, request: Any, *macaroons: str) -> Any:
        """One call, with the admin macaroon unless others are given."""
        metadata = tuple(("macaroon", macaroon) for macaroon in macaroons or (self.macaroon,))
        return await getattr(stub(self.channel), method)(request, metadata=metadata, timeout=SECONDS)

    async def lightning(self, method: str, request: Any, *macaroons: str) -> Any:
        """Of the main service."""
        return await self.unary(lightning_pb2_grpc.LightningStub, method, request, *macaroons)

    async def invoices(self, method: str, request: Any) -> Any:
        """Of hold invoices."""
        return await self.unary(invoices_pb2_grpc.InvoicesStub, method, request)

    def stream(self, stub: Any, method: str, request: Any) -> Any:
        """A stream of messages."""
        metadata = (("macaroon", self.macaroon),)
        return getattr(stub(self.channel), method)(request, metadata=metadata, timeout=SECONDS)

    def subscribe(self, add_index: int = 0, settle_index: int = 0) -> Any:
        """All invoices."""
        request = ln.InvoiceSubscription(add_index=add_index, settle_index=settle_index)
        return self.stream(lightning_pb2_grpc.LightningStub, "SubscribeInvoices", request)

    def follow(self, payment_hash: bytes) -> Any:
        """One invoice."""
        request = inv.SubscribeSingleInvoiceRequest(r_hash=payment_hash)
        return self.stream(invoices_pb2_grpc.InvoicesStub, "SubscribeSingleInvoice", request)

    async def state(self) -> str:
        """The wallet's, or that nobody answers."""
        try:
            answer = await stateservice_pb2_grpc.StateStub(self.channel).GetState(
                stateservice.GetStateRequest(), timeout=SECONDS
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return str(stateservice.WalletState.Name(answer.state))


async def error_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def hold(raw: Raw, value_msat: int = 1_000_000) -> tuple[bytes, bytes, str]:
    """(preimage, hash, BOLT11) of a new hold invoice."""
    preimage = secrets.token_bytes(32)
    payment_hash = hashlib.sha256(preimage).digest()
    added = await raw.invoices(
        "AddHoldInvoice", inv.AddHoldInvoiceRequest(hash=payment_hash, value_msat=value_msat)
    )
    return preimage, payment_hash, added.payment_request


REFUSED_TO_ADD: Sequence[tuple[Any, str]] = (
    (ln.Invoice(value=1, value_msat=1000), "sat and msat arguments are mutually exclusive"),
    (ln.Invoice(value_msat=2**62), "invoice amount 46116860.18427387 BTC is too large, max is 100000 BTC"),
    (ln.Invoice(memo="x" * 640), "data length too big to fit within 10 bits: 1024"),
    (ln.Invoice(memo="x" * 1025), "memo too large: 1025 bytes (maxsize=1024)"),
    (ln.Invoice(expiry=40_000_000), "seconds greater than max expiry of"),
    (ln.Invoice(cltv_expiry=23), "CLTV delta of 23 must be greater than minimum of 24"),
    (ln.Invoice(cltv_expiry=65_536), "CLTV delta of 65536 is too large, max accepted is: 65535"),
    (ln.Invoice(r_preimage=bytes(32)), "cannot use hash of all-zeroes preimage"),
)
WRONG_MACAROONS: Sequence[tuple[tuple[str, ...], str]] = (
    (("zz",), "encoding/hex: invalid byte: U+007A 'z'"),
    (("abc",), "encoding/hex: odd length hex string"),
    (("",), "empty macaroon data"),
    (("0201",), "unmarshal v2"),
)


class NodeContract:
    """Subclass me, give me a `raw` fixture, and pass."""

    async def test_what_is_refused_to_be_added(self, raw: Raw) -> None:
        for request, text in REFUSED_TO_ADD:
            code, reported = await error_of(raw.lightning("AddInvoice", request))
            assert (code, text in reported) == (UNKNOWN, True), reported

    async def test_what_may_be_added(self, raw: Raw) -> None:
        for request in (
            ln.Invoice(value_msat=30_500 * BTC_MSAT),
            ln.Invoice(cltv_expiry=24),
            ln.Invoice(value=1, r_hash=secrets.token_bytes(32)),
            ln.Invoice(memo="x" * 639),
        ):
            assert len((await raw.lightning("AddInvoice", request)).r_hash) == 32

    async def test_macaroons_that_are_none(self, raw: Raw) -> None:
        two = ((raw.macaroon, raw.macaroon), "expected 1 macaroon, got 2")
        for macaroons, text in (*WRONG_MACAROONS, two):
            code, reported = await error_of(raw.lightning("GetInfo", ln.GetInfoRequest(), *macaroons))
            assert (code, text in reported) == (UNKNOWN, True), reported

    async def test_what_is_not_there(self, raw: Raw) -> None:
        unknown = secrets.token_bytes(32)
        for call, code in (
            (raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=unknown)), NOT_FOUND),
            (raw.lightning("LookupInvoice", ln.PaymentHash()), NOT_FOUND),
            (raw.invoices("SettleInvoice", inv.SettleInvoiceMsg(preimage=unknown)), UNKNOWN),
            (raw.invoices("CancelInvoice", inv.CancelInvoiceMsg(payment_hash=unknown)), UNKNOWN),
        ):
            assert await error_of(call) == (code, "unable to locate invoice")

    async def test_hashes_of_another_length(self, raw: Raw) -> None:
        short = bytes(31)
        text = "invalid hash length of 31, want 32"
        assert await error_of(raw.follow(short).read()) == (UNKNOWN, text)
        tracked = raw.stream(
            router_pb2_grpc.RouterStub, "TrackPaymentV2", router.TrackPaymentRequest(payment_hash=short)
        )
        assert await error_of(tracked.read()) == (UNKNOWN, text)
        looked_up = raw.invoices("LookupInvoiceV2", inv.LookupInvoiceMsg(payment_hash=short))
        assert await error_of(looked_up) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            f"unable to parse pay hash: {text}",
        )

    async def test_the_features_and_amounts_of_an_invoice(self, raw: Raw) -> None:
        added = await raw.lightning("AddInvoice", ln.Invoice(value_msat=1_500_000, private=True))
        found = await raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=added.r_hash))
        required = {bit: feature.is_required for bit, feature in found.features.items()}
        assert required == {8: True, 14: True, 17: False, 25: False}
        assert list(found.route_hints) == []  # its channel is public, or there is none
        await raw.payee.pay(added.payment_request)
        paid = await raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=added.r_hash))
        assert (paid.state, paid.amt_paid_msat, paid.amt_paid, paid.amt_paid_sat) == (
            SETTLED,
            1_500_000,
            1_500_000,
            1_500,
        )

    async def test_payment_requests_that_are_not_read(self, raw: Raw) -> None:
        bolt11_text = (await raw.lightning("AddInvoice", ln.Invoice(value=1))).payment_request
        mainnet = (
            "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5"
            "rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs9qrsgq7ea976txfraylvgzuxs"
            "8kgcw23ezlrszfnh8r6qtfpr6cxga50aj6txm9rxrydzd06dfeawfk6swupvz4erwnyutnjq7x39ymw6j38gp7ynn44"
        )
        for text in (
            "rubbish",
            f"lightning:{bolt11_text}",
            mainnet,
            bolt11_text[:-1] + ("p" if bolt11_text[-1] == "q" else "q"),
        ):
            code, _ = await error_of(raw.lightning("DecodePayReq", ln.PayReqString(pay_req=text)))
            assert code is UNKNOWN, text
        assert (await raw.lightning("DecodePayReq", ln.PayReqString(pay_req=bolt11_text))).num_satoshis == 1

    async def test_the_backlog_leaves_out_what_was_canceled(self, raw: Raw) -> None:
        mark = await raw.lightning("AddInvoice", ln.Invoice(value=1000))
        canceled, kept = [await raw.lightning("AddInvoice", ln.Invoice(value=1000)) for _ in range(2)]
        await raw.invoices("CancelInvoice", inv.CancelInvoiceMsg(payment_hash=canceled.r_hash))
        stream = raw.subscribe(mark.add_index)
        assert (await stream.read()).r_hash == kept.r_hash
        stream.cancel()

    async def test_the_single_stream_tells_every_state_and_ends(self, raw: Raw) -> None:
        preimage, payment_hash, text = await hold(raw)
        stream = raw.follow(payment_hash)
        states = [(await stream.read()).state]
        paying = asyncio.create_task(raw.payee.pay(text))
        states.append((await stream.read()).state)
        await paying
        await raw.invoices("SettleInvoice", inv.SettleInvoiceMsg(preimage=preimage))
        states.append((await stream.read()).state)
        assert states == [OPEN, ACCEPTED, SETTLED]
        assert await stream.read() is grpc.aio.EOF

    async def test_what_can_be_done_only_once_and_in_its_order(self, raw: Raw) -> None:
        preimage, payment_hash, text = await hold(raw)
        settle, cancel = (
            inv.SettleInvoiceMsg(preimage=preimage),
            inv.CancelInvoiceMsg(payment_hash=payment_hash),
        )
        assert await error_of(raw.invoices("SettleInvoice", settle)) == (UNKNOWN, "invoice still open")
        await raw.payee.pay(text)
        for _ in range(2):
            await raw.invoices("SettleInvoice", settle)
        assert await error_of(raw.invoices("CancelInvoice", cancel)) == (UNKNOWN, "invoice already settled")
        again = ln.Invoice(r_preimage=preimage)
        assert await error_of(raw.lightning("AddInvoice", again)) == (
            UNKNOWN,
            "invoice with payment hash already exists",
        )

    async def test_beyond_the_balance_no_payment_is_sent(self, raw: Raw) -> None:
        """To somebody whom nobody knows: the balance is looked at first."""
        dear = bolt11_of_a_stranger(secrets.token_bytes(32), 100 * BTC_MSAT)
        request = router.SendPaymentRequest(payment_request=dear, timeout_seconds=5, fee_limit_msat=10**6)
        for _ in range(2):  # what failed may be tried again
            updates = [
                (update.status, update.failure_reason)
                async for update in raw.stream(router_pb2_grpc.RouterStub, "SendPaymentV2", request)
            ]
            assert updates[-1] == (3, ln.FAILURE_REASON_INSUFFICIENT_BALANCE)

    async def test_streams_end_well_when_the_node_stops_and_it_starts_in_steps(self, raw: Raw) -> None:
        stream = raw.subscribe()
        reading = asyncio.create_task(_read_to_the_end(stream))
        await raw.lightning("AddInvoice", ln.Invoice(value=1))
        await raw.payee.end()
        await reading
        assert await stream.code() is grpc.StatusCode.OK
        beginning = asyncio.create_task(raw.payee.begin())
        states: list[str] = []

        async def newest() -> str:
            state = await raw.state()
            if states[-1:] != [state]:
                states.append(state)
            return state

        await until(newest, lambda state: state == "SERVER_ACTIVE", "the node runs", seconds_max=SECONDS)
        await beginning
        assert [state for state in states if state != "UNAVAILABLE"][-2:] == ["RPC_ACTIVE", "SERVER_ACTIVE"]


async def _read_to_the_end(stream: Any) -> None:
    async for _ in stream:
        pass


def bolt11_of_a_stranger(payment_hash: bytes, amount_msat: int) -> str:
    """An invoice of a node that is not there."""

    terms = Terms(
        payment_hash=payment_hash, amount_msat=amount_msat, description="", expiry_seconds=3600, cltv_delta=40
    )
    return encode(terms, secrets.token_bytes(32), int(time.time()), secrets.token_bytes(32))
