"""Paying in: the rails that are configured, the prices, and what watches over both."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.wiring.foundation import Foundation
from ledger.ownership import Ownership
from ledger.service import Ledger
from processes.auto_topups.service import AutoTopups
from processes.auto_topups.store import AutoTopupStore
from processes.mails import on_subscription_change
from projections.tables import balances
from rails.configuration import given
from rails.contract import Rail, RailContext, RailPlugin
from rails.payments.registry import build_rails
from rails.payments.runner import Supervision
from rails.payments.service import Payments
from rails.quotes.feeds import BITCOIN, TETHER, Feed, configured_feeds
from rails.quotes.rates import RateBook
from rails.reconciliation.service import Reconciliation
from rails.store.differences import Differences
from rails.store.overview import PaymentOverview
from rails.store.reconciling import ReconciliationStore
from rails.store.sql import SqlRailStore
from rails.store.subscriptions import SqlSubscriptionStore
from rails.store.usage import SqlUseStore
from rails.subscriptions.service import Subscriptions
from rails.subscriptions.usage import Uses


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentServices:
    """The payments, and the tasks that follow the rails; `supervision` runs while it is entered."""

    payments: Payments
    subscriptions: Subscriptions
    auto_topups: AutoTopups
    overview: PaymentOverview
    rates: RateBook
    supervision: Supervision
    uses: Uses
    reconciliation: Reconciliation
    differences: Differences


def build_payments(
    base: Foundation,
    environ: Mapping[str, str],
    plugins: Sequence[RailPlugin],
    stack: contextlib.AsyncExitStack,
) -> PaymentServices:
    """The rails among `plugins` that `environ` configures. `stack` closes the price feeds."""
    store = SqlRailStore(base.engine)
    rails = _rails(base, store, given(environ), plugins)
    rates = RateBook(_feeds(base, given(environ)), base.clock)
    stack.push_async_callback(rates.close)
    subscriptions = Subscriptions(
        log=base.sequencer,
        reader=base.reader,
        store=SqlSubscriptionStore(base.engine),
        rails=rails,
        ids=base.identifiers,
        clock=base.clock,
        plans=base.catalogue.plans,
        changed=partial(on_subscription_change, base.catalogue.plans) if base.settings.sends_mail else None,
    )
    payments = Payments(
        log=base.sequencer,
        store=store,
        rails=rails,
        rates=rates,
        ids=base.identifiers,
        clock=base.clock,
        elsewhere=subscriptions.deal_with,
        offers=[pack.credits for pack in base.catalogue.packs.values() if pack.kind == "pack"],
    )
    supervision = Supervision(
        payments,
        rails,
        clock=base.clock,
        randomness=random.SystemRandom(),
        keep_rates_fresh=rates.run,
    )
    return PaymentServices(
        payments=payments,
        subscriptions=subscriptions,
        auto_topups=AutoTopups(
            store=AutoTopupStore(base.engine, balances, sends_mail=base.settings.sends_mail),
            payments=payments,
            rails=rails,
            ledger=Ledger(base.sequencer, base.reader, clock=base.clock, identifiers=base.identifiers),
            ownership=Ownership(base.engine),
            ids=base.identifiers,
            clock=base.clock,
            packs=base.catalogue.packs,
            public_url=base.settings.public_url.rstrip("/"),
        ),
        overview=PaymentOverview(base.engine),
        rates=rates,
        supervision=supervision,
        uses=_uses(base, rails),
        reconciliation=Reconciliation(ReconciliationStore(base.engine), rails, clock=base.clock),
        differences=Differences(base.engine),
    )


def _feeds(base: Foundation, environ: Mapping[str, str]) -> Mapping[str, Sequence[Feed]]:
    """Of bitcoin, and of USDT, which is one dollar in the try-out stack unless that has feeds of it."""
    feeds = {BITCOIN: configured_feeds(environ.get("RATE_FEEDS", ""), base.http)}
    setting = environ.get("USDT_FEEDS", "")
    if setting or not base.settings.embedded:
        feeds[TETHER] = configured_feeds(setting, base.http, TETHER)
    return feeds


def _rails(
    base: Foundation, store: SqlRailStore, environ: Mapping[str, str], plugins: Sequence[RailPlugin]
) -> Mapping[str, Rail]:
    context = RailContext(clock=base.clock, references=store, production=not base.settings.embedded)
    return build_rails(plugins, environ, context)


def _uses(base: Foundation, rails: Mapping[str, Rail]) -> Uses:
    return Uses(
        log=base.sequencer,
        store=SqlUseStore(base.engine),
        subscriptions=SqlSubscriptionStore(base.engine),
        rails=rails,
        ids=base.identifiers,
        clock=base.clock,
    )
