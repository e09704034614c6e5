"""Every kind of follow-up of the platform, for those who run them and for those who watch them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from generation.jobs.funding import FUNDINGS
from generation.jobs.orphaned_uploads import UPLOADS
from generation.jobs.usage_reversal import REVERSALS
from ledger.clock import Clock
from ledger.followups.figures import Figures, figures_of, figures_query
from ledger.followups.sweeper import Sweeper
from mail.outbox import MAILS
from processes import idle_accounts
from processes.auto_topups.service import AutoTopups
from processes.auto_topups.tables import AUTO_TOPUPS, FORGETS, STOPS
from processes.guest_merge import GUEST_MERGES, Guests
from processes.idle_accounts import IDLE_ACCOUNTS, IdleAccounts
from rails.payments import refunds as rails_refunds
from rails.payments.refunds import RefundService
from rails.reconciliation import service as rails_reconciliation
from rails.reconciliation.service import Reconciliation
from rails.store.movements import RECONCILIATIONS
from rails.store.tables import NOTIFICATIONS, PAYMENT_RETRIES, REFUNDS, SUBSCRIPTIONS
from rails.store.usage import TOTALS, USES
from rails.subscriptions import usage as rails_usage
from rails.subscriptions.service import Subscriptions
from rails.subscriptions.usage import Uses

KINDS = (
    GUEST_MERGES,
    IDLE_ACCOUNTS,
    REVERSALS,
    UPLOADS,
    FUNDINGS,
    NOTIFICATIONS,
    PAYMENT_RETRIES,
    REFUNDS,
    SUBSCRIPTIONS,
    USES,
    TOTALS,
    RECONCILIATIONS,
    AUTO_TOPUPS,
    STOPS,
    FORGETS,
    MAILS,
)
"""What operators are shown, in this order."""


def sweepers_of_accounts(
    engine: AsyncEngine, guests: Guests, idle: IdleAccounts, clock: Clock, randomness: random.Random
) -> Sequence[Sweeper]:
    """The sweepers of follow-ups on accounts."""
    return (
        Sweeper(GUEST_MERGES, guests.bring_along, engine=engine, clock=clock, randomness=randomness),
        Sweeper(
            IDLE_ACCOUNTS,
            idle.visit,
            engine=engine,
            clock=clock,
            randomness=randomness,
            rules=idle_accounts.RULES,
        ),
    )


def sweeper_of_refunds(
    engine: AsyncEngine, refunds: RefundService, clock: Clock, randomness: random.Random
) -> Sweeper:
    """Sends what was requested, and asks again about what is not known."""
    return Sweeper(
        REFUNDS, refunds.send, engine=engine, clock=clock, randomness=randomness, rules=rails_refunds.RULES
    )


def sweeper_of_subscriptions(
    engine: AsyncEngine, subscriptions: Subscriptions, clock: Clock, randomness: random.Random
) -> Sweeper:
    """Asks about every running subscription now and then, whatever is notified."""
    return Sweeper(SUBSCRIPTIONS, subscriptions.visit, engine=engine, clock=clock, randomness=randomness)


def sweepers_of_uses(
    engine: AsyncEngine, uses: Uses, clock: Clock, randomness: random.Random
) -> Sequence[Sweeper]:
    """Tells rails what was used beyond plans, and compares what they have counted."""
    return (
        Sweeper(USES, uses.visit, engine=engine, clock=clock, randomness=randomness),
        Sweeper(
            TOTALS,
            uses.compare,
            engine=engine,
            clock=clock,
            randomness=randomness,
            rules=rails_usage.TOTAL_RULES,
        ),
    )


def sweeper_of_reconciliations(
    engine: AsyncEngine, reconciliation: Reconciliation, clock: Clock, randomness: random.Random
) -> Sweeper:
    """Each night compares what the rails say about our money with what our payments say."""
    return Sweeper(
        RECONCILIATIONS,
        reconciliation.visit,
        engine=engine,
        clock=clock,
        randomness=randomness,
        rules=rails_reconciliation.RULES,
    )


def sweepers_of_auto_topups(
    engine: AsyncEngine, topups: AutoTopups, clock: Clock, randomness: random.Random
) -> Sequence[Sweeper]:
    """The sweepers of automatic top-ups: how each goes on, which are to be turned off, and which methods are to be forgotten."""
    return (
        Sweeper(AUTO_TOPUPS, topups.visit, engine=engine, clock=clock, randomness=randomness),
        Sweeper(STOPS, topups.stop, engine=engine, clock=clock, randomness=randomness),
        Sweeper(FORGETS, topups.forget, engine=engine, clock=clock, randomness=randomness),
    )


async def followup_figures(engine: AsyncEngine, clock: Clock) -> list[Figures]:
    """What waits and what fails, by kind."""
    async with engine.connect() as connection:
        rows = (await connection.execute(figures_query(KINDS, clock()))).mappings().all()
    return figures_of(rows)
