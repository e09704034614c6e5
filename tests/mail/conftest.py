"""A real mail server that can fail, and an outbox on PostgreSQL that is filled by the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.followups.sweeper import Sweeper
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.plans import NO_PLANS
from ledger.service import Ledger
from mail.choices import Choices
from mail.delivery import Delivery
from mail.domain.letters import AnyLetter
from mail.domain.message import Sender
from mail.ports import Recipient, Transport
from mail.server import Server
from mail.smtp import SmtpTransport
from mail.tables import METADATA, OUTBOX_ROWS
from processes.mails import on_account_event, on_payment_event
from rails.domain.state import PAYMENTS
from rails.store.sql import SqlRailStore
from rails.store.tables import METADATA as RAILS
from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.ledger.world import NOON
from tests.rails.core.platform import Platform, assemble
from tests.tables import create_tables, database_name

STEP_SECONDS = 0.4
"""For which a test waits for a silent server."""


@dataclass
class MailServer:
    """A stand-in mail server, and a way to it."""

    stand: Stand
    port: int

    @property
    def transport(self) -> SmtpTransport:
        """A way that waits for a busy machine."""
        return SmtpTransport(self.server)

    @property
    def impatient(self) -> SmtpTransport:
        """A way that soon gives a silent server up."""
        return SmtpTransport(self.server, step_seconds=STEP_SECONDS)

    @property
    def server(self) -> Server:
        return Server.parse(f"smtp+plain://127.0.0.1:{self.port}")

    def fail(self, **faults: Any) -> None:
        """Switch faults on."""
        self.stand.faults.change(faults)

    @property
    def came(self) -> list[dict[str, Any]]:
        """What arrived, the oldest first."""
        return [
            {"to": kept.recipients, "message": kept.parsed(), "raw": kept.raw}
            for kept in reversed(self.stand.mailbox.all())
        ]


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[MailServer]:
    """A mail server of this test's own."""
    stand, port = Stand(tmp_path, product_url="", now=lambda: datetime(2026, 11, 29, tzinfo=UTC)), free_port()
    async with stand.receiving(port, Door()):
        yield MailServer(stand, port)


class Directory:
    """Addresses by account, and which account became which. A `Recipients`."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.merged: dict[str, str] = {}

    async def find(self, account_id: str) -> Recipient | None:
        owner = self.merged.get(account_id, account_id)
        return Recipient(owner, self.addresses[owner]) if owner in self.addresses else None


class TestLinks:
    """Links of nobody's. A `Links`."""

    __test__ = False

    def page(self, account_id: str) -> str:
        return f"https://llamas.art/mail/{account_id}"

    def turn_off(self, account_id: str) -> str:
        return f"https://llamas.art/v1/mail/{account_id}"

    async def action(self, letter: AnyLetter) -> str | None:
        return "https://llamas.art/sign-in#x"


@dataclass
class Office:
    """One process of the platform, as far as mail is concerned."""

    engine: AsyncEngine
    clock: ManualClock
    ledger: Ledger
    platform: Platform
    post: MailServer
    directory: Directory = field(default_factory=Directory)

    def __post_init__(self) -> None:
        self.choices = Choices(self.engine, self.clock)
        self.sweeper = self.sweeper_with(self.post.transport)

    def delivery_with(self, transport: Transport) -> Delivery:
        return Delivery(
            engine=self.engine,
            clock=self.clock,
            transport=transport,
            recipients=self.directory,
            links=TestLinks(),
            sender=Sender("LlamaSketch", "mail@llamas.art"),
            public_url="https://llamas.art",
        )

    def sweeper_with(self, transport: Transport) -> Sweeper:
        """As of a process that sends by this transport."""
        return self.delivery_with(transport).sweeper(random.Random(1))

    async def rows(self) -> list[dict[str, Any]]:
        """The outbox."""
        query = sa.select(OUTBOX_ROWS).order_by(OUTBOX_ROWS.c.mail_id)
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def row(self) -> dict[str, Any]:
        """The only row."""
        (row,) = await self.rows()
        return row

    def person(self, address: str = "ada@llamas.art") -> str:
        """Somebody with an address."""
        account = self.ledger.open()
        self.directory.addresses[account] = address
        return account


@pytest.fixture(scope="session")
def mail_template(make_database: Callable[..., str]) -> str:
    url = make_database()
    create_tables(url, RAILS, METADATA)
    return database_name(url)


@pytest.fixture
async def office(
    mail_template: str, make_database: Callable[..., str], post: MailServer
) -> AsyncIterator[Office]:
    """The log, the outbox and a mail server."""
    url, clock = make_database(mail_template), ManualClock(NOON)
    categories = Categories(
        [replace(ACCOUNTS, on_event=on_account_event), replace(PAYMENTS, on_event=on_payment_event)]
    )
    async with AsyncExitStack() as stack:
        engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        stack.push_async_callback(engine.dispose)
        sequencer = Sequencer(LogRecorder(stack.enter_context(open_datastore(url))), categories, clock)
        sequencer.start()
        stack.push_async_callback(asyncio.to_thread, sequencer.stop)
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(url, min_size=1, max_size=4, open=False)
        reader = PostgresLogReader(await stack.enter_async_context(pool), categories)

        class Log:
            submit, state, events = sequencer.submit, reader.state, reader.events

        ledger = Ledger(sequencer, reader, clock=clock, plans=NO_PLANS)
        platform = assemble(clock, Log(), SqlRailStore(engine))
        yield Office(engine, clock, ledger, platform, post)
