"""What is bought over a rail: the part of the conformance suite about packs, passes and periods of plans."""

from __future__ import annotations

import pytest

from ledger.domain.prepaying import prepaid_subscription
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force
from ledger.identifiers import AccountId, Identifiers
from ledger.plans import FREE, PLANS, Pack
from rails.domain.purchases import PackSold, PlanSold
from rails.domain.topup import TopupState, TopupView
from rails.testing.harness import Core
from rails.testing.worlds import Impossible, Reverses, World

PASS = PackSold(
    pack=Pack(name="dear", label="Dear", price_usd_minor=2_000, credits=7, kind="pass", lasts_seconds=86_400)
)


def plan_for(account_id: AccountId, name: str = "pro") -> PlanSold:
    """A month of a plan for somebody."""
    plan = PLANS[name].sold_for(1)
    return PlanSold(plan=plan, months=1, subscription_id=prepaid_subscription(account_id))


class PurchaseContract:
    """Every rail sells the same things in the same way."""

    async def test_a_pass_is_bought_at_its_own_price_and_ends(self, world: World) -> None:
        async with Core.on(world) as core, core.running():
            topup = await core.open(purchase=PASS)
            await world.pay(core.instructions(topup))
            await world.settle_world()
            paid = await core.until(topup, TopupState.PAID)
            assert (paid.credited, paid.purchases) == (7, 1)
            [lot] = (await _account(core, topup)).lots
            assert lot.terms.source == "pass"
            assert lot.terms.expires_at is not None
            assert lot.terms.consideration is not None
            assert lot.terms.consideration.worth.gross_minor == topup.amount_due.minor

    async def test_a_plan_is_in_force_once_its_period_is_paid_and_paying_again_makes_it_longer(
        self, world: World
    ) -> None:
        async with Core.on(world) as core, core.running():
            somebody = Identifiers(world.clock).account()
            ends = []
            for months in (1, 2):
                topup = await core.open(purchase=plan_for(somebody), account_id=somebody)
                await world.pay(core.instructions(topup))
                await world.settle_world()
                await core.until(topup, TopupState.PAID)
                account = await _account(core, topup)
                assert plan_in_force(account, world.clock()).name == "pro"
                assert account.available(world.clock()) == 8_000 * months
                subscription = account.status.subscription
                assert subscription is not None
                ends.append(subscription.lasts_until)
            assert 28 <= (ends[1] - ends[0]).days <= 31

    async def test_a_plan_underpaid_is_not_granted_until_the_rest_is_there_or_impossible(
        self, world: World
    ) -> None:
        async with Core.on(world) as core, core.running():
            somebody = Identifiers(world.clock).account()
            topup = await core.open(purchase=plan_for(somebody), account_id=somebody)
            part = topup.amount_due.minor * 3 // 5
            try:
                await world.pay(core.instructions(topup), amount=part)
            except Impossible:
                assert (await core.payments.observe(topup.payment_id)).received == ()
                return
            await world.settle_world()
            short = await core.until(topup, TopupState.UNDERPAID)
            while short.received[0].state != "short":
                short = await core.payments.observe(topup.payment_id)
            assert (short.credited, short.purchases) == (0, 0)
            assert plan_in_force(await _account(core, topup), world.clock()).name == FREE
            await world.pay(core.instructions(topup), amount=topup.amount_due.minor - part)
            await world.settle_world()
            paid = await core.until(topup, TopupState.PAID)
            assert (paid.credited, paid.purchases) == (8_000, 1)

    async def test_what_is_paid_beyond_a_plan_is_plain_credits_or_impossible(self, world: World) -> None:
        async with Core.on(world) as core, core.running():
            somebody = Identifiers(world.clock).account()
            topup = await core.open(purchase=plan_for(somebody, "unlimited"), account_id=somebody)
            try:
                await world.pay(core.instructions(topup), amount=topup.amount_due.minor * 3 // 2)
            except Impossible:
                assert (await core.payments.observe(topup.payment_id)).received == ()
                return
            await world.settle_world()
            paid = await core.until(topup, TopupState.PAID)
            assert (paid.credited, paid.purchases) == (2_000, 1)
            assert plan_in_force(await _account(core, topup), world.clock()).name == "unlimited"

    @pytest.mark.parametrize("name", ["pro", "unlimited"])
    async def test_a_plan_whose_money_goes_back_is_over(self, world: World, name: str) -> None:
        if not isinstance(world, Reverses):
            pytest.skip("in this world nothing is taken back")
        async with Core.on(world) as core, core.running():
            somebody = Identifiers(world.clock).account()
            topup = await core.open(purchase=plan_for(somebody, name), account_id=somebody)
            await world.pay(core.instructions(topup))
            await world.settle_world()
            await core.until(topup, TopupState.PAID)
            await world.reverse(core.instructions(topup))
            while (await core.payments.observe(topup.payment_id)).state is TopupState.PAID:
                pass
            account = await _account(core, topup)
            assert plan_in_force(account, world.clock()).name == FREE
            assert account.available(world.clock()) == 0
            assert account.status.schedules == ()


async def _account(core: Core, topup: TopupView) -> Account:
    account: Account = (await core.log.state(topup.account_id)).state
    return account
