"""Our gateway on PostgreSQL, the stand-in for Stripe beside it, and one clock for both that only the test moves."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.settings import Settings
from gateway.wiring.services import Services
from ledger.clock import Clock, system_clock
from ledger.followups.sweeper import Sweeper
from ledger.plans import PACKS, PLANS
from processes.followups import sweeper_of_refunds, sweeper_of_subscriptions
from rails.contract import RailContext
from rails.stripe.plugin import build_rail
from rails.stripe.rail import CardRail
from rails.stripe.syncing import run_sync
from rails.stripe.terms import CheckoutTerms, Tax
from tests.gateway.stack import running
from tests.rails.stripe.outside import KEY, SECRET, Sandbox
from tests.waiting import until

TERMS = CheckoutTerms(tax=Tax.EXCLUSIVE, promotion_codes=True)
"""A year with tax on top of every price."""
CODES = ("YEAR25", "YEAR2OFF", "YEARHALF")
CATALOGUE = """
[[promotions]]
code = "YEAR25"
label = "A quarter off, for three months"
percent_off = 25
months = 3

[[promotions]]
code = "YEAR2OFF"
label = "Two dollars off"
off_usd_minor = 200

[[promotions]]
code = "YEARHALF"
label = "Half price for ever, for some"
percent_off = 50
months = 0
redemptions_max = 40
"""
WAIT_SECONDS_MAX = 300.0
"""Of real time, for anything that is waited for."""
ROUNDS_MAX = 200
_DUE = """
SELECT (SELECT count(*) FROM rail_notifications WHERE state = 'waiting' AND due_at <= :now)
     + (SELECT count(*) FROM rail_subscriptions WHERE watched AND due_at <= :now)
     + (SELECT count(*) FROM rail_refunds WHERE NOT by_hand AND due_at <= :now)
"""


@dataclass
class YearClock:
    """Real time, put back by as much as a test has not lived yet."""

    offset: timedelta

    def __call__(self) -> datetime:
        return system_clock() + self.offset


@dataclass
class YearPlugin:
    """The card rail on the stand-in, impatient."""

    base: str
    name: str = "card"

    def configured(self, environ: Mapping[str, str]) -> bool:
        return True

    def build(self, environ: Mapping[str, str], context: RailContext) -> CardRail:
        return build_rail(
            context,
            base=self.base,
            key=KEY,
            secrets=(SECRET,),
            poll_seconds=0.5,
            # Beyond the eight seconds of one try: a lost answer ends by the time-out of the SDK, which asks again.
            deadline_seconds=20.0,
            retries=1,
            terms=TERMS,
        )


@dataclass
class Year:
    """The world of a year."""

    sandbox: Sandbox
    clock: YearClock
    services: Services
    randomness: random.Random
    sweepers: list[Sweeper] = field(default_factory=list)

    async def set_faults(self, **faults: Any) -> None:
        """These, and no others."""
        await self.sandbox.control("faults", {"reset": True, "signs_by_own_clock": True, **faults})

    async def advance(self, step: timedelta) -> None:
        """Time passes here and there."""
        self.clock.offset += step
        await self.sandbox.control("clock", {"now": int(self.clock().timestamp())})

    async def settle(self) -> None:
        """Everything that is due now has been done, or was tried and is due later."""
        runner = self.services.payments.supervision.runners["card"]
        await runner.sweep_once()
        for _ in range(ROUNDS_MAX):
            await until(
                lambda: self.sandbox.control("health"),
                lambda health: health["undelivered"] == 0,
                "every message was delivered",
                seconds_max=WAIT_SECONDS_MAX,
            )
            await runner.work_once()
            for sweeper in self.sweepers:
                await sweeper.sweep()
            if await self._due() == 0 and (await self.sandbox.control("health"))["undelivered"] == 0:
                return
        raise AssertionError("it never came to rest")

    async def _due(self) -> int:
        async with self.services.base.engine.connect() as connection:
            answer = await connection.execute(sa.text(_DUE), {"now": self.clock()})
            return int(answer.scalar_one())


@asynccontextmanager
async def living(settings: Settings, folder: Path, days: int, seed: int) -> AsyncIterator[Year]:
    """A year that began so many days ago."""
    clock = YearClock(-timedelta(days=days))
    sandbox = Sandbox(folder, f"{settings.public_url}/v1/hooks/card")
    await sandbox.start()
    try:
        await sandbox.control("clock", {"now": int(clock().timestamp())})
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(_catalogue() + CATALOGUE)
        environ = {
            "STRIPE_SECRET_KEY": KEY,
            "STRIPE_API_BASE": sandbox.url,
            "STRIPE_TAX": TERMS.tax.value,
            "LLAMASKETCH_CATALOGUE": str(catalogue),
        }
        await run_sync(environ, apply=True)
        async with running(settings, clock=clock, plugins=[YearPlugin(sandbox.url)]) as gateway:
            services, randomness = gateway.services, random.Random(seed)
            year = Year(sandbox, clock, services, randomness)
            year.sweepers = list(_sweepers(services, clock, randomness))
            await year.set_faults()
            yield year
    finally:
        sandbox.stop()


def _catalogue() -> str:
    """What is built in, as a file has it."""
    rows = [("plans", plan) for plan in PLANS.values() if plan.price_usd_minor]
    rows += [("packs", pack) for pack in PACKS.values()]  # type: ignore[misc]
    lines = []
    for kind, row in rows:
        lines.append(f"[[{kind}]]")
        lines += [
            f"{name} = {json.dumps(value)}"
            for name, value in msgspec.structs.asdict(row).items()
            if value is not None
        ]
    return "\n".join(lines)


def _sweepers(services: Services, clock: Clock, randomness: random.Random) -> tuple[Sweeper, ...]:
    """The same as the gateway runs beside, so that nobody has to wait for its pauses."""
    engine, payments = services.base.engine, services.payments
    return (
        sweeper_of_subscriptions(engine, payments.subscriptions, clock, randomness),
        sweeper_of_refunds(engine, payments.payments.refunds, clock, randomness),
    )
