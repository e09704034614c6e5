"""What every rail that charges saved payment methods has to pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Protocol

import pytest

from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers
from ledger.money import USD, Money
from rails.contract import (
    Expiry,
    Observation,
    Order,
    PaymentRequestStatus,
    Rail,
    ReceiptState,
    Refund,
    Refunds,
)
from rails.saved import (
    AUTHENTICATION,
    ChargeLapsed,
    MethodUnusable,
    SavedMethods,
    SaveOrder,
    SavingState,
)


class SavedWorld(Protocol):
    """The world outside of such a rail."""

    clock: Clock

    async def save(self, page: str, does: str) -> None:
        """A payer saves a method there that `works`, is `declined` when it is charged, or `asks` for its owner."""

    async def remove(self, method: str) -> None:
        """The payer removes it without us."""


class SavedContract:
    """Subclass it and give it the fixtures `rail` and `saved_world`."""

    @pytest.fixture
    def methods(self, rail: Rail) -> SavedMethods:
        """The rail, as far as this is about it."""
        assert isinstance(rail, SavedMethods)
        return rail

    @pytest.fixture
    def ids(self, saved_world: SavedWorld) -> Identifiers:
        """Fresh ids."""
        return Identifiers(saved_world.clock)

    async def _saved(
        self, methods: SavedMethods, world: SavedWorld, ids: Identifiers, does: str = "works"
    ) -> str:
        page = await methods.save_method(self._saving(world, ids))
        await world.save(page.reference, does)
        found = await methods.observe_saving(page.reference)
        assert found.state is SavingState.SAVED
        assert found.method is not None
        return found.method

    @staticmethod
    def _saving(world: SavedWorld, ids: Identifiers) -> SaveOrder:
        return SaveOrder(
            saving_id=ids.new("saving"),
            account_id=AccountId(ids.new("acct")),
            expires_at=world.clock() + timedelta(hours=1),
            return_url="https://llamasketch.test/account",
        )

    @staticmethod
    def _order(world: SavedWorld, ids: Identifiers, ordinal: int = 1) -> Order:
        return Order(
            payment_id=ids.payment(),
            account_id=AccountId(ids.new("acct")),
            ordinal=ordinal,
            amount_due=Money(500, USD),
            description="500 images",
            expires_at=world.clock() + timedelta(hours=1),
            return_url="https://llamasketch.test/topups/x",
        )

    async def test_a_page_is_the_same_for_the_same_saving_and_open_until_somebody_saves(
        self, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """Whoever asks again after a crash gets the page that is there."""
        order = self._saving(saved_world, ids)
        first, again = await methods.save_method(order), await methods.save_method(order)
        assert (first.kind, first.reference) == ("redirect", again.reference)
        assert first.url
        assert (await methods.observe_saving(first.reference)).state is SavingState.OPEN

    async def test_a_saved_method_has_a_name_and_can_be_looked_at(
        self, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """Its owner knows it by its last digits."""
        method = await self._saved(methods, saved_world, ids)
        found = await methods.observe_method(method)
        assert (found.state, found.method) == (SavingState.SAVED, method)
        assert "••••" in found.label

    async def test_a_charge_brings_its_money_once_however_often_it_is_asked_for(
        self, rail: Rail, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """A lost answer, a restart, two processes: one charge."""
        method = await self._saved(methods, saved_world, ids)
        order = self._order(saved_world, ids)
        references = {(await methods.charge(order, method)).reference for _ in range(3)}
        seen = await rail.observe(references.pop())
        assert not references
        [receipt] = seen.receipts
        assert receipt.amount == Money(500, USD)
        assert receipt.state in (ReceiptState.SEEN, ReceiptState.SETTLED)

    async def test_two_orders_are_two_charges(
        self, rail: Rail, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """What makes it one charge is the payment, and nothing else."""
        method = await self._saved(methods, saved_world, ids)
        seen = [
            await rail.observe((await methods.charge(self._order(saved_world, ids, n), method)).reference)
            for n in (1, 2)
        ]
        assert len({one.receipts[0].money_ref for one in seen}) == 2

    @pytest.mark.parametrize(("does", "code"), [("declined", None), ("asks", AUTHENTICATION)])
    async def test_a_decline_is_what_observing_tells_and_stays_the_answer(
        self,
        rail: Rail,
        methods: SavedMethods,
        saved_world: SavedWorld,
        ids: Identifiers,
        does: str,
        code: str | None,
    ) -> None:
        """The bank's no is no error of ours, and asking again is not trying again."""
        method = await self._saved(methods, saved_world, ids, does)
        order = self._order(saved_world, ids)
        first, again = await methods.charge(order, method), await methods.charge(order, method)
        assert first.reference == again.reference
        seen = await rail.observe(first.reference)
        assert (seen.status, seen.receipts) == (PaymentRequestStatus.DECLINED, ())
        assert seen.decline_code
        assert code is None or seen.decline_code == code

    async def test_a_declined_charge_can_be_closed(
        self, rail: Rail, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """Nothing comes of it any more."""
        method = await self._saved(methods, saved_world, ids, "declined")
        reference = (await methods.charge(self._order(saved_world, ids), method)).reference
        assert isinstance(rail, Expiry)
        closed = await rail.cancel(reference)
        assert closed.receipts == ()
        assert (await rail.observe(reference)).receipts == ()

    async def test_a_removed_method_is_gone_and_not_charged(
        self, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """By its owner, at the provider."""
        method = await self._saved(methods, saved_world, ids)
        await saved_world.remove(method)
        assert (await methods.observe_method(method)).state is SavingState.GONE
        with pytest.raises(MethodUnusable):
            await methods.charge(self._order(saved_world, ids), method)

    async def test_a_forgotten_method_is_gone_and_can_be_forgotten_again(
        self, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """By us."""
        method = await self._saved(methods, saved_world, ids)
        for _ in range(2):
            await methods.forget_method(method)
        assert (await methods.observe_method(method)).state is SavingState.GONE

    async def test_after_its_time_a_charge_is_found_or_lapses_and_nothing_is_charged(
        self, rail: Rail, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """Whoever was away for long neither loses money nor takes it late."""
        method = await self._saved(methods, saved_world, ids)
        made, never = self._order(saved_world, ids), self._order(saved_world, ids, 2)
        reference = (await methods.charge(made, method)).reference
        late = [replace(order, expires_at=saved_world.clock()) for order in (made, never)]
        assert (await methods.charge(late[0], method)).reference == reference
        with pytest.raises(ChargeLapsed):
            await methods.charge(late[1], method)

    async def test_the_money_of_a_charge_goes_back_as_any(
        self, rail: Rail, methods: SavedMethods, saved_world: SavedWorld, ids: Identifiers
    ) -> None:
        """Once per key."""
        method = await self._saved(methods, saved_world, ids)
        reference = (await methods.charge(self._order(saved_world, ids), method)).reference
        assert isinstance(rail, Refunds)
        for _ in range(2):
            assert await rail.refund(reference, Money(200, USD), None, "key") is Refund.SENT
        seen: Observation = await rail.observe(reference)
        assert [(sent.key, sent.outcome) for sent in seen.refunds] == [("key", Refund.SENT)]
