"""The gateway of the HTTP tests, with a history in its database."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.conftest import gateway, logged, migrated, open_gateway
from tests.gateway.stack import Gateway, generation_request
from tests.waiting import SECONDS_MAX, eventually

__all__ = ["gateway", "logged", "migrated", "open_gateway"]


@pytest.fixture(scope="package")
async def lived_in(gateway: Gateway) -> Gateway:
    """Somebody has painted an image, and paid with the fake rail."""
    client, worker = await gateway.visitor(), await gateway.worker("worker of the documents")
    (await client.post("/v1/generations", json=generation_request())).raise_for_status()
    await worker.paint()
    topup = (await client.post("/v1/topups", json=FIVE_DOLLARS)).json()
    reference = (await gateway.services.payments.payments.store.reference(topup["id"])).reference
    services = gateway.services
    view = await services.payments.payments.topup(topup["id"])
    await gateway.fake.network.pay(reference, view.amount_due)
    await asyncio.wait_for(_paid(gateway, topup["id"]), SECONDS_MAX)
    head = await services.base.reader.head()
    await eventually(lambda: services.ledger.projections.position >= head, "the read models are up to date")
    return gateway


FIVE_DOLLARS = {"rail": "fake", "pay_asset": "USD", "amount": {"amount_minor": 500, "asset": "USD"}}


async def _paid(gateway: Gateway, payment_id: str) -> None:
    while (await gateway.services.payments.payments.observe(payment_id)).state != "paid":
        await asyncio.sleep(0)
