"""What goes on without a request: wake-ups, read models, sweeps, and the rails' own tasks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

from gateway.auth.sessions import Sessions
from gateway.streams.news import News
from gateway.wiring.foundation import Foundation
from gateway.wiring.generation import GenerationServices
from gateway.wiring.ledger import LedgerServices
from gateway.wiring.payments import PaymentServices
from generation.jobs.orphaned_uploads import OrphanedUploads
from generation.jobs.reconciliation import Reconciler
from generation.jobs.unreferenced_objects import UnreferencedObjects
from ledger.cancelling import end_tasks
from ledger.followups.sweeper import Sweeper
from processes.followups import (
    sweeper_of_reconciliations,
    sweeper_of_refunds,
    sweeper_of_subscriptions,
    sweepers_of_accounts,
    sweepers_of_auto_topups,
    sweepers_of_uses,
)
from processes.idle_accounts import IdleAccounts
from processes.paid_jobs import PaidJobs
from processes.periodic import PeriodicTasks
from processes.renewals import Renewals


@contextlib.asynccontextmanager
async def running_background(
    base: Foundation,
    ledger: LedgerServices,
    payments: PaymentServices,
    generation: GenerationServices,
    sessions: Sessions,
    news: News,
    mail: Sequence[Sweeper],
) -> AsyncIterator[None]:
    """All background tasks, for as long as the context lasts."""
    works = {
        "signals": base.signals.run(),
        "sessions": sessions.run(),
        "streams": news.run(),
        "projections": ledger.projections.run(),
        "paid_jobs": PaidJobs(payments.payments.jobs_paid, generation.funding_process.look_at).run(),
        "periodic_tasks": _periodic_tasks(base, ledger, payments, generation, mail).run(),
    }
    async with payments.supervision:
        tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        try:
            yield
        finally:
            await end_tasks(tasks)


def _periodic_tasks(
    base: Foundation,
    ledger: LedgerServices,
    payments: PaymentServices,
    generation: GenerationServices,
    mail: Sequence[Sweeper],
) -> PeriodicTasks:
    idle_accounts = IdleAccounts(ledger.ledger, base.reader, base.clock)
    of_accounts = sweepers_of_accounts(
        base.engine, ledger.guests, idle_accounts, base.clock, random.SystemRandom()
    )
    of_subscriptions = sweeper_of_subscriptions(
        base.engine, payments.subscriptions, base.clock, random.SystemRandom()
    )
    reconciler = Reconciler(
        log=base.sequencer,
        reader=base.reader,
        queue=generation.queue,
        clock=base.clock,
        identifiers=base.identifiers,
        metrics=generation.metrics,
    )
    orphaned_uploads = OrphanedUploads(
        engine=base.engine, reader=base.reader, store=generation.store, clock=base.clock
    )
    return PeriodicTasks(
        dispatch=generation.dispatch,
        generations=generation.generations,
        sweepers=(
            *of_accounts,
            generation.generations.returns.sweeper,
            orphaned_uploads.sweeper,
            generation.funding_process.sweeper,
            sweeper_of_refunds(base.engine, payments.payments.refunds, base.clock, random.SystemRandom()),
            of_subscriptions,
            *sweepers_of_uses(base.engine, payments.uses, base.clock, random.SystemRandom()),
            sweeper_of_reconciliations(
                base.engine, payments.reconciliation, base.clock, random.SystemRandom()
            ),
            *sweepers_of_auto_topups(base.engine, payments.auto_topups, base.clock, random.SystemRandom()),
            *mail,
        ),
        reconciler=reconciler,
        reconciliation=payments.reconciliation,
        unreferenced_objects=UnreferencedObjects(
            engine=base.engine, store=generation.store, clock=base.clock
        ),
        auto_topups=payments.auto_topups,
        renewals=Renewals(base.engine, base.clock, base.catalogue.plans)
        if base.settings.sends_mail
        else None,
        queue=generation.queue,
        clock=base.clock,
    )
