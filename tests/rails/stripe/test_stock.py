"""The try-out stack's stand-in sells the plans by subscription from its first start on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.plans import PLANS
from rails.recurring import Offer
from rails.stripe.reading_subscriptions import lookup_key, read_offer
from sandbox.supervisor.catalogue import CATALOGUE, catalogue
from tests.rails.stripe.outside import Inbox, running_sandbox


async def test_a_stand_in_that_is_given_a_catalogue_sells_it_also_after_a_restart(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CATALOGUE, catalogue())
    async with running_sandbox(tmp_path, inbox) as sandbox:
        for _ in range(2):
            for plan in (plan for plan in PLANS.values() if plan.price_usd_minor):
                offer = Offer(plan=plan.name, length="month")
                found = (await sandbox.api("GET", f"prices?lookup_keys[]={lookup_key(offer)}")).json()["data"]
                assert [price["unit_amount"] for price in found] == [plan.price_usd_minor]
                assert read_offer(found[0]) == offer
            assert sandbox.stop() == 0
            await sandbox.start()
