"""The outside of a rail as a test can move it: the payer, the network, and what may go wrong there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ledger.clock import Clock
from ledger.money import Asset
from rails.contract import Instructions, Rail, ReferenceStore
from rails.recurring import Offer


class Impossible(Exception):
    """The outside world itself refuses this, so that no money moves."""


class World(Protocol):
    """The outside of a rail, moved by the test."""

    @property
    def clock(self) -> Clock:
        """The clock that rails of this world are started with."""

    async def start(self, references: ReferenceStore) -> Rail:
        """A fresh rail on the same outside world, as after a restart of our process."""

    async def pay(
        self, instructions: Instructions, amount: int | None = None, asset: Asset | None = None
    ) -> None:
        """A payer pays: what is asked, or `amount` minor units, or in another asset. Raises `Impossible`."""

    async def settle_world(self) -> None:
        """Let everything under way become final: mine blocks, let processing end."""

    async def expire(self, instructions: Instructions) -> None:
        """Let the time to pay run out."""


@runtime_checkable
class PaysForeignAssets(Protocol):
    """A world where a payer can send an asset that was not asked for."""

    @property
    def foreign_asset(self) -> Asset:
        """An asset that `pay(asset=…)` takes although an order in the default asset did not ask for it."""


@runtime_checkable
class Reverses(Protocol):
    """A world where settled money can be taken back (reorg, outside refund, chargeback)."""

    async def reverse(self, instructions: Instructions) -> None:
        """Take back, wholly, the money paid for these instructions."""


@runtime_checkable
class Disputes(Protocol):
    """A world where a payer can dispute a settled payment."""

    async def dispute(self, instructions: Instructions) -> None:
        """Open a dispute that withdraws the funds."""

    async def end_dispute(self, instructions: Instructions, *, won: bool) -> None:
        """We win (funds come back) or lose it."""


@runtime_checkable
class Declines(Protocol):
    """A world where the payer's attempt can be refused."""

    async def decline(self, instructions: Instructions) -> None:
        """The payer tries, and is refused."""


@runtime_checkable
class Outages(Protocol):
    """A world whose connection to the rail can break."""

    async def break_down(self) -> None:
        """From now on the rail cannot reach the outside."""

    async def restore(self) -> None:
        """It can again."""


@runtime_checkable
class LosesAnswers(Protocol):
    """A world that can do what was asked and lose the answer."""

    async def lose_next_answer(self) -> None:
        """The next call of the rail takes effect, and then fails."""


@runtime_checkable
class Renews(Protocol):
    """A world where people subscribe, and where time charges them again."""

    offers: tuple[Offer, Offer]
    """Two plans of the rail's catalogue for a month, the smaller one first. The smaller one is sold by the year, too."""

    async def pay_page(self, instructions: Instructions) -> None:
        """The payer subscribes on the page."""

    async def decline_page(self, instructions: Instructions) -> None:
        """The payer's card is refused there."""

    async def next_period(self, reference: str) -> None:
        """Time passes until the next period has been charged for, or was to be."""

    async def put_card(self, reference: str, *, works: bool) -> None:
        """From now on charges succeed, or are declined."""

    async def pay_invoice(self, reference: str) -> None:
        """The payer opens an unpaid invoice's own page and pays there."""

    async def end_at_once(self, reference: str) -> None:
        """Somebody ends the subscription at the provider."""

    async def pause(self, reference: str) -> None:
        """Somebody pauses it at the provider."""

    async def reverse_invoice(self, reference: str) -> None:
        """Somebody sends an invoice's money back at the provider."""


class Meters(Protocol):
    """A world whose catalogue has a plan beyond which use is billed."""

    metered: Offer
    """By the month, larger than `Renews.offers[0]`."""
    overage_minor: int
    """US cents for each credit beyond it."""

    async def stock_metered(self) -> None:
        """That plan is in the catalogue."""


@runtime_checkable
class SendsWebhooks(Protocol):
    """A world that tells us by HTTP."""

    async def webhook(self, instructions: Instructions) -> tuple[Mapping[str, str], bytes]:
        """Headers and raw body of a genuine message about these instructions."""
