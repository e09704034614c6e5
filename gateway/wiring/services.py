"""All services of one process, by area. Routes never see this: each names what it uses (`dependencies`)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.bounds.streams import OpenStreams
from gateway.settings import Settings
from gateway.streams.news import News
from gateway.wiring.background import running_background
from gateway.wiring.foundation import Foundation, open_foundation
from gateway.wiring.generation import GenerationServices, build_generation
from gateway.wiring.identity import IdentityServices, build_identity
from gateway.wiring.ledger import LedgerServices, build_ledger
from gateway.wiring.mail import MailServices, build_mail
from gateway.wiring.payments import PaymentServices, build_payments
from ledger.clock import Clock
from processes.operating import Operations
from rails.contract import RailPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Built by `running_services`, never imported."""

    base: Foundation
    ledger: LedgerServices
    payments: PaymentServices
    generation: GenerationServices
    identity: IdentityServices
    operations: Operations
    mail: MailServices
    streams: OpenStreams
    news: News


@contextlib.asynccontextmanager
async def running_services(
    settings: Settings,
    clock: Clock,
    environ: Mapping[str, str],
    plugins: Sequence[RailPlugin],
) -> AsyncIterator[Services]:
    """Everything connected and all background tasks running, for as long as the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        base = await open_foundation(settings, clock, stack)
        payments = build_payments(base, environ, plugins, stack)
        ledger = build_ledger(base)
        generation = build_generation(base, payments.payments, stack)
        await generation.queue.ensure_clock()
        await generation.uploads.warm()
        identity = build_identity(base, payments.payments)
        mail = build_mail(base, identity.sign_in_links)
        await identity.sessions.refresh()
        news = News(
            signals=base.signals,
            queue=generation.queue,
            feeds=ledger.feeds,
            ownership=ledger.ownership,
            position=lambda: ledger.projections.position,
            clock=base.clock,
        )
        await stack.enter_async_context(
            running_background(base, ledger, payments, generation, identity.sessions, news, mail.sweepers)
        )
        yield Services(
            base=base,
            ledger=ledger,
            payments=payments,
            generation=generation,
            identity=identity,
            operations=Operations(
                payments=payments.payments,
                ledger=ledger.ledger,
                reader=base.reader,
                ownership=ledger.ownership,
            ),
            mail=mail,
            streams=OpenStreams(
                account_max=settings.streams_account,
                network_max=settings.streams_address,
                everybody_max=settings.streams,
            ),
            news=news,
        )
