"""Money sent back, at most once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import bolt11
import pytest

from ledger.money import BTC, USD, Money
from rails.contract import PreparedRefund, RailUnavailable, Refund, RefundImpossible
from rails.lightning import bech32
from rails.lightning.refunds import RefundingLightningRail
from tests.rails.lightning.node import SandboxNode
from tests.rails.lightning.strangers import Stranger


@pytest.fixture
async def refunding(node: SandboxNode) -> AsyncIterator[RefundingLightningRail]:
    rail = node.refunding_rail()
    yield rail
    await rail.close()


async def theirs(node: SandboxNode, amount_msat: int = 50_000) -> str:
    return str((await node.post("/sandbox/wallet/invoice", amount_msat=amount_msat))["bolt11"])


async def received(node: SandboxNode, text: str) -> int:
    return int((await node.get("/sandbox/wallet/invoice", bolt11=text))["received_msat"])


async def refund(rail: RefundingLightningRail, text: str, msat: int = 50_000) -> Refund:
    return await rail.refund("00" * 32, Money(msat, BTC), text, "key-1")


async def test_a_refund_reaches_its_payee(node: SandboxNode, refunding: RefundingLightningRail) -> None:
    text = await theirs(node)
    assert await refund(refunding, text) is Refund.SENT
    assert await received(node, text) == 50_000


async def test_asking_again_does_not_pay_again(node: SandboxNode, refunding: RefundingLightningRail) -> None:
    text = await theirs(node)
    assert [await refund(refunding, text) for _ in range(3)] == [Refund.SENT] * 3
    assert await received(node, text) == 50_000


async def test_an_open_amount_is_filled_in(node: SandboxNode, refunding: RefundingLightningRail) -> None:
    text = await theirs(node, 0)
    assert await refund(refunding, text, 12_345) is Refund.SENT
    assert await received(node, text) == 12_345


async def test_another_amount_than_asked_is_not_sent(
    node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    text = await theirs(node, 50_000)
    assert await refund(refunding, text, 40_000) is Refund.FAILED
    assert await received(node, text) == 0


async def test_a_payment_in_flight_is_unknown_until_it_ends(
    node: SandboxNode, refunding: RefundingLightningRail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rails.lightning.refunds.ANSWER_SECONDS", 1)
    text = await theirs(node)
    await node.faults(payment_stuck=1)
    assert await refund(refunding, text) is Refund.UNKNOWN
    assert await refund(refunding, text) is Refund.UNKNOWN
    await node.post("/sandbox/payments/resolve", payment_hash=bolt11.decode(text).payment_hash)
    assert await refund(refunding, text) is Refund.SENT
    assert await received(node, text) == 50_000


async def test_a_payee_without_a_route_fails(
    node: SandboxNode, own_node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    assert await refund(refunding, await theirs(own_node)) is Refund.FAILED


async def test_our_own_invoice_is_refused(node: SandboxNode, refunding: RefundingLightningRail) -> None:
    ours = await refunding.open(node.order(msat=50_000))
    assert await refund(refunding, ours.text or "") is Refund.FAILED


async def test_rubbish_is_no_destination(refunding: RefundingLightningRail) -> None:
    assert await refund(refunding, "lnbcrt1rubbish") is Refund.FAILED


async def test_dollars_and_nobody_are_mistakes(refunding: RefundingLightningRail) -> None:
    with pytest.raises(ValueError, match="BTC"):
        await refunding.refund("00" * 32, Money(1, USD), "lnbcrt1", "key")
    with pytest.raises(ValueError, match="BOLT11"):
        await refunding.refund("00" * 32, Money(1, BTC), None, "key")


async def test_a_node_that_is_locked_has_sent_nothing(
    node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    text = await theirs(node)
    await node.faults(wallet_state="LOCKED")
    with pytest.raises(RailUnavailable):
        await refund(refunding, text)


# --- what exactly is paid ----------------------------------------------------------------------------


async def prepare(rail: RefundingLightningRail, destination: str, msat: int = 50_000) -> PreparedRefund:
    return await rail.prepare_refund(Money(msat, BTC), destination)


async def test_a_lightning_address_is_asked_for_an_invoice_which_is_paid(
    node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    address = f"artist@127.0.0.1:{node.control_port}"
    assert refunding.destination_fault(address, Money(50_000, BTC)) is None
    prepared = await prepare(refunding, address)
    assert prepared.claim == f"ln:{bolt11.decode(prepared.destination).payment_hash}"
    assert await refund(refunding, prepared.destination) is Refund.SENT
    assert await received(node, prepared.destination) == 50_000
    assert (await prepare(refunding, address)).claim != prepared.claim


async def test_an_lnurl_is_asked_as_an_address_is(
    node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    link = f"http://127.0.0.1:{node.control_port}/.well-known/lnurlp/artist"
    prepared = await prepare(refunding, f"lightning:{bech32.encode('lnurl', link.encode()).upper()}")
    assert await refund(refunding, prepared.destination) is Refund.SENT


async def test_an_invoice_is_prepared_as_it_is(node: SandboxNode, refunding: RefundingLightningRail) -> None:
    for text in (await theirs(node), await theirs(node, 0)):
        prepared = await prepare(refunding, f"LIGHTNING:{text.upper()}")
        assert prepared.destination == text


async def test_a_strangers_invoice_for_another_amount_is_never_paid(
    node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    async with Stranger() as stranger:
        for msat in (49_000, 51_000, 0):
            stranger.says(stranger.who(), {"pr": await theirs(node, msat)})
            with pytest.raises(RefundImpossible):
                await prepare(refunding, stranger.lnurl)


async def test_an_invoice_that_the_node_has_paid_is_not_prepared_again(
    node: SandboxNode, refunding: RefundingLightningRail
) -> None:
    text = await theirs(node)
    assert await refund(refunding, text) is Refund.SENT
    async with Stranger() as stranger:
        stranger.says(stranger.who(), {"pr": text})
        for destination in (text, stranger.lnurl):
            with pytest.raises(RefundImpossible):
                await prepare(refunding, destination)


@pytest.mark.parametrize(
    ("destination", "fault"),
    [
        ("rubbish", "unreadable"),
        ("lnbcrt400n1pvjluezpp5", "other_amount"),
        ("lnbcrt500n1pvjluezpp5", None),
        ("lnbcrt1pvjluezpp5", None),
    ],
)
def test_a_destination_is_read_without_asking_anybody(
    refunding: RefundingLightningRail, destination: str, fault: str | None
) -> None:
    assert refunding.destination_fault(destination, Money(50_000, BTC)) == fault
