"""`payments reconcile` and `payments differences`, against the stand-in for the card provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Llamasketch
from tests.rails.stripe.outside import KEY, SECRET, Sandbox
from tests.rails.stripe.test_shapes import PACK


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path, "http://127.0.0.1:9/nobody")
    asyncio.run(sandbox.start())
    yield sandbox
    sandbox.stop()


async def paid(sandbox: Sandbox) -> None:
    made = (await sandbox.api("POST", "checkout/sessions", data=PACK)).json()["id"]
    await sandbox.pay(made)


def test_where_no_rail_tells_its_books_it_says_so(llamasketch: Llamasketch) -> None:
    assert llamasketch("payments", "reconcile").text.startswith("No rail here tells its own books.\n")
    assert "Nothing differs." in llamasketch("payments", "differences").text
    assert llamasketch("payments", "differences", "--json").json["differences"] == []


def test_money_that_no_payment_knows_ends_the_command_with_one(
    llamasketch: Llamasketch, provider: Sandbox, tamper: Callable[[str], None]
) -> None:
    given = {"STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRET": SECRET, "STRIPE_API_BASE": provider.url}
    first = llamasketch("payments", "reconcile", "--json", environment=given)
    assert first.code == 0, first.text
    [run] = first.json["runs"]
    assert (run["rail"], run["balance_compared"], first.json["differences"]) == ("card", True, [])
    asyncio.run(paid(provider))
    young = llamasketch("payments", "reconcile", "--rail", "card", environment=given)
    assert young.code == 0, young.text
    tamper("UPDATE rail_movements SET occurred_at = occurred_at - interval '2 hours'")
    found = llamasketch("payments", "reconcile", "--json", environment=given)
    assert found.code == 1
    [one] = found.json["differences"]
    assert (one["reason"], one["theirs_minor"], one["asset"]) == ("missing_here", 2000, "USD")
    listed = llamasketch("payments", "differences")
    assert listed.code == 0
    assert "missing_here" in listed.text
    provider.stop()
    away = llamasketch("payments", "reconcile", "--json", environment=given)
    assert (away.code, away.json["failed"]["card"].split(":")[0]) == (1, "rail_unavailable")


def test_a_rail_of_another_name_is_refused(llamasketch: Llamasketch) -> None:
    refused = llamasketch("payments", "reconcile", "--rail", "cash")
    assert (refused.code, "unknown_rail" in refused.text) == (1, True)
