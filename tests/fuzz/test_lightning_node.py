"""Whatever bytes and errors an LND sends over gRPC: they are read, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import strategies as st
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import stateservice_pb2 as stateservice

from rails.contract import RailUnavailable, Refund, RefundImpossible
from rails.lightning.channels import Channels
from rails.lightning.client import PAGE_SIZE, LndClient, NewInvoice
from rails.lightning.connection import Connection
from rails.lightning.credentials import CredentialFiles, permissions
from rails.lightning.lookups import Lookups, PublicWeb, client
from rails.lightning.refunds import FEE_MSAT_MAX, Payouts
from sandbox.lnd import certificate
from sandbox.lnd.macaroons import Op, mint
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import TEXTS, Question
from tests.fuzz.receipts import NAMED
from tests.waiting import SECONDS_MAX

HASH = "ab" * 32
STREAMS = {"SubscribeInvoices", "SubscribeSingleInvoice", "TrackPaymentV2", "SendPaymentV2"}
GENUINE = (
    ln.Invoice(
        r_hash=b"h" * 32, value_msat=5, creation_date=1_790_000_000, htlcs=[ln.InvoiceHTLC(amt_msat=5)]
    ),
    ln.ListInvoiceResponse(invoices=[ln.Invoice(memo="a")], last_index_offset=1),
    ln.GetInfoResponse(version="0.21", chains=[ln.Chain(network="regtest")]),
    ln.PayReq(payment_hash=HASH, num_msat=5),
    ln.ListChannelsResponse(channels=[ln.Channel(remote_balance=5_000, remote_chan_reserve_sat=354)] * 2),
    ln.Payment(payment_hash=HASH, status=2),
    stateservice.GetStateResponse(state=4),
)


@dataclass
class Answer:
    """What the node answers to everything: these messages, then this error if any."""

    messages: tuple[bytes, ...] = ()
    code: grpc.StatusCode | None = None
    details: str = ""
    decodes: bool = False
    """Whether it reads an invoice rightly all the same, so that the payment itself is reached."""


class Node(grpc.GenericRpcHandler):
    """Answers every method with raw bytes: all messages to a stream, one to any other call."""

    def __init__(self) -> None:
        self.answer = Answer()

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        method = handler_call_details.method.rpartition("/")[2]
        if method == "DecodePayReq" and self.answer.decodes:
            return grpc.unary_stream_rpc_method_handler(self._decoded)
        return grpc.unary_stream_rpc_method_handler(self._stream if method in STREAMS else self._once)

    async def _decoded(self, _: bytes, __: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        yield ln.PayReq(payment_hash=HASH, num_msat=5).SerializeToString()

    async def _once(self, _: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for message in self._stream(_, context):
            yield message
            return

    async def _stream(self, _: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        for message in self.answer.messages:
            yield message
        if self.answer.code is not None:
            await context.abort(self.answer.code, self.answer.details)


@dataclass
class Reached:
    """A node and a connection to it."""

    node: Node
    connection: Connection


@pytest.fixture(scope="module")
def reached(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    folder: Path = tmp_path_factory.mktemp("node")
    public, key = certificate.ensure(folder, datetime.now(UTC))
    (folder / "public.pem").write_bytes(public)
    (folder / "any.macaroon").write_bytes(b"macaroon")
    node = Node()

    async def start() -> tuple[grpc.aio.Server, Connection]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((node,))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, public)]))
        await server.start()
        files = CredentialFiles(folder / "public.pem", folder / "any.macaroon")
        return server, Connection(f"127.0.0.1:{port}", files, deadline_seconds=1)

    server, connection = loop.run(start())
    yield Reached(node, connection)
    loop.run(connection.close())
    loop.run(server.stop(None))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A genuine message, cut short or with something else at one place; or any bytes."""
    raw = draw(st.sampled_from(GENUINE)).SerializeToString()
    kind = draw(st.sampled_from(["whole", "cut", "changed", "any"]))
    at = draw(st.integers(0, len(raw)))
    if kind == "cut":
        return raw[:at]
    if kind == "changed":
        return raw[:at] + draw(st.binary(min_size=1, max_size=3)) + raw[at + 1 :]
    return raw if kind == "whole" else draw(st.binary(max_size=60))


ANSWERS = st.builds(
    Answer,
    decodes=st.booleans(),
    messages=st.lists(messages(), max_size=3).map(tuple),
    code=st.none() | st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]),
    details=st.text(st.characters(codec="utf-8"), max_size=40)
    | TEXTS.filter(lambda text: text.isprintable())
    | st.sampled_from(["unable to locate invoice", "permission denied", "payment isn't initiated"]),
)


@fuzzed(answer=ANSWERS)
def test_an_answer_of_lnd_is_understood_or_refused(
    loop: asyncio.Runner, reached: Reached, answer: Answer
) -> None:
    reached.node.answer = answer
    client = LndClient(reached.connection)
    new = NewInvoice(memo="", value_msat=5, expiry_seconds=60, cltv_delta=40, private_hints=False)
    questions: list[Question] = [
        client.require_active,
        client.info,
        client.can_see_channels,
        lambda: client.add_invoice(new),
        lambda: client.lookup(HASH),
        lambda: client.settle(b"p" * 32),
        lambda: client.cancel(HASH),
        lambda: _all(client.pages()),
        lambda: _all(client.subscribe(0, 0)),
        lambda: _all(client.follow(HASH)),
    ]
    for question in questions:
        _answered(loop, question)


@pytest.mark.parametrize("last", [0, PAGE_SIZE - 1, PAGE_SIZE])
def test_pages_that_do_not_go_on_are_no_answer(loop: asyncio.Runner, reached: Reached, last: int) -> None:
    """A node that gives the same full page whatever is asked for would be asked for ever."""
    invoices = [ln.Invoice(r_hash=b"h" * 32, creation_date=1_790_000_000)] * PAGE_SIZE
    page = ln.ListInvoiceResponse(invoices=invoices, last_index_offset=last)
    reached.node.answer = Answer((page.SerializeToString(),))

    async def ask() -> None:
        async with asyncio.timeout(SECONDS_MAX):
            await _all(LndClient(reached.connection).pages())

    with pytest.raises(RailUnavailable, match="does not go on"):
        loop.run(ask())


@fuzzed(answer=ANSWERS)
def test_what_can_arrive_is_an_amount_or_unknown(
    loop: asyncio.Runner, reached: Reached, answer: Answer
) -> None:
    reached.node.answer = answer
    found = _answered(loop, Channels(reached.connection).receivable_msat)
    assert found is None or found >= 0


@fuzzed(answer=ANSWERS)
def test_a_refund_has_an_outcome_whatever_lnd_says(
    loop: asyncio.Runner, reached: Reached, answer: Answer
) -> None:
    reached.node.answer = answer
    payouts = Payouts(reached.connection, Lookups(PublicWeb(client())))
    assert _answered(loop, lambda: payouts.pay("lnbc1", 5, "key")) in (None, *Refund)
    with contextlib.suppress(RefundImpossible):
        prepared = _answered(loop, lambda: payouts.prepare("lnbc1x", 5))
        assert prepared is None or prepared.claim.startswith("ln:")
    fee_msat = _answered(loop, lambda: payouts.fee_msat("lnbc1"))
    assert fee_msat is None or 0 <= fee_msat <= FEE_MSAT_MAX


MACAROON = mint(b"k" * 32, "0", b"n" * 16, [Op("invoices", "read")]).encode()


@fuzzed(
    at=st.integers(0, len(MACAROON)), removed=st.integers(0, 5), added=st.binary(max_size=4), junk=st.binary()
)
def test_a_macaroon_is_read_or_refused(at: int, removed: int, added: bytes, junk: bytes) -> None:
    for macaroon in (MACAROON[:at] + added + MACAROON[at + removed :], junk):
        with contextlib.suppress(ValueError):  # as documented
            permissions(macaroon)


async def _all(invoices: AsyncIterator[Any]) -> None:
    async for _ in invoices:
        pass


def _answered(runner: asyncio.Runner, question: Question) -> Any:
    async def ask() -> Any:
        with contextlib.suppress(*NAMED):
            async with asyncio.timeout(SECONDS_MAX):
                return await question()

    return runner.run(ask())
