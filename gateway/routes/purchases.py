"""What of the catalogue a top-up is to buy, and whether this account may buy it now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, TypeAlias

from fastapi import Depends

from gateway.auth.identity import Principal, Role
from gateway.http.problems import Problem
from gateway.wiring.dependencies import CatalogueDep, ClockDep, LedgerDep
from ledger.catalogue import Catalogue
from ledger.clock import Clock
from ledger.domain.prepaying import PREFIX, prepaid_subscription
from ledger.service import Ledger
from rails.domain.purchases import PackSold, PlanSold, Purchase

PAID_AHEAD_MAX = timedelta(days=366)
"""Who has paid for more than this cannot pay for more: prices change, and so do people."""
MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchases:
    """Finds what is for sale, as it is sold now."""

    sold: Catalogue
    ledger: Ledger
    clock: Clock

    def pack(self, name: str) -> Purchase:
        """A pack or a pass. Raises `Problem` 422."""
        pack = self.sold.packs.get(name)
        if pack is None:
            raise Problem("unknown_product")
        return PackSold(pack=pack)

    async def plan(self, caller: Principal, name: str, length: str) -> Purchase:
        """A period of a plan for this person. Raises `Problem` 403, 409 or 422."""
        plan, months = self.sold.plans.get(name), MONTHS[length]
        if plan is None or plan.sold_for(months).price_usd_minor <= 0:
            raise Problem("unknown_product")
        if caller.role is Role.VISITOR:
            raise Problem("sign_in_needed")
        mine = (await self.ledger.account(caller.account_id)).subscriptions
        if any(not paid.cancels and not paid.subscription_id.startswith(PREFIX) for paid in mine):
            raise Problem("plan_renews")
        if any(paid.lasts_until > self.clock() + PAID_AHEAD_MAX for paid in mine):
            raise Problem("plan_paid_ahead")
        return PlanSold(
            # Nobody can bill what is used beyond a plan that is paid ahead.
            plan=plan.sold_for(months).cut_off(),
            months=months,
            subscription_id=prepaid_subscription(caller.account_id),
        )


async def _purchases(sold: CatalogueDep, ledger: LedgerDep, clock: ClockDep) -> Purchases:
    return Purchases(sold=sold, ledger=ledger, clock=clock)


PurchasesDep: TypeAlias = Annotated[Purchases, Depends(_purchases)]
