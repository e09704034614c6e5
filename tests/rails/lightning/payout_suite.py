"""What sending refunds over Lightning must do, on the stand-in and on real nodes alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import pytest

from rails.contract import Refund, RefundImpossible
from rails.lightning.lookups import Lookups, PublicWeb, client
from rails.lightning.refunds import Payouts
from tests.rails.lightning.strangers import Stranger
from tests.waiting import until


class Receiver(Protocol):
    """Somebody whom the node can pay."""

    async def invoice(self, amount_msat: int) -> str:
        """A new invoice; 0 leaves the amount open."""

    async def received(self, bolt11: str) -> int:
        """What came in on it, in millisatoshi."""

    async def end(self) -> None:
        """The node that pays is killed."""

    async def begin(self) -> None:
        """It runs again, and can pay."""

    def payouts(self) -> Payouts:
        """A new client with the refund macaroon."""


def lookups() -> Lookups:
    """Asks this machine, too."""
    return Lookups(PublicWeb(client(), plain_http=True))


@dataclass
class Paying:
    """A client of the node, made anew when it breaks."""

    receiver: Receiver
    payouts: Payouts

    async def pay(self, bolt11: str, msat: int = 50_000) -> Refund:
        """Once, and no more."""
        return await self.payouts.pay(bolt11, msat, "key")

    async def ends(self, bolt11: str, msat: int = 50_000) -> Refund:
        """Ask until it is known."""
        return await until(
            lambda: self.pay(bolt11, msat), lambda outcome: outcome is not Refund.UNKNOWN, "the refund ends"
        )


class PayoutContract:
    """Subclass me, give me a `paying` fixture, and pass."""

    async def test_it_is_sent_once_however_often_it_is_asked(self, paying: Paying) -> None:
        text = await paying.receiver.invoice(50_000)
        outcomes = await asyncio.gather(*(paying.pay(text) for _ in range(4)))
        assert set(outcomes) <= {Refund.SENT, Refund.UNKNOWN}
        assert await paying.ends(text) is Refund.SENT
        assert await paying.receiver.received(text) == 50_000
        fee = await paying.payouts.fee_msat(text)
        assert fee is not None
        assert fee >= 0

    async def test_an_open_amount_is_filled_in(self, paying: Paying) -> None:
        text = await paying.receiver.invoice(0)
        assert await paying.ends(text, 12_000) is Refund.SENT
        assert await paying.receiver.received(text) == 12_000

    async def test_a_prepared_invoice_is_named_by_its_hash_and_is_not_prepared_again_once_it_was_paid(
        self, paying: Paying
    ) -> None:
        text = await paying.receiver.invoice(50_000)
        prepared = await paying.payouts.prepare(text, 50_000)
        assert prepared == await paying.payouts.prepare(f"lightning:{text.upper()}", 50_000)
        assert await paying.ends(prepared.destination) is Refund.SENT
        with pytest.raises(RefundImpossible):
            await paying.payouts.prepare(text, 50_000)

    async def test_what_a_stranger_makes_is_paid_only_if_it_asks_for_the_amount(self, paying: Paying) -> None:
        async with Stranger() as stranger:
            stranger.says(stranger.who(), {"pr": await paying.receiver.invoice(50_000)})
            prepared = await paying.payouts.prepare(stranger.lnurl, 50_000)
            assert await paying.ends(prepared.destination) is Refund.SENT
            for wrong in (0, 51_000):
                stranger.says(stranger.who(), {"pr": await paying.receiver.invoice(wrong)})
                with pytest.raises(RefundImpossible):
                    await paying.payouts.prepare(stranger.lnurl, 50_000)

    async def test_rubbish_and_other_networks_are_no_destination(self, paying: Paying) -> None:
        mainnet = "lnbc500n1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqf"
        for text in (mainnet, "lnbcrt500n1rubbish", "rubbish"):
            with pytest.raises(RefundImpossible):
                await paying.payouts.prepare(text, 50_000)
            assert await paying.pay(text) is Refund.FAILED

    async def test_killed_at_any_moment_it_is_sent_once(self, paying: Paying) -> None:
        text = await paying.receiver.invoice(50_000)
        sending: asyncio.Future[Refund] = asyncio.ensure_future(_whatever(paying.pay(text)))
        await asyncio.sleep(0)
        await paying.receiver.end()
        await sending
        await paying.receiver.begin()
        await paying.payouts.close()
        paying.payouts = paying.receiver.payouts()
        assert await paying.ends(text) is Refund.SENT
        assert await paying.receiver.received(text) == 50_000


async def _whatever(work: Awaitable[Refund]) -> Refund:
    try:
        return await work
    except Exception:  # noqa: BLE001 - it may have been killed before anything was sent
        return Refund.UNKNOWN
