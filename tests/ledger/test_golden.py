"""Stored events must stay readable for ever: golden files are added, never edited."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.events import CreditsGranted, CreditsHeld, SubscriptionStarted
from ledger.domain.upcasts import UPCASTS
from ledger.log.categories import Categories
from tests.ledger.samples import SAMPLES
from tests.ledger.world import NOON

GOLDEN = Path(__file__).parent / "golden"
LOG = Categories([ACCOUNTS])


@pytest.mark.parametrize("name", sorted(ACCOUNTS.events))
def test_every_event_is_stored_as_its_golden_file_says(name):
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert LOG.decode(name, golden) == SAMPLES[name]
    assert json.loads(msgspec.json.encode(SAMPLES[name])) == json.loads(golden)
    assert type(SAMPLES[name]) is ACCOUNTS.events[name]


def test_every_golden_file_belongs_to_a_version_that_is_still_read():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*ACCOUNTS.events, *UPCASTS}


def test_a_retired_version_is_read_as_the_present_one():
    golden = (GOLDEN / "ledger.subscription_started.v1.json").read_bytes()
    assert LOG.decode("ledger.subscription_started.v1", golden) == SubscriptionStarted(
        subscription_id="sub_1",
        plan="pro",
        period_start=datetime(2026, 2, 1, tzinfo=UTC),
        period_end=datetime(2026, 3, 1, tzinfo=UTC),
        payment_id="pay_1",
    )


def test_a_retired_version_that_named_no_payment_is_read_as_one_without():
    stored = json.loads((GOLDEN / "ledger.subscription_started.v1.json").read_bytes())
    del stored["payment_id"]
    assert LOG.decode("ledger.subscription_started.v1", json.dumps(stored).encode()).payment_id == ""


def test_a_history_of_the_first_version_loads_today():
    grant = CreditsGranted(
        lot_id="lot_1", source="subscription", credits=8_000, granted_at=NOON, priority=10, plan="pro"
    )
    held = CreditsHeld(hold_id="h1", job_id="j1", credits=1, deadline=NOON, slices=())
    history = [
        ("ledger.subscription_started.v1", (GOLDEN / "ledger.subscription_started.v1.json").read_bytes()),
        ("ledger.credits_granted.v1", msgspec.json.encode(grant)),
        ("ledger.credits_held.v1", msgspec.json.encode(held)),
    ]
    account = ACCOUNTS.initial
    for name, stored in history:
        account = ACCOUNTS.evolve(account, LOG.decode(name, stored))
    assert account.status.subscription.plan == "pro"
    assert account.status.subscription.granted == 8_000
    assert account.available(NOON) == 8_000
