"""Wiring: the one place where ports meet the classes that serve them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import redis.asyncio as redis
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.authentication import Authenticator
from gateway.foundation import Foundation, open_foundation
from gateway.funding import PaymentFunding
from gateway.generating import Caretaker
from gateway.idempotency import IdempotencyKeys
from gateway.identity import NetworkKeys, VisitorTokens
from gateway.limits import Limiter
from gateway.merging import Guests
from gateway.networks import Origins
from gateway.people import People
from gateway.settings import WORKER_REGISTRATION, Settings
from generation.dispatch import Dispatch
from generation.funding import FundingKeeper
from generation.hands import Crew, Hands
from generation.leftovers import Leftovers
from generation.metrics import Metrics
from generation.moderation import TermModeration
from generation.queue import JobQueue
from generation.reconcile import Reconciler
from generation.service import Generations
from generation.signals import RedisSignals
from generation.storage import BucketStore, DiskStore, LinkSigner, ObjectStore
from generation.workers import WorkerRegistry
from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers
from ledger.log.model import Envelope
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.sequencer import Sequencer
from ledger.plans import PACKS, PLANS
from ledger.service import Ledger
from projections.accounts import AccountProjection, Statements
from projections.due import AccountSweeper, DueProjection
from projections.feed import FeedProjection, Feeds
from projections.runner import ProjectionRunner
from rails.contract import RailContext, RailPlugin
from rails.feeds import configured_feeds
from rails.rates import BITCOIN, RateBook
from rails.registry import build_rails
from rails.runner import Supervision
from rails.service import Payments
from rails.store_sql import SqlRailStore


@dataclass(kw_only=True)
class Services:
    """Everything a route may need. Built by `running_services`, never imported."""

    settings: Settings
    clock: Clock
    identifiers: Identifiers
    engine: AsyncEngine
    sequencer: Sequencer
    reader: PostgresLogReader
    ledger: Ledger
    payments: Payments
    supervision: Supervision
    generations: Generations
    dispatch: Dispatch
    caretaker: Caretaker
    queue: JobQueue
    registry: WorkerRegistry
    signals: RedisSignals
    store: ObjectStore
    hands: Hands
    signer: LinkSigner
    visitors: VisitorTokens
    people: People
    guests: Guests
    authenticator: Authenticator
    limiter: Limiter
    idempotency: IdempotencyKeys
    origins: Origins
    network_keys: NetworkKeys
    projections: ProjectionRunner
    idle_accounts: AccountSweeper
    statements: Statements
    feeds: Feeds
    http: httpx.AsyncClient
    redis: redis.Redis
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    streams: Counter[str] = field(default_factory=Counter)
    """Open event streams by account."""

    async def account_view(self, account_id: AccountId) -> dict[str, Any]:
        """An account in the API's words, as of the newest event: never behind its own commands."""
        view = await self.ledger.account(account_id)
        plan = PLANS[view.plan]
        return {
            "id": account_id,
            "plan": view.plan,
            "plan_label": plan.label,
            "priority": plan.priority,
            "paid": any(lot.consideration is not None for lot in view.lots),
            "credits": {
                "posted": view.posted,
                "held": view.held,
                "available": view.available,
                "debt": view.debt,
            },
            "free_today": {"left": sum(lot.left for lot in view.lots if lot.source == "allowance")},
            "usage": msgspec.to_builtins(view.usage),
            "subscription": msgspec.to_builtins(view.subscription),
            "lots": [_lot(lot) for lot in view.lots],
        }

    @staticmethod
    def json(value: Any) -> Response:
        """A JSON answer, encoded at once."""
        return Response(msgspec.json.encode(value), media_type="application/json")


def _lot(lot: Any) -> dict[str, Any]:
    return {
        "id": lot.lot_id,
        "source": lot.source,
        "granted": lot.granted,
        "left": lot.left,
        "held": lot.held,
        "spent": lot.spent,
        "granted_at": lot.granted_at.isoformat(),
        "expires_at": lot.expires_at.isoformat() if lot.expires_at else None,
        "reference": lot.reference,
        "claimable": lot.claimable,
    }


@contextlib.asynccontextmanager
async def running_services(
    settings: Settings,
    clock: Clock,
    environ: Mapping[str, str],
    plugins: Sequence[RailPlugin],
) -> AsyncIterator[Services]:
    """Everything connected and all background tasks running, for as long as the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        services = await _build(settings, clock, environ, plugins, stack)
        await services.queue.ensure_clock()
        await stack.enter_async_context(services.supervision)
        for name, work in (
            ("signals", services.signals.run()),
            ("projections", services.projections.run()),
            ("caretaker", services.caretaker.run()),
            ("idle_accounts", services.idle_accounts.run()),
        ):
            services.tasks.append(asyncio.create_task(work, name=name))
        try:
            yield services
        finally:
            for task in services.tasks:
                task.cancel()
            await asyncio.gather(*services.tasks, return_exceptions=True)


async def _build(
    settings: Settings,
    clock: Clock,
    environ: Mapping[str, str],
    plugins: Sequence[RailPlugin],
    stack: contextlib.AsyncExitStack,
) -> Services:
    base = await open_foundation(settings, clock, stack)
    crew = Crew()
    stack.push_async_callback(crew.close)
    payments, supervision, rates = _payments(base, environ, plugins)
    stack.push_async_callback(rates.close)
    ledger = Ledger(base.sequencer, base.reader, clock=clock, identifiers=base.identifiers)
    guests = Guests(ledger, base.reader, payments)
    return Services(
        settings=settings,
        clock=clock,
        identifiers=base.identifiers,
        engine=base.engine,
        sequencer=base.sequencer,
        reader=base.reader,
        http=base.http,
        redis=base.redis,
        signals=base.signals,
        ledger=ledger,
        guests=guests,
        payments=payments,
        supervision=supervision,
        hands=crew,
        idempotency=IdempotencyKeys(base.engine, clock),
        projections=_projections(base, guests),
        idle_accounts=AccountSweeper(base.engine, ledger, base.reader, clock),
        statements=Statements(base.engine),
        feeds=Feeds(base.engine),
        **_generation(base, payments, crew),
        **_identity(base),
    )


def _generation(base: Foundation, payments: Payments, hands: Hands) -> dict[str, Any]:
    """The generation side's services, by their names in `Services`."""
    settings = base.settings
    signer = LinkSigner(settings.secret_for("object-links"), base.clock)
    registry = WorkerRegistry(
        base.engine,
        base.clock,
        base.identifiers,
        registration_secret=settings.secret_for(WORKER_REGISTRATION),
    )
    queue, metrics = JobQueue(base.engine), Metrics()
    keeper = FundingKeeper(
        funding=PaymentFunding(payments, settings.public_url),
        log=base.sequencer,
        queue=queue,
        signals=base.signals,
        clock=base.clock,
        identifiers=base.identifiers,
        metrics=metrics,
    )
    reconciler = Reconciler(
        log=base.sequencer,
        reader=base.reader,
        queue=queue,
        clock=base.clock,
        identifiers=base.identifiers,
        metrics=metrics,
    )
    shared: dict[str, Any] = {
        "log": base.sequencer,
        "reader": base.reader,
        "queue": queue,
        "store": object_store(settings, signer, hands),
        "signals": base.signals,
        "moderation": TermModeration(),
        "clock": base.clock,
        "keeper": keeper,
        "metrics": metrics,
    }
    dispatch = Dispatch(**shared, registry=registry)
    generations = Generations(**shared, digest_secret=settings.secret_for("input-digests"))
    return {
        "queue": queue,
        "store": shared["store"],
        "signer": signer,
        "registry": registry,
        "generations": generations,
        "dispatch": dispatch,
        "caretaker": Caretaker(
            dispatch=dispatch,
            keeper=keeper,
            generations=generations,
            leftovers=Leftovers(
                engine=base.engine, reader=base.reader, store=shared["store"], clock=base.clock
            ),
            reconciler=reconciler,
            queue=queue,
            clock=base.clock,
        ),
    }


def _identity(base: Foundation) -> dict[str, Any]:
    """Who is who, and how often they may ask, by their names in `Services`."""
    settings = base.settings
    visitors = VisitorTokens(settings.secret_for("visitor-tokens"), base.clock)
    people = People(
        settings=settings,
        clock=base.clock,
        identifiers=base.identifiers,
        engine=base.engine,
        http=base.http,
        visitors=visitors,
    )
    authenticator = Authenticator(
        visitors=visitors,
        readers=people.token_readers,
        public_url=settings.public_url,
        embedded=settings.embedded,
    )
    return {
        "visitors": visitors,
        "people": people,
        "authenticator": authenticator,
        "limiter": Limiter(settings, base.redis),
        "origins": Origins(settings.trusted_proxies),
        "network_keys": NetworkKeys(settings.secret_for("network-keys")),
    }


def _payments(
    base: Foundation, environ: Mapping[str, str], plugins: Sequence[RailPlugin]
) -> tuple[Payments, Supervision, RateBook]:
    rail_store = SqlRailStore(base.engine)
    context = RailContext(clock=base.clock, references=rail_store, production=not base.settings.embedded)
    rails = build_rails(plugins, environ, context)
    rates = RateBook({BITCOIN: configured_feeds(environ.get("RATE_FEEDS", ""), base.http)}, base.clock)
    payments = Payments(
        log=base.sequencer,
        store=rail_store,
        rails=rails,
        rates=rates,
        ids=base.identifiers,
        clock=base.clock,
        offers=[pack.credits for pack in PACKS.values() if pack.kind == "pack"],
    )
    supervision = Supervision(
        payments,
        rails,
        clock=base.clock,
        randomness=random.SystemRandom(),
        keep_rates_fresh=rates.run,
    )
    return payments, supervision, rates


def _projections(base: Foundation, guests: Guests) -> ProjectionRunner:
    signals, feed = base.signals, FeedProjection()

    def applied(entries: Sequence[Envelope]) -> None:
        """Tell whoever watches that something durable happened; they read it from PostgreSQL."""
        guests.follow(entries)
        for account_id in feed.take_touched():
            signals.remember(asyncio.ensure_future(signals.tell(account_id, {"event": "moved"})))

    return ProjectionRunner(
        engine=base.engine,
        database_url=base.settings.database_url,
        reader=base.reader,
        projections=(AccountProjection(), feed, DueProjection()),
        applied=applied,
    )


def object_store(settings: Settings, signer: LinkSigner, hands: Hands) -> ObjectStore:
    """The store that the settings name: the local disk, or a bucket. Raises `ValueError`."""
    if not settings.object_store_url:
        return DiskStore(settings.data / "objects", signer, settings.public_url, hands=hands)
    scheme, _, bucket = settings.object_store_url.partition("://")
    if scheme != "s3" or not bucket:
        raise ValueError("LLAMASKETCH_OBJECT_STORE_URL is written s3://bucket")
    config: dict[str, Any] = {
        "region": settings.object_store_region,
        "access_key_id": settings.object_store_access_key.get_secret_value(),
        "secret_access_key": settings.object_store_secret_key.get_secret_value(),
    }
    if settings.object_store_endpoint:
        config["endpoint"] = settings.object_store_endpoint
        config["virtual_hosted_style_request"] = False
        config["client_options"] = {"allow_http": settings.object_store_endpoint.startswith("http://")}
    return BucketStore.connect(bucket, hands=hands, **config)
