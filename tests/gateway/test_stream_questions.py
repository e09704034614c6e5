"""What open streams ask of the database: nothing each, one question for all of them, and nothing is missed by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.identifiers import AccountId
from tests.gateway.stack import Gateway, generation_request
from tests.gateway.streaming import watching
from tests.waiting import SECONDS_MAX, eventually


@contextlib.contextmanager
def questions(engine: AsyncEngine) -> Iterator[list[str]]:
    """What is asked about accounts' feeds, places in line and merged guests while the context lasts."""
    asked: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if any(table in statement for table in ("account_feed", "job_queue", "merged_accounts")):
            asked.append(statement)

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_streams_to_which_nothing_happens_ask_nothing_each(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routes.events.LOOK_SECONDS", 0.01)
    signals, news, looks = gateway.services.base.signals, gateway.services.news, []
    look = news.look

    async def counted() -> None:
        looks.append(1)
        await look()

    monkeypatch.setattr(news, "look", counted)
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watching(await gateway.visitor())) for _ in range(12)]
        for stream in streams:
            await stream.next()
        accounts = [account for account in signals.watched() if signals._watchers[account]]
        assert len(accounts) >= len(streams)
        with questions(gateway.services.base.engine) as asked:
            for value in range(1, 6):  # each goes round several times
                for account in accounts:
                    progress = {
                        "event": "progress",
                        "id": "job",
                        "state": "running",
                        "value": value,
                        "max": 5,
                    }
                    signals.deliver(account, progress)
                for stream in streams:
                    await stream.until("progress", value=value)
        # Of the look for all, which goes on meanwhile: three questions each, and of one that began before.
        assert all("row_number" in statement or "GROUP BY" in statement for statement in asked)
        assert len(asked) <= 3 * len(looks)


async def test_a_look_for_all_costs_as_many_questions_for_many_streams_as_for_one(gateway: Gateway) -> None:
    news, engine = gateway.services.news, gateway.services.base.engine
    counts = []
    async with contextlib.AsyncExitStack() as stack:
        for more in (1, 9):
            for _ in range(more):
                client = await gateway.visitor()
                await client.post("/v1/generations", json=generation_request())
                stream = await stack.enter_async_context(watching(client))
                await stream.until("progress")
            with questions(engine) as asked:
                accounts = gateway.services.base.signals.watched()
                assert len(news.known(accounts)) <= len(await news.in_flight(accounts))
                counts.append(len([one for one in asked if "row_number" in one]))
    assert max(counts) <= 2, "one of this test, and at most one of the look that goes on"


async def test_with_nobody_watching_nothing_is_asked(gateway: Gateway) -> None:
    signals = gateway.services.base.signals
    await eventually(lambda: not signals.watched(), "the streams of other tests have ended")
    with questions(gateway.services.base.engine) as asked:
        await gateway.services.news.look()
        await gateway.services.news.look_for_lost()
    assert not [one for one in asked if "row_number" in one or "GROUP BY" in one]


async def test_what_moved_is_told_although_the_notice_of_it_was_lost(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.streams.news.LOST_SECONDS", 0.1)
    monkeypatch.setattr("gateway.streams.news.LOOK_SECONDS", 0.3)
    monkeypatch.setattr(gateway.services.ledger.projections, "_applied", lambda _: None)
    client = await gateway.visitor()
    async with asyncio.timeout(SECONDS_MAX), watching(client) as stream:
        await stream.next()
        job_id = (await client.post("/v1/generations", json=generation_request())).json()["id"]
        await stream.until("generation", id=job_id)


async def test_a_stream_follows_a_guest_that_is_merged_while_it_is_open(gateway: Gateway) -> None:
    client, guest, worker = await gateway.visitor(), await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    job_id = (await guest.post("/v1/generations", json=generation_request())).json()["id"]
    mine, theirs = [(await one.get("/v1/account")).json()["id"] for one in (client, guest)]
    async with asyncio.timeout(SECONDS_MAX), watching(client) as stream:
        await stream.next()
        await gateway.services.ledger.guests.merge(AccountId(theirs), AccountId(mine))
        await eventually(lambda: theirs in gateway.services.base.signals.watched(), "the guest is watched")
        assert await worker.paint() == job_id
        await stream.until("generation", id=job_id, state="completed")
