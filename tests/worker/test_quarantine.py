"""A worker in quarantine tests itself when it is asked to, reports the outcome, and works again."""

from __future__ import annotations

import asyncio

from tests.waiting import SECONDS_MAX
from tests.worker.comfyui.pictures import sketch
from tests.worker.comfyui.server import ComfyServer
from tests.worker.conftest import StartWorker
from tests.worker.gateway import FakeGateway


async def test_a_quarantined_worker_that_passes_its_test_gets_work_again(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.quarantined.set()
    await start_worker()
    outcome = await asyncio.wait_for(gateway.self_tests.get(), SECONDS_MAX)
    assert (outcome.passed, outcome.reason) == (True, "")
    gateway.offer(sketch())
    assert (await gateway.report())[0] == "complete"


async def test_a_quarantined_worker_that_cannot_paint_says_why_and_gets_none(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    await start_worker()
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(error_next=3)
    gateway.quarantined.set()
    outcome = await asyncio.wait_for(gateway.self_tests.get(), SECONDS_MAX)
    assert not outcome.passed
    assert outcome.reason
    assert gateway.quarantined.is_set()
