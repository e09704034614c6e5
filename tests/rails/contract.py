"""The conformance suite that every rail must pass.

Subclass `RailContract` in `tests/rails/<rail>/test_contract.py` and give it one fixture:

    class TestLightningContract(RailContract):
        @pytest.fixture
        async def world(self) -> AsyncIterator[World]:
            ...

A `World` is the outside as a test can move it: it starts rails (each call is a fresh process,
as after a crash) and plays the payer and the network. What a world cannot do at all it refuses
with `Impossible` (no one can underpay a Lightning invoice); then the test checks that nothing
changed. Powers that only some worlds have are the small protocols below; without them the test
is skipped and says so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from typing import Protocol, runtime_checkable

import pytest

from ledger.clock import Clock
from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.identifiers import Identifiers
from ledger.log.memory import MemoryLog
from ledger.money import Asset, Money
from rails.contract import (
    Expiry,
    HintRejected,
    Holds,
    Instructions,
    Observation,
    Order,
    Piece,
    PieceState,
    Rail,
    RailUnavailable,
    ReferenceBook,
    Standing,
    Webhooks,
)
from rails.memory import MemoryReferences
from rails.payment_state import PAYMENTS
from rails.rates import FixedRates
from rails.runner import Supervision
from rails.service import Payments
from rails.store_memory import MemoryRailStore
from rails.topup import TopupState, TopupView

CORE_PRICES = {"USD": Fraction(1), "USDT": Fraction(1), "BTC": Fraction(100_000), "L-BTC": Fraction(100_000)}
"""Dollars for one whole unit, in the tests that run the core."""
PATIENCE_SECONDS = 20
"""The bound of every wait of the suite."""


class Impossible(Exception):
    """The outside world itself refuses this, so that no money moves."""


class World(Protocol):
    """The outside of a rail, moved by the test."""

    @property
    def clock(self) -> Clock:
        """The clock that rails of this world are started with."""

    async def start(self, references: ReferenceBook) -> Rail:
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
class SendsWebhooks(Protocol):
    """A world that tells us by HTTP."""

    async def webhook(self, instructions: Instructions) -> tuple[Mapping[str, str], bytes]:
        """Headers and raw body of a genuine message about these instructions."""


@dataclass
class Desk:
    """The core's part in a contract test: it orders, and remembers references for ever."""

    world: World
    rail: Rail
    references: MemoryReferences = field(default_factory=MemoryReferences)
    _ids: Identifiers | None = None

    def order(self, *, minor: int | None = None, asset: Asset | None = None, hold: bool = False) -> Order:
        """A new order, by default a comfortable amount in the rail's default asset."""
        ids = self._ids = self._ids or Identifiers(self.world.clock)
        asset = asset or self.rail.capabilities.assets[0]
        capabilities = self.rail.capabilities
        return Order(
            payment_id=ids.payment(),
            account_id=ids.account(),
            ordinal=self.references.next_ordinal(self.rail.name),
            amount_due=Money(
                minor or comfortable(capabilities.minimum[asset.code], capabilities.maximum[asset.code]),
                asset,
            ),
            description="500 images",
            expires_at=self.world.clock() + timedelta(seconds=capabilities.quote_seconds),
            return_url="https://llamasketch.test/topups/return",
            hold=hold,
        )

    async def open(self, order: Order | None = None) -> Instructions:
        """Open a way to pay and remember it."""
        order = order or self.order()
        instructions = await self.rail.open(order)
        self.references.add(self.rail.name, instructions.reference, order.payment_id, order.ordinal)
        return instructions

    async def restart(self) -> None:
        """Our process dies and a new one starts on what was remembered."""
        await self.rail.close()
        self.rail = await self.world.start(self.references)

    async def observe_until(
        self, instructions: Instructions, is_so: Callable[[Observation], bool]
    ) -> Observation:
        """Ask now and after each hint until it is so."""
        observation = await self.rail.observe(instructions.reference)
        if is_so(observation):
            return observation
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(self.listen(None)) as hints:
            async for _ in hints:
                observation = await self.rail.observe(instructions.reference)
                if is_so(observation):
                    return observation
        raise AssertionError(f"the rail stopped listening; last seen: {observation}")

    async def listen(self, cursor: str | None) -> AsyncGenerator[tuple[str | None, str | None], None]:
        """Hints as (reference, cursor)."""
        hints = self.rail.listen(cursor)
        try:
            async for hint in hints:
                yield hint.reference, hint.cursor
        finally:
            await hints.aclose()  # type: ignore[attr-defined]

    async def hint_about(self, instructions: Instructions, cursor: str | None) -> str | None:
        """Wait for a hint that leads to these instructions; returns the cursor after it."""
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(self.listen(cursor)) as hints:
            async for reference, following in hints:
                if reference in (None, instructions.reference):
                    return following
        raise AssertionError("the rail stopped listening")

    async def settled(self, instructions: Instructions) -> Observation:
        """Wait until all the money known is final."""
        await self.world.settle_world()
        return await self.observe_until(
            instructions,
            lambda seen: bool(seen.pieces) and all(p.state is PieceState.SETTLED for p in seen.pieces),
        )


@dataclass
class Core:
    """The payment core over the rail under test, with its log and its rows in memory."""

    world: World
    log: MemoryLog
    store: MemoryRailStore
    rail: Rail
    payments: Payments
    supervision: Supervision | None = None
    shown: dict[str, Instructions] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def on(cls, world: World, before: Core | None = None) -> AsyncIterator[Core]:
        """A fresh process of the core, on what the one before it had stored."""
        log = before.log if before else MemoryLog([ACCOUNTS, PAYMENTS], world.clock)
        store = before.store if before else MemoryRailStore(log.tables)
        rail = await world.start(store)
        prices = {asset.code: CORE_PRICES[asset.code] for asset in rail.capabilities.assets}
        payments = Payments(
            log=log,
            store=store,
            rails={rail.name: rail},
            rates=FixedRates(world.clock, prices),
            ids=Identifiers(world.clock),
            clock=world.clock,
        )
        try:
            yield cls(world, log, store, rail, payments, shown=before.shown if before else {})
        finally:
            await rail.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it listens, works and sweeps. Afterwards the rail is closed."""
        async with Supervision(
            self.payments, {self.rail.name: self.rail}, clock=self.world.clock
        ) as supervision:
            self.supervision = supervision
            yield

    async def open(self) -> TopupView:
        """Someone wants 2,000 credits."""
        topup = await self.payments.open_topup(
            Identifiers(self.world.clock).account(),
            self.rail.name,
            wanted=2_000,
            return_url="https://llamasketch.test/topups/{payment_id}",
        )
        assert topup.instructions is not None, topup
        reference = await self.store.reference(topup.payment_id)
        assert reference is not None
        assert reference.reference is not None
        known = topup.instructions
        self.shown[topup.payment_id] = Instructions(
            kind=known["kind"],
            reference=reference.reference,
            uri=known.get("uri"),
            text=known.get("text"),
            url=known.get("url"),
            details={
                name: value for name, value in known.items() if name not in ("kind", "uri", "text", "url")
            },
        )
        return topup

    def instructions(self, topup: TopupView) -> Instructions:
        """How to pay, as the rail gave it."""
        return self.shown[topup.payment_id]

    async def posted(self, topup: TopupView) -> int:
        """Credits of the payer's account."""
        account: Account = (await self.log.state(topup.account_id)).state
        return account.posted(self.world.clock())

    async def until(self, topup: TopupView, state: TopupState) -> TopupView:
        """Wait until the payer sees this state."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (seen := await self.payments.topup(topup.payment_id)).state is not state:
                await asyncio.sleep(0)
        return seen

    async def caught_up(self) -> None:
        """Wait until everything pending has been asked about."""
        assert self.supervision is not None
        await asyncio.wait_for(self.supervision.runners[self.rail.name].caught_up.wait(), PATIENCE_SECONDS)


def comfortable(minimum: int, maximum: int) -> int:
    """An amount well inside the limits, whose half is payable too."""
    return min(max(minimum * 4, 1000), maximum)


def total(observation: Observation) -> int:
    """What arrived, in minor units."""
    return sum(piece.amount.minor for piece in observation.pieces)


def only_piece(observation: Observation) -> Piece:
    """The one piece of money of an observation."""
    assert len(observation.pieces) == 1, observation
    return observation.pieces[0]


class RailContract:
    """Subclass me, give me a `world` fixture, and pass."""

    @pytest.fixture
    async def desk(self, world: World) -> AsyncIterator[Desk]:
        """The core's part, with a freshly started rail."""
        references = MemoryReferences()
        desk = Desk(world=world, rail=await world.start(references), references=references)
        yield desk
        await desk.rail.close()

    # --- opening -------------------------------------------------------------------------------

    async def test_a_healthy_rail_says_so(self, desk: Desk) -> None:
        assert (await desk.rail.health()).ok

    async def test_capabilities_are_coherent(self, desk: Desk) -> None:
        capabilities = desk.rail.capabilities
        assert capabilities.assets
        assert capabilities.quote_seconds > 0
        for asset in capabilities.assets:
            assert 0 < capabilities.minimum[asset.code] <= capabilities.maximum[asset.code]

    async def test_opening_gives_instructions_and_an_open_standing(self, desk: Desk) -> None:
        instructions = await desk.open()
        assert instructions.kind in {"redirect", "invoice", "address"}
        assert (
            instructions.url if instructions.kind == "redirect" else (instructions.uri and instructions.text)
        )
        observation = await desk.rail.observe(instructions.reference)
        assert observation.reference == instructions.reference
        assert observation.standing is Standing.OPEN
        assert list(observation.pieces) == []

    async def test_opening_twice_gives_the_same_way_to_pay(self, desk: Desk) -> None:
        order = desk.order()
        assert await desk.open(order) == await desk.open(order)

    async def test_opening_again_after_a_restart_gives_the_same_way_to_pay(self, desk: Desk) -> None:
        order = desk.order()
        first = await desk.rail.open(order)  # … and we die before it is remembered
        await desk.restart()
        assert (await desk.open(order)).reference == first.reference

    async def test_two_payments_never_share_a_way_to_pay(self, desk: Desk) -> None:
        first, second = await desk.open(), await desk.open()
        assert first.reference != second.reference
        assert (first.text, first.url) != (second.text, second.url)

    async def test_an_answer_lost_while_opening_opens_nothing_twice(self, desk: Desk, world: World) -> None:
        if not isinstance(world, LosesAnswers):
            pytest.skip("this world loses no answers")
        order = desk.order()
        await world.lose_next_answer()
        try:
            first = await desk.rail.open(order)
        except RailUnavailable:
            first = await desk.rail.open(order)
        assert await desk.open(order) == first
        await world.pay(first)
        assert total(await desk.settled(first)) == order.amount_due.minor

    # --- money ---------------------------------------------------------------------------------

    async def test_what_was_asked_arrives_and_settles(self, desk: Desk, world: World) -> None:
        order = desk.order()
        instructions = await desk.open(order)
        before = world.clock()
        await world.pay(instructions)
        piece = only_piece(await desk.settled(instructions))
        assert piece.amount == order.amount_due
        assert piece.money_ref
        assert piece.first_seen_at.utcoffset() == timedelta(0)
        assert abs(piece.first_seen_at - before) < timedelta(hours=3)
        assert piece.fee is None or 0 <= piece.fee.minor < piece.amount.minor

    async def test_asking_twice_changes_nothing(self, desk: Desk, world: World) -> None:
        instructions = await desk.open()
        await world.pay(instructions)
        first = await desk.settled(instructions)
        assert await desk.rail.observe(instructions.reference) == first

    async def test_money_keeps_its_name_from_sight_to_settlement(self, desk: Desk, world: World) -> None:
        instructions = await desk.open()
        await world.pay(instructions)
        seen = await desk.observe_until(instructions, lambda observation: bool(observation.pieces))
        settled = await desk.settled(instructions)
        assert only_piece(seen).money_ref == only_piece(settled).money_ref
        assert only_piece(seen).first_seen_at == only_piece(settled).first_seen_at

    async def test_a_fresh_process_sees_the_same_money(self, desk: Desk, world: World) -> None:
        instructions = await desk.open()
        await world.pay(instructions)
        before = await desk.settled(instructions)
        await desk.restart()
        after = await desk.observe_until(instructions, lambda observation: bool(observation.pieces))
        assert after == before

    async def test_every_default_and_extra_asset_can_be_asked_for(self, desk: Desk, world: World) -> None:
        for asset in desk.rail.capabilities.assets:
            order = desk.order(asset=asset)
            instructions = await desk.open(order)
            await world.pay(instructions)
            assert only_piece(await desk.settled(instructions)).amount == order.amount_due

    async def test_an_underpayment_is_what_arrived_or_impossible(self, desk: Desk, world: World) -> None:
        await self._pays_other_than_asked(desk, world, numerator=1, denominator=2)

    async def test_an_overpayment_is_what_arrived_or_impossible(self, desk: Desk, world: World) -> None:
        await self._pays_other_than_asked(desk, world, numerator=3, denominator=2)

    async def test_a_second_payment_is_a_second_piece_or_impossible(self, desk: Desk, world: World) -> None:
        order = desk.order()
        instructions = await desk.open(order)
        await world.pay(instructions)
        first = only_piece(await desk.settled(instructions))
        try:
            await world.pay(instructions)
        except Impossible:
            assert only_piece(await desk.rail.observe(instructions.reference)) == first
            return
        await world.settle_world()
        both = await desk.observe_until(instructions, lambda seen: total(seen) == 2 * order.amount_due.minor)
        assert len({piece.money_ref for piece in both.pieces}) == 2
        assert first.money_ref in {piece.money_ref for piece in both.pieces}

    async def test_late_money_is_seen_or_impossible(self, desk: Desk, world: World) -> None:
        order = desk.order()
        instructions = await desk.open(order)
        await world.expire(instructions)
        try:
            await world.pay(instructions)
        except Impossible:
            assert not (await desk.rail.observe(instructions.reference)).pieces
            return
        assert total(await desk.settled(instructions)) == order.amount_due.minor

    async def test_a_wrong_asset_is_reported_as_what_it_is(self, desk: Desk, world: World) -> None:
        if not isinstance(world, PaysForeignAssets):
            pytest.skip("in this world there are no other assets")
        instructions = await desk.open()
        await world.pay(instructions, amount=12_345_678, asset=world.foreign_asset)
        piece = only_piece(await desk.settled(instructions))
        assert piece.amount.asset == world.foreign_asset
        assert piece.amount.minor == 12_345_678

    async def test_money_for_one_payment_is_never_shown_for_another(self, desk: Desk, world: World) -> None:
        paid, unpaid = await desk.open(), await desk.open()
        await world.pay(paid)
        await desk.settled(paid)
        assert not (await desk.rail.observe(unpaid.reference)).pieces

    # --- the way to pay ------------------------------------------------------------------------

    async def test_an_expired_way_to_pay_says_so_or_stays_open(self, desk: Desk, world: World) -> None:
        instructions = await desk.open()
        await world.expire(instructions)
        observation = await desk.rail.observe(instructions.reference)
        assert observation.standing in {Standing.EXPIRED, Standing.CLOSED, Standing.OPEN}
        assert not observation.pieces

    async def test_a_declined_try_is_said_with_a_reason_and_costs_nothing(
        self, desk: Desk, world: World
    ) -> None:
        if not isinstance(world, Declines):
            pytest.skip("nothing is declined in this world")
        instructions = await desk.open()
        await world.decline(instructions)
        observation = await desk.observe_until(instructions, lambda seen: seen.standing is Standing.DECLINED)
        assert observation.decline_code
        assert not observation.pieces

    async def test_cancelling_closes_an_unpaid_way_to_pay(self, desk: Desk, world: World) -> None:
        rail = desk.rail
        if not isinstance(rail, Expiry):
            pytest.skip("this rail cannot close a way to pay")
        instructions = await desk.open()
        first = await rail.cancel(instructions.reference)
        assert first.standing in {Standing.CLOSED, Standing.EXPIRED}
        assert await rail.cancel(instructions.reference) == first

    async def test_money_already_there_wins_over_cancelling(self, desk: Desk, world: World) -> None:
        rail = desk.rail
        if not isinstance(rail, Expiry):
            pytest.skip("this rail cannot close a way to pay")
        instructions = await desk.open()
        await world.pay(instructions)
        settled = await desk.settled(instructions)
        assert list((await rail.cancel(instructions.reference)).pieces) == list(settled.pieces)

    # --- hints ---------------------------------------------------------------------------------

    async def test_a_payment_raises_a_hint(self, desk: Desk, world: World) -> None:
        instructions = await desk.open()
        waiting = asyncio.create_task(desk.hint_about(instructions, None))
        await world.pay(instructions)
        await world.settle_world()
        await waiting

    async def test_what_was_paid_while_we_were_down_is_hinted_after_the_start(
        self, desk: Desk, world: World
    ) -> None:
        early = await desk.open()
        await world.pay(early)
        await desk.settled(early)
        cursor = await desk.hint_about(early, None)
        late = await desk.open()
        await desk.rail.close()
        await world.pay(late)
        await world.settle_world()
        desk.rail = await world.start(desk.references)
        await desk.hint_about(late, cursor)
        assert only_piece(await desk.settled(late)).state is PieceState.SETTLED

    async def test_a_crash_between_fact_and_cursor_repeats_the_hint(self, desk: Desk, world: World) -> None:
        instructions = await desk.open()
        await world.pay(instructions)
        before = await desk.settled(instructions)
        await desk.hint_about(instructions, None)  # … and we die before its cursor is kept
        await desk.restart()
        await desk.hint_about(instructions, None)
        assert await desk.settled(instructions) == before

    async def test_hints_in_any_order_and_number_lead_to_one_truth(self, desk: Desk, world: World) -> None:
        paid = [await desk.open() for _ in range(3)]
        for instructions in paid:
            await world.pay(instructions)
        truth = [await desk.settled(instructions) for instructions in paid]
        for order in itertools.permutations(range(3)):
            for index in (*order, *order):
                assert await desk.rail.observe(paid[index].reference) == truth[index]

    async def test_a_genuine_webhook_is_a_hint_and_has_no_side_effect(self, desk: Desk, world: World) -> None:
        rail = desk.rail
        if not isinstance(rail, Webhooks) or not isinstance(world, SendsWebhooks):
            pytest.skip("this rail is not told by HTTP")
        instructions = await desk.open()
        await world.pay(instructions)
        headers, body = await world.webhook(instructions)
        hints = rail.verify_hint(headers, body)
        assert hints == rail.verify_hint(headers, body)
        assert {hint.reference for hint in hints} & {instructions.reference, None}
        assert all(hint.hint_id for hint in hints)

    async def test_a_forged_webhook_is_rejected(self, desk: Desk, world: World) -> None:
        rail = desk.rail
        if not isinstance(rail, Webhooks) or not isinstance(world, SendsWebhooks):
            pytest.skip("this rail is not told by HTTP")
        instructions = await desk.open()
        await world.pay(instructions)
        headers, body = await world.webhook(instructions)
        for forged_headers, forged_body in ((headers, body + b" "), ({}, body), (headers, b""), ({}, b"{")):
            with pytest.raises(HintRejected):
                rail.verify_hint(forged_headers, forged_body)

    # --- what goes wrong -----------------------------------------------------------------------

    async def test_an_outage_is_said_and_nothing_is_lost(self, desk: Desk, world: World) -> None:
        if not isinstance(world, Outages):
            pytest.skip("this world never breaks down")
        instructions = await desk.open()
        await world.break_down()
        assert not (await desk.rail.health()).ok
        with pytest.raises(RailUnavailable):
            await desk.rail.observe(instructions.reference)
        with pytest.raises(RailUnavailable):
            await desk.rail.open(desk.order())
        await world.restore()
        await world.pay(instructions)
        assert only_piece(await desk.settled(instructions)).state is PieceState.SETTLED

    async def test_reversed_money_is_said_and_keeps_its_name(self, desk: Desk, world: World) -> None:
        if not isinstance(world, Reverses):
            pytest.skip("money is never taken back in this world")
        instructions = await desk.open()
        await world.pay(instructions)
        before = only_piece(await desk.settled(instructions))
        await world.reverse(instructions)
        after = await desk.observe_until(
            instructions, lambda seen: any(piece.state is PieceState.REVERSED for piece in seen.pieces)
        )
        assert before.money_ref in {piece.money_ref for piece in after.pieces}

    async def test_a_dispute_is_won_or_lost(self, desk: Desk, world: World) -> None:
        if not isinstance(world, Disputes):
            pytest.skip("nothing is disputed in this world")
        for won, end in ((True, PieceState.SETTLED), (False, PieceState.REVERSED)):
            instructions = await desk.open()
            await world.pay(instructions)
            await desk.settled(instructions)
            await world.dispute(instructions)
            await desk.observe_until(instructions, lambda seen: only_piece(seen).state is PieceState.DISPUTED)
            await world.end_dispute(instructions, won=won)
            await desk.observe_until(instructions, lambda seen, end=end: only_piece(seen).state is end)  # type: ignore[misc]

    # --- holds ---------------------------------------------------------------------------------

    async def test_held_money_is_captured_once(self, desk: Desk, world: World) -> None:
        rail = desk.rail
        if not isinstance(rail, Holds):
            pytest.skip("this rail cannot hold")
        order = desk.order(hold=True)
        instructions = await desk.open(order)
        await world.pay(instructions)
        await desk.observe_until(
            instructions, lambda seen: [p.state for p in seen.pieces] == [PieceState.HELD]
        )
        first = await rail.capture(instructions.reference)
        again = await rail.capture(instructions.reference)
        assert only_piece(first).state is PieceState.SETTLED
        assert again == first
        assert total(again) == order.amount_due.minor

    async def test_held_money_that_is_released_was_never_ours(self, desk: Desk, world: World) -> None:
        rail = desk.rail
        if not isinstance(rail, Holds):
            pytest.skip("this rail cannot hold")
        instructions = await desk.open(desk.order(hold=True))
        await world.pay(instructions)
        await desk.observe_until(
            instructions, lambda seen: [p.state for p in seen.pieces] == [PieceState.HELD]
        )
        first = await rail.release(instructions.reference)
        again = await rail.release(instructions.reference)
        assert {piece.state for piece in first.pieces} <= {PieceState.RETURNED}
        assert again == first

    # --- in the core ---------------------------------------------------------------------------

    async def test_the_core_credits_a_payment_once_and_at_once(self, world: World) -> None:
        async with Core.on(world) as core, core.running():
            topup = await core.open()
            await world.pay(core.instructions(topup))
            await world.settle_world()
            paid = await core.until(topup, TopupState.PAID)
            assert paid.credited == topup.credits
            assert await core.posted(topup) == topup.credits

    async def test_the_core_credits_what_was_paid_while_it_was_down(self, world: World) -> None:
        async with Core.on(world) as core:
            topup = await core.open()
            async with core.running():
                await core.until(topup, TopupState.WAITING)
        async with Core.on(world, core) as again:
            await world.pay(again.instructions(topup))
            await world.settle_world()
            async with again.running():
                assert (await again.until(topup, TopupState.PAID)).credited == topup.credits
            async with Core.on(world, again) as third, third.running():
                await third.caught_up()
                assert await third.posted(topup) == topup.credits

    # -------------------------------------------------------------------------------------------

    async def _pays_other_than_asked(
        self, desk: Desk, world: World, *, numerator: int, denominator: int
    ) -> None:
        order = desk.order()
        instructions = await desk.open(order)
        amount = order.amount_due.minor * numerator // denominator
        try:
            await world.pay(instructions, amount=amount)
        except Impossible:
            assert not (await desk.rail.observe(instructions.reference)).pieces
            return
        assert total(await desk.settled(instructions)) == amount
