"""The stand-in node behaves as LND does, down to its words. Raw stubs, so that our client hides nothing."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bolt11
import grpc
import pytest
from cryptography import x509
from lndgrpc.compiled import invoices_pb2 as inv
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import router_pb2 as router
from lndgrpc.compiled import router_pb2_grpc

from sandbox.lnd import certificate
from tests.rails.lightning import node_suite
from tests.rails.lightning.node import Refused, SandboxNode
from tests.rails.lightning.node_suite import error_of, hold
from tests.rails.lightning.test_node_contract import SandboxPayee


@dataclass
class Raw(node_suite.Raw):
    """Stubs with the admin macaroon, and the node."""

    node: SandboxNode


@pytest.fixture
async def raw(node: SandboxNode) -> AsyncIterator[Raw]:
    credentials = grpc.ssl_channel_credentials((node.folder / "tls.cert").read_bytes())
    macaroon = (node.folder / "admin.macaroon").read_bytes().hex()
    async with grpc.aio.secure_channel(node.address, credentials) as channel:
        yield Raw(SandboxPayee(node), channel, macaroon, node)


# --- adding ------------------------------------------------------------------------------------


async def test_the_node_chooses_a_preimage_when_none_is_given(raw: Raw) -> None:
    added = await raw.lightning("AddInvoice", ln.Invoice(value=21, memo="llama"))
    found = await raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=added.r_hash))
    assert hashlib.sha256(found.r_preimage).digest() == added.r_hash
    assert (found.value, found.value_msat, found.expiry, found.cltv_expiry) == (21, 21_000, 86_400, 80)
    decoded = bolt11.decode(added.payment_request)
    assert decoded.payment_secret == added.payment_addr.hex()
    assert decoded.payee == (await raw.lightning("GetInfo", ln.GetInfoRequest())).identity_pubkey


async def test_an_empty_memo_and_a_description_hash_are_legal(raw: Raw) -> None:
    plain = await raw.lightning("AddInvoice", ln.Invoice(value=1))
    assert not bolt11.decode(plain.payment_request).description
    digest = hashlib.sha256(b"metadata").digest()
    hashed = await raw.lightning("AddInvoice", ln.Invoice(value=1, description_hash=digest))
    assert bolt11.decode(hashed.payment_request).description_hash == digest.hex()


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ln.Invoice(value_msat=-1), "amount cannot be negative"),
        (ln.Invoice(r_preimage=b"short"), "invalid preimage length of 5, want 32"),
        (ln.Invoice(description_hash=b"short"), "description hash is 5 bytes, must be 32"),
    ],
)
async def test_what_lnd_refuses_to_add(raw: Raw, request_: Any, text: str) -> None:
    code, reported = await error_of(raw.lightning("AddInvoice", request_))
    assert code is grpc.StatusCode.UNKNOWN
    assert text in reported


async def test_a_payment_hash_is_used_once(raw: Raw) -> None:
    preimage, payment_hash, _ = await hold(raw)
    for call in (
        raw.lightning("AddInvoice", ln.Invoice(r_preimage=preimage)),
        raw.invoices("AddHoldInvoice", inv.AddHoldInvoiceRequest(hash=payment_hash)),
    ):
        assert await error_of(call) == (
            grpc.StatusCode.UNKNOWN,
            "invoice with payment hash already exists",
        )


async def test_an_invoice_is_found_by_its_payment_address(raw: Raw) -> None:
    added = await raw.lightning("AddInvoice", ln.Invoice(value=1))
    found = await raw.invoices("LookupInvoiceV2", inv.LookupInvoiceMsg(payment_addr=added.payment_addr))
    assert found.r_hash == added.r_hash


# --- holding -----------------------------------------------------------------------------------


async def test_settling_and_cancelling_are_idempotent_and_final(raw: Raw) -> None:
    preimage, payment_hash, text = await hold(raw)
    settle, cancel = inv.SettleInvoiceMsg(preimage=preimage), inv.CancelInvoiceMsg(payment_hash=payment_hash)
    assert await error_of(raw.invoices("SettleInvoice", settle)) == (
        grpc.StatusCode.UNKNOWN,
        "invoice still open",
    )
    await raw.node.pay(text)
    await raw.invoices("SettleInvoice", settle)
    await raw.invoices("SettleInvoice", settle)
    assert (await error_of(raw.invoices("CancelInvoice", cancel)))[1] == "invoice already settled"

    preimage, payment_hash, text = await hold(raw)
    settle, cancel = inv.SettleInvoiceMsg(preimage=preimage), inv.CancelInvoiceMsg(payment_hash=payment_hash)
    await raw.node.pay(text)
    await raw.invoices("CancelInvoice", cancel)
    await raw.invoices("CancelInvoice", cancel)
    assert (await error_of(raw.invoices("SettleInvoice", settle)))[1] == "invoice already canceled"


async def test_a_held_invoice_hides_its_preimage_until_it_is_settled(raw: Raw) -> None:
    preimage, payment_hash, text = await hold(raw, 5000)
    await raw.node.pay(text, parts=2)
    held = await raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=payment_hash))
    assert (held.state, held.amt_paid_msat, held.r_preimage) == (3, 5000, b"")
    assert [(h.state, h.amt_msat, h.mpp_total_amt_msat) for h in held.htlcs] == [(0, 2500, 5000)] * 2
    assert {h.expiry_height - h.accept_height for h in held.htlcs} == {80}
    await raw.invoices("SettleInvoice", inv.SettleInvoiceMsg(preimage=preimage))
    settled = await raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=payment_hash))
    assert (settled.state, settled.r_preimage, settled.settled) == (1, preimage, True)
    assert {h.state for h in settled.htlcs} == {1}


# --- streams -----------------------------------------------------------------------------------


async def test_the_main_stream_tells_of_adds_and_settles_only(raw: Raw) -> None:
    before, first = [await raw.lightning("AddInvoice", ln.Invoice(value=1)) for _ in range(2)]
    stream = raw.subscribe(before.add_index)
    assert (await stream.read()).r_hash == first.r_hash  # from here on we are subscribed
    preimage, payment_hash, text = await hold(raw)
    added = await stream.read()
    assert (added.r_hash, added.state) == (payment_hash, 0)
    await raw.node.pay(text)  # accepted: silence
    await raw.invoices("SettleInvoice", inv.SettleInvoiceMsg(preimage=preimage))
    settled = await stream.read()
    assert (settled.r_hash, settled.state) == (payment_hash, 1)
    stream.cancel()


async def test_the_backlog_follows_both_indexes_and_carries_the_present_state(raw: Raw) -> None:
    before = await raw.lightning("AddInvoice", ln.Invoice(value=1))
    await raw.node.pay(before.payment_request)
    mark = await raw.lightning("LookupInvoice", ln.PaymentHash(r_hash=before.r_hash))
    later = [await raw.lightning("AddInvoice", ln.Invoice(value=1)) for _ in range(2)]
    await raw.node.pay(later[0].payment_request)
    stream = raw.subscribe(mark.add_index, mark.settle_index)
    messages = [await stream.read() for _ in range(3)]
    stream.cancel()
    assert [(m.add_index - mark.add_index, m.state) for m in messages] == [(1, 1), (2, 0), (1, 1)]
    assert messages[2].settle_index == mark.settle_index + 1


async def test_the_timer_cancels_an_open_invoice_without_being_asked(raw: Raw) -> None:
    added = await raw.lightning("AddInvoice", ln.Invoice(value=1, expiry=1))
    stream = raw.follow(added.r_hash)
    assert [message.state async for message in stream][-1] == 2


async def test_invoices_are_paged_in_order(raw: Raw) -> None:
    added = [await raw.lightning("AddInvoice", ln.Invoice(value=1)) for _ in range(5)]
    start = added[0].add_index - 1
    page = await raw.lightning("ListInvoices", ln.ListInvoiceRequest(index_offset=start, num_max_invoices=3))
    assert [i.add_index - start for i in page.invoices] == [1, 2, 3]
    assert (page.first_index_offset - start, page.last_index_offset - start) == (1, 3)
    back = await raw.lightning(
        "ListInvoices", ln.ListInvoiceRequest(index_offset=start + 4, num_max_invoices=2, reversed=True)
    )
    assert [i.add_index - start for i in back.invoices] == [2, 3]
    await raw.node.pay(added[1].payment_request)
    pending = await raw.lightning(
        "ListInvoices", ln.ListInvoiceRequest(index_offset=start, pending_only=True)
    )
    assert [i.add_index - start for i in pending.invoices] == [1, 3, 4, 5]


# --- paying ------------------------------------------------------------------------------------


async def test_a_payment_request_is_decoded(raw: Raw) -> None:
    await raw.node.faults(private_channel=True)
    added = await raw.lightning("AddInvoice", ln.Invoice(value_msat=1234, memo="llama", private=True))
    decoded = await raw.lightning("DecodePayReq", ln.PayReqString(pay_req=added.payment_request))
    assert (decoded.num_msat, decoded.description, decoded.payment_addr) == (
        1234,
        "llama",
        added.payment_addr,
    )
    assert len(decoded.route_hints) == 1
    code, _ = await error_of(raw.lightning("DecodePayReq", ln.PayReqString(pay_req="lnbc1rubbish")))
    assert code is grpc.StatusCode.UNKNOWN


async def test_the_fee_limit_defaults_to_nothing(raw: Raw) -> None:
    text = (await raw.node.post("/sandbox/wallet/invoice", amount_msat=1000))["bolt11"]
    request = router.SendPaymentRequest(payment_request=text, timeout_seconds=5)
    updates = [u.status async for u in raw.stream(router_pb2_grpc.RouterStub, "SendPaymentV2", request)]
    assert updates == [1, 3]


async def test_the_same_payment_is_not_sent_twice(raw: Raw) -> None:
    text = (await raw.node.post("/sandbox/wallet/invoice", amount_msat=1000))["bolt11"]
    request = router.SendPaymentRequest(payment_request=text, timeout_seconds=5, fee_limit_msat=5000)
    assert [u.status async for u in raw.stream(router_pb2_grpc.RouterStub, "SendPaymentV2", request)][-1] == 2
    code, reported = await error_of(raw.stream(router_pb2_grpc.RouterStub, "SendPaymentV2", request).read())
    assert (code, reported) == (grpc.StatusCode.ALREADY_EXISTS, "invoice is already paid")


async def test_an_unstarted_payment_is_not_found(raw: Raw) -> None:
    request = router.TrackPaymentRequest(payment_hash=bytes(32))
    call = raw.stream(router_pb2_grpc.RouterStub, "TrackPaymentV2", request)
    assert await error_of(call.read()) == (grpc.StatusCode.NOT_FOUND, "payment isn't initiated")


# --- the process -------------------------------------------------------------------------------


async def test_everything_survives_a_kill(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    paid, held, open_ = [await rail.open(own_node.order(hold=hold)) for hold in (False, True, False)]
    await own_node.pay(paid.text or "")
    await own_node.pay(held.text or "")
    await own_node.advance(timedelta(seconds=100))
    height = (await own_node.post("/sandbox/blocks", count=7))["height"]
    before = [await rail.observe(i.reference) for i in (paid, held, open_)]
    await own_node.restart()
    assert [await rail.observe(i.reference) for i in (paid, held, open_)] == before
    health = await own_node.get("/sandbox/health")
    assert health["height"] == height
    assert abs(health["now"] - own_node.clock().timestamp()) < 5
    await rail.close()


async def test_what_expired_while_the_node_was_down_is_cancelled_at_its_start(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    instructions = await rail.open(own_node.order(seconds=1))
    await own_node.restart()
    client = own_node.client()
    states = [invoice.state.name async for invoice in client.follow(instructions.reference)]
    assert states[-1] == "CANCELED"
    await client.close()
    await rail.close()


async def test_it_ends_cleanly_when_told_to_while_streams_are_open(own_node: SandboxNode) -> None:
    rail = own_node.rail()
    notifications = rail.listen(None)
    await anext(notifications)
    process = own_node._process
    await own_node.stop()
    assert process is not None
    assert process.returncode == 0
    await notifications.aclose()  # type: ignore[attr-defined]
    await rail.close()


def test_a_certificate_is_renewed_before_it_ends(tmp_path: Path) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    first = certificate.ensure(tmp_path, now)
    assert certificate.ensure(tmp_path, now + timedelta(days=380)) == first
    renewed = certificate.ensure(tmp_path, now + timedelta(days=391))
    assert renewed != first
    read = x509.load_pem_x509_certificate(renewed[0])
    assert read.not_valid_after_utc - (now + timedelta(days=391)) == timedelta(days=420)


# --- the sandbox's own API ---------------------------------------------------------------------


async def test_the_wallet_shows_an_invoice_before_paying(node: SandboxNode) -> None:
    rail, order = node.rail(), node.order(msat=5000)
    instructions = await rail.open(order)
    for text in (instructions.text or "", instructions.uri or ""):
        shown = await node.get("/sandbox/invoice", bolt11=text)
        assert (shown["amount_msat"], shown["state"], shown["expired"]) == (5000, "open", False)
        assert str(order.payment_id) in shown["description"]
    await node.pay(instructions.uri or "")
    shown = await node.get("/sandbox/invoice", bolt11=instructions.text or "")
    assert (shown["state"], shown["received_msat"]) == ("settled", 5000)
    await rail.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"bolt11": "rubbish"}, "not a BOLT11 invoice"),
        ({}, "bolt11"),
        ({"bolt11": "x", "amount_msat": -1}, "amount_msat"),
        ({"bolt11": "x", "parts": "many"}, "parts"),
    ],
)
async def test_the_wallet_says_what_is_wrong(node: SandboxNode, body: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        await node.post("/sandbox/pay", **body)


async def test_an_invoice_of_another_network_is_not_paid(node: SandboxNode) -> None:
    rail = node.rail()
    invoice = bolt11.decode((await rail.open(node.order())).text or "")
    invoice.currency = "bc"
    mainnet = bolt11.encode(invoice, private_key=secrets.token_hex(32))
    assert mainnet.startswith("lnbc")
    assert not mainnet.startswith("lnbcrt")
    with pytest.raises(Refused, match="another network"):
        await node.pay(mainnet)
    await rail.close()


async def test_an_unknown_fault_is_refused(node: SandboxNode) -> None:
    with pytest.raises(Refused, match="no fault"):
        await node.faults(explode=1)
    with pytest.raises(Refused, match="no fault"):
        await node.faults(drop=True)


async def test_calls_fail_as_often_as_wanted(node: SandboxNode) -> None:
    client = node.client()
    await node.faults(unavailable=2, method="GetInfo")
    results = await asyncio.gather(*(client.info() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Exception) for result in results) == 2
    await client.close()
