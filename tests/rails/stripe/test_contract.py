"""The card rail against the suite that every rail must pass."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rails.testing.contract_suite import RailContract
from rails.testing.metered_suite import MeteredContract
from rails.testing.movements_suite import MovementsContract
from rails.testing.recurring_suite import RecurringContract
from tests.rails.stripe.outside import Inbox, Sandbox, running_sandbox


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: these tests read its events from the very beginning."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


class TestCardContract(RailContract, RecurringContract, MeteredContract, MovementsContract):
    """With the real SDK against the sandbox process over HTTP."""
