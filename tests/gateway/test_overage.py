"""Use beyond a plan over HTTP and on PostgreSQL: shown before and after, reported, billed, settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ledger.domain.refusals import InsufficientCredits
from rails.store.usage import REPORTED, TOTAL_ROWS, USE_ROWS
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, soon
from tests.gateway.test_subscriptions import PRICES, reference, subscribed

CATALOGUE = """
packs = []

[[plans]]
name = "pro"
label = "Pro"
price_usd_minor = 2000
period = "month"
credits = 50
rank = 2
overage_limit = 10
overage_usd_minor = 3
"""


async def usage_of(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/account")).json()["usage"]
    return found


async def rows(gateway: Gateway, table: sa.Table, account_id: str = "") -> list[dict[str, Any]]:
    query = sa.select(table)
    if account_id:
        query = query.where(table.c.account_id == account_id)
    async with gateway.services.base.engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(query)).mappings()]


async def test_use_beyond_a_plan_is_shown_reported_billed_and_settled(
    open_gateway: Open, tmp_path: Path
) -> None:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)
    async with open_gateway(catalogue=str(tmp_path / "catalogue.toml")) as gateway:
        outside = gateway.fake.network.subscriptions
        outside.prices, outside.overage = dict(PRICES), {"pro": 3}
        client = await gateway.person("beyond@llamas.art")
        sold = {plan["name"]: plan for plan in (await client.get("/v1/plans")).json()["plans"]}
        assert (sold["pro"]["overage_limit"], sold["pro"]["overage_usd_minor"]) == (10, 3)
        opened = await subscribed(gateway, outside, client, "pro")
        account = (await client.get("/v1/account")).json()["id"]
        await gateway.spend(account, 50)
        await gateway.spend(account, 7)
        usage = await usage_of(client)
        shown = {name: usage[name] for name in usage if name.startswith("overage")}
        assert shown == {"overage": 7, "overage_limit": 10, "overage_usd_minor": 3, "overage_owed": 7}
        with pytest.raises(InsufficientCredits):
            await gateway.spend(account, 4)
        entries = (await client.get("/v1/statement")).json()["entries"]
        assert any(entry["credits"] == 7 for entry in entries)

        async def is_reported() -> bool:
            return [row["state"] for row in await rows(gateway, USE_ROWS, account)] == [REPORTED]

        await soon(is_reported, "the use was reported")
        assert outside.total(reference(opened), opened_at(opened)) == 7
        await outside.renew(reference(opened))

        async def is_settled() -> bool:
            return (await usage_of(client))["overage_owed"] == 0

        await soon(is_settled, "its invoice settled it")
        [total] = await rows(gateway, TOTAL_ROWS)
        assert await gateway.services.payments.uses.compare(total) is None
        receipts = (await client.get("/v1/topups")).json()["topups"]
        assert any(each["amount_due"]["amount_minor"] == 2_000 + 21 for each in receipts)


def opened_at(opened: dict[str, Any]) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(opened["opened_at"])
