"""The fake rail passes the suite of rails that charge saved payment methods."""

from __future__ import annotations

import pytest

from rails.contract import Rail, ReceiptState
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.fake_saved import ASKS, DECLINES, WORKS
from rails.testing.saved_suite import SavedContract
from tests.rails.core.test_fake_contract import FakeWorld

DOES = {"works": WORKS, "declined": DECLINES, "asks": ASKS}


class FakeSavedWorld(FakeWorld):
    """Payers with methods that do what a test wants, and money that is there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FakeNetwork(self.clock, finality=ReceiptState.SETTLED)

    async def save(self, page: str, does: str) -> None:
        self.network.saved.save(page, DOES[does])

    async def remove(self, method: str) -> None:
        self.network.saved.remove(method)


class TestFakeSaved(SavedContract):
    """In memory."""

    @pytest.fixture
    def saved_world(self) -> FakeSavedWorld:
        return FakeSavedWorld()

    @pytest.fixture
    def rail(self, saved_world: FakeSavedWorld) -> Rail:
        return FakeRail(saved_world.network)
