"""`LiquidRail`: USDT and L-BTC to one confidential address per payment, credited at two confirmations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import structlog

from ledger.cancelling import end_tasks
from ledger.clock import Clock
from ledger.money import LBTC, USDT, Asset, Money
from rails.contract import (
    Capabilities,
    Following,
    FundsReceipt,
    Health,
    Instructions,
    Notification,
    Observation,
    Order,
    PaymentRequestStatus,
    RailError,
    RailProtocolError,
    RailUnavailable,
    ReceiptState,
    ReferenceStore,
    RefundTo,
)
from rails.liquid import cursor as cursors
from rails.liquid.addresses import Addresses
from rails.liquid.book import ScriptBook
from rails.liquid.chain import ChainSource
from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.follower import RECENT_BLOCKS, Follower
from rails.liquid.judging import KnownChain
from rails.liquid.networks import Network
from rails.liquid.sightings import Sighting
from rails.liquid.unblind import Content
from rails.outages import Outages

NAME: Final = "liquid"
SCALE: Final = 8
UNREADABLE: Final = Asset("UNREADABLE", SCALE)
"""The asset of an output to our address that cannot be unblinded. Its amount is 0: someone must look."""
MINIMUM_CREDIT: Final[Mapping[str, int]] = {USDT.code: 1_000_000, LBTC.code: 100}
"""Of smaller outputs a bounded number is kept for an address: on Liquid a flood of dust costs next to nothing."""
_READY_SECONDS: Final = 10
_HEALTH_SECONDS: Final = 2
_LARGEST_PAUSE_SECONDS: Final = 5.0
_CURSOR_BLOCKS: Final = 360
"""On a quiet rail the cursor moves at least this often (six hours), and all pending is looked at."""
_TICK_SECONDS: Final = 60
_NOTIFICATIONS_PER_CURSOR: Final = 100
"""While more of them wait: making one looks at everything that is not final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidSettings:
    """What the rail is told."""

    network: Network
    assets: Mapping[str, Asset]
    """Asset ids that can be asked for, with our name for each."""
    confirmations: int = 2
    interval_seconds: float = 0.5
    """Between two looks at the chain."""
    tip_age_max: timedelta | None = timedelta(minutes=15)
    """How old the newest block may be; None on a regtest, where blocks come when they are asked for."""
    quote_seconds: int = 900


class LiquidRail:
    """`Rail` on a `ChainSource` and a watch-only descriptor."""

    name = NAME

    def __init__(
        self,
        settings: LiquidSettings,
        descriptor: WatchOnlyDescriptor,
        chain: ChainSource,
        references: ReferenceStore,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._descriptor = descriptor
        self._chain = chain
        self._references = references
        self._asset_ids = {asset.code: asset_id for asset_id, asset in settings.assets.items()}
        self._book = ScriptBook(descriptor)
        self._clock = clock
        self._known = KnownChain(settings.network)
        self._follower = Follower(
            chain,
            self._known,
            self._book,
            clock,
            confirmations=settings.confirmations,
            worth=self._is_worth_crediting,
            snapshot=self._observation,
        )
        self._addresses = Addresses(descriptor, self._book, self._follower, settings.interval_seconds)
        self._log = structlog.get_logger()
        self._task: asyncio.Task[None] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._resuming_fails = ""
        """Why what happened since the cursor cannot be told."""
        self._failed = ""
        """What went wrong with the newest attempt to follow, beside reading the chain."""
        self._outages = Outages()
        self.capabilities = _capabilities(settings)

    # --- the contract ---

    async def open(self, order: Order) -> Instructions:
        """One address, derived from the order's ordinal: asking again gives the same one until it is paid."""
        if order.hold:
            raise RailProtocolError("nothing can be held on Liquid")
        asset_id = self._asset_ids.get(order.amount_due.asset.code)
        if asset_id is None:
            raise RailProtocolError(f"{order.amount_due.asset.code} is not taken here")
        await self._up_to_date()  # no one is told to pay while we could not see it
        await self._require_young_tip()
        index = await self._addresses.unused(order.ordinal)
        script = self._descriptor.script(index)
        address = self._descriptor.address(index)
        amount = _plain(order.amount_due)
        return Instructions(
            kind="address",
            reference=script.hex(),
            uri=f"{self._settings.network.uri_scheme}:{address}?amount={amount}&assetid={asset_id}",
            text=address,
            details={
                "address": address,
                "asset_id": asset_id,
                "asset": order.amount_due.asset.code,
                "amount": amount,
                "confirmations_needed": str(self._settings.confirmations),
            },
        )

    async def observe(self, reference: str) -> Observation:
        """Every output to the address, as it stands in the chain at this moment.

        Outputs that were spent (swept) before this process started are not listed any more.
        """
        script = _script(reference)
        await self._up_to_date()
        await self._addresses.watch(script)
        return self._observation(script)

    async def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        """First what changed since the cursor, then every change as it is seen."""
        subscription = self._follower.subscribe()
        try:
            self._start()
            await self._ready.wait()
            async for notification in self._missed(cursor):
                yield notification
            cursor_height, without_cursor = self._follower.tip.height, 0
            while True:
                seen = await subscription.next(_TICK_SECONDS)
                if seen is None and self._follower.tip.height < cursor_height + _CURSOR_BLOCKS:
                    continue
                reference = None if seen is None else seen.reference
                if len(subscription) and without_cursor < _NOTIFICATIONS_PER_CURSOR:
                    without_cursor += 1
                    yield Notification(reference=reference, observation=seen)
                    continue
                cursor_height, without_cursor = self._follower.tip.height, 0
                cursor = self._follower.cursor().text()
                yield Notification(reference=reference, cursor=cursor, observation=seen)
        finally:
            subscription.close()

    async def health(self) -> Health:
        """Whether a payment that is made now would be seen: the node is believed, and its newest block is young."""
        try:
            await self._up_to_date(_HEALTH_SECONDS)
            await self._require_young_tip()
        except RailError as error:
            return Health(ok=False, detail=str(error))
        if self._failed or self._resuming_fails:
            return Health(ok=False, detail=self._failed or self._resuming_fails)
        return Health(ok=True)

    def confirmations(self, money_ref: str) -> int | None:
        """As of the newest poll."""
        if not self._ready.is_set():
            return None
        _, _, outpoint = money_ref.partition(":")
        txid, _, vout = outpoint.partition(":")
        for sighting in self._follower.sightings.of_transaction(txid):
            if str(sighting.vout) == vout:
                return self._follower.depth(sighting)
        return None

    async def outage(self) -> Health:
        """The node could not be read."""
        return await self._outages.next()

    def following(self) -> Following:
        """How far the chain was read. A fault is also one that nobody foresaw, or what is missing since the cursor."""
        found = self._follower.following()
        return replace(found, fault=found.fault or self._failed or self._resuming_fails)

    async def close(self) -> None:
        """Stop following and close the connections."""
        tasks = [task for task in (self._task, self._catching_up) if task is not None]
        self._task = self._catching_up = None
        await end_tasks(tasks)
        await self._addresses.close()
        await self._chain.close()

    # --- following ---

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="liquid-follower")

    async def _follow(self) -> None:
        pause = self._settings.interval_seconds
        while True:
            try:
                if not self._ready.is_set():
                    await self._caught_up(None)
                await self._follower.refresh()
                pause, self._failed = self._settings.interval_seconds, ""
            except RailError as error:
                self._outages.notice(str(error))
                self._log.warning("liquid_chain_unavailable", detail=str(error))
                pause = min(pause * 2, _LARGEST_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 — whatever it was, the next poll may do better
                self._failed = f"the follower failed: {type(error).__name__}"
                self._log.exception("liquid_follower_failed")
                pause = min(pause * 2, _LARGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _caught_up(self, wait_seconds_max: int | None) -> None:
        """Wait for the attempt that is under way, or begin one. Raises what went wrong with it."""
        attempt = self._catching_up
        if attempt is None or attempt.done():
            attempt = self._catching_up = asyncio.create_task(self._catch_up(), name="liquid-catch-up")
        done, _ = await asyncio.wait([attempt], timeout=wait_seconds_max)
        if done:
            attempt.result()

    async def _catch_up(self) -> None:
        """Learn our scripts, and what was paid to them since the newest cursor; then say that we are ready.

        Older money was told of before. Its outputs are read afterwards, so that a start takes as long as we were
        down, and not as long as the list of what we own. Without a cursor there is no before: they are read first.
        """
        known = await self._references.all(NAME)
        text = await self._references.cursor(NAME)
        cursor = None if text is None else cursors.read(text)
        scripts = [_script(row.reference) for row in known]
        newest = max((row.ordinal for row in known), default=0)
        await self._addresses.remember(scripts, newest)
        if cursor is not None:
            self._known.expect(cursor.height, cursor.genesis)
            self._follower.begin_from(cursor.height - RECENT_BLOCKS)
        await self._follower.refresh()
        if not self._follower.mempool_whole:
            self._failed = "the node is still reading what waited before it was started"
            raise RailUnavailable(self._failed)
        if cursor is None:
            await self._follower.find_unspent(scripts)
            self._addresses.find_unspent([])
        else:
            self._addresses.find_unspent(scripts)
        self._log.info("liquid_follower_ready", scripts=len(self._book), height=self._follower.tip.height)
        self._ready.set()

    async def _up_to_date(self, wait_seconds_max: int = _READY_SECONDS) -> None:
        """The state of the chain as it is now. Raises `RailUnavailable` with the reason if it cannot be had."""
        self._start()
        if not self._ready.is_set():
            await self._caught_up(wait_seconds_max)
            if not self._ready.is_set():
                raise RailUnavailable(
                    f"the Liquid rail is still catching up with the chain{self._follower.progress}"
                )
        await self._follower.refresh()

    async def _require_young_tip(self) -> None:
        age_max = self._settings.tip_age_max
        if age_max is None:
            return
        age = self._clock() - await self._chain.tip_time()
        if age > age_max:
            raise RailUnavailable(f"the newest block is {int(age.total_seconds())} seconds old")

    async def _missed(self, text: str | None) -> AsyncIterator[Notification]:
        """Learn what may have changed since the cursor: the next poll tells of it."""
        cursor = None if text is None else cursors.read(text)
        since = 0
        if cursor is not None:
            await self._patiently_resume(cursor)
            since = cursor.height - RECENT_BLOCKS
        if text is not None and cursor is None:
            yield Notification(reference=None)
        found = self._follower.sightings.everything()
        self._follower.announce(s.script for s in found if s.height is None or s.height >= since)

    async def _patiently_resume(self, cursor: cursors.Cursor) -> None:
        self._known.expect(cursor.height, cursor.genesis)
        while True:
            try:
                await self._follower.refresh()
                await self._follower.read_back(cursor.height - RECENT_BLOCKS)
                if not await self._follower.resume(cursor):
                    self._log.error("liquid_cursor_of_another_chain", height=cursor.height)
            except RailError as error:
                self._resuming_fails = str(error)
                self._log.warning("liquid_chain_unavailable", detail=str(error))
                await asyncio.sleep(self._settings.interval_seconds)
            else:
                self._resuming_fails = ""
                return

    # --- outputs ---

    def _observation(self, script: bytes) -> Observation:
        """As of the newest poll."""
        found = self._follower.sightings.of_script(script)
        receipts = sorted(
            map(self._receipt, found), key=lambda receipt: (receipt.first_seen_at, receipt.money_ref)
        )
        return Observation(
            reference=script.hex(),
            status=PaymentRequestStatus.OPEN,
            receipts=receipts,
            as_of=self._follower.as_of,
        )

    def _is_worth_crediting(self, content: Content) -> bool:
        asset = self._settings.assets.get(content.asset_id)
        return asset is not None and content.value >= MINIMUM_CREDIT.get(asset.code, 1)

    def _receipt(self, sighting: Sighting) -> FundsReceipt:
        return FundsReceipt(
            money_ref=f"liquid:{sighting.txid}:{sighting.vout}",
            amount=self._amount(sighting.content),
            state=self._state(sighting),
            first_seen_at=sighting.first_seen_at,
            external_ref=f"{sighting.txid}:{sighting.vout}",
        )

    def _amount(self, content: Content | None) -> Money:
        if content is None:
            return Money(0, UNREADABLE)
        known = self._settings.assets.get(content.asset_id)
        return Money(content.value, known or Asset(content.asset_id, SCALE))

    def _state(self, sighting: Sighting) -> ReceiptState:
        if sighting.gone:
            return ReceiptState.REVERSED
        return ReceiptState.SETTLED if self._follower.is_final(sighting) else ReceiptState.SEEN


def _capabilities(settings: LiquidSettings) -> Capabilities:
    limits = {USDT.code: (10_000_000, 1_000_000_000_000), LBTC.code: (1_000, 10_000_000)}
    assets = tuple(sorted(settings.assets.values(), key=lambda asset: asset.code != USDT.code))
    return Capabilities(
        assets=assets,
        label=" / ".join(asset.code for asset in assets) + " on Liquid",
        minimum={asset.code: limits[asset.code][0] for asset in assets},
        maximum={asset.code: limits[asset.code][1] for asset in assets},
        order=30,
        quote_seconds=settings.quote_seconds,
        refund_to=RefundTo.ADDRESS,
    )


def _plain(amount: Money) -> str:
    """`12.5`, never an exponent."""
    text = amount.decimal()
    return text.rstrip("0").rstrip(".") if "." in text else text


def _script(reference: str) -> bytes:
    try:
        return bytes.fromhex(reference)
    except ValueError:
        raise RailProtocolError("this is not a reference of the Liquid rail") from None
