"""Credit accounts: the commands, the read models, and guests who become people."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.wiring.foundation import Foundation
from ledger.log.model import Envelope
from ledger.ownership import Ownership
from ledger.service import Ledger
from processes.guest_merge import Guests
from projections.accounts import AccountProjection, Statements
from projections.debts import Debts
from projections.due import DueProjection
from projections.feed import FeedProjection, Feeds
from projections.runner import ProjectionRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerServices:
    """What can be done to an account, and what can be read of it."""

    ledger: Ledger
    guests: Guests
    ownership: Ownership
    projections: ProjectionRunner
    statements: Statements
    feeds: Feeds
    debts: Debts


def build_ledger(base: Foundation) -> LedgerServices:
    """The accounts."""
    ledger = Ledger(base.sequencer, base.reader, clock=base.clock, identifiers=base.identifiers)
    guests = Guests(base.engine, ledger, base.reader, base.clock)
    return LedgerServices(
        ledger=ledger,
        guests=guests,
        ownership=Ownership(base.engine),
        projections=_projections(base),
        statements=Statements(base.engine, base.pool),
        feeds=Feeds(base.engine),
        debts=Debts(base.engine),
    )


def _projections(base: Foundation) -> ProjectionRunner:
    signals, feed = base.signals, FeedProjection()

    def applied(entries: Sequence[Envelope]) -> None:
        """Wake whoever watches: something durable happened, and they read it from PostgreSQL."""
        if touched := feed.take_touched():
            signals.remember(asyncio.ensure_future(signals.moved(sorted(touched))))

    return ProjectionRunner(
        engine=base.engine,
        database_url=base.settings.database_url,
        reader=base.reader,
        projections=(AccountProjection(), feed, DueProjection()),
        applied=applied,
    )
