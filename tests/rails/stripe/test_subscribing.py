"""The core and the card rail together: a subscription's life over real HTTP, with messages that go wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force
from ledger.identifiers import AccountId, Identifiers
from ledger.money import USD, Money
from ledger.plans import PLANS
from ledger.testing.memory_log import MemoryLog
from rails.contract import RailProtocolError, Refund
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState
from rails.payments.runner import RunnerRules, Supervision
from rails.payments.service import Payments, UnknownReference
from rails.recurring import Offer, SubscriptionStatus
from rails.stripe.rail import CardRail
from rails.subscriptions.record import SubscriptionRecord
from rails.subscriptions.service import Subscriptions
from rails.testing.fixed_rates import FixedRates
from rails.testing.memory_store import MemoryRailStore
from rails.testing.memory_subscriptions import MemorySubscriptionStore
from tests.rails.stripe.outside import CardWorld, Inbox, Message, Sandbox, running_sandbox
from tests.waiting import until

STARTER, PRO = Offer(plan="starter", length="month"), Offer(plan="pro", length="month")


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: here months pass for everybody in it."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


@dataclass
class Shop:
    """The platform with the card rail, and one person."""

    world: CardWorld
    rail: CardRail
    log: MemoryLog
    subscriptions: Subscriptions
    payments: Payments
    account_id: AccountId

    async def account(self) -> Account:
        state: Account = (await self.log.state(self.account_id)).state
        return state

    async def credits(self) -> int:
        return (await self.account()).posted(self.world.clock())

    async def plan(self) -> str:
        return plan_in_force(await self.account(), self.world.clock(), PLANS).name

    async def open(self, offer: Offer = STARTER) -> SubscriptionRecord:
        return await self.subscriptions.subscribe(
            self.account_id, "card", offer, return_url="https://llamasketch.test/account"
        )

    async def begin(self, offer: Offer = STARTER) -> SubscriptionRecord:
        """Subscribed and paid, and the platform has looked."""
        record = await self.open(offer)
        await self.world.sandbox.pay(str(record.page_reference))
        return await self.subscriptions.observe(record.subscription_id)

    async def status(self, record: SubscriptionRecord, status: SubscriptionStatus) -> SubscriptionRecord:
        """Wait until it stands so."""
        return await until(
            lambda: self.subscriptions.known(record.subscription_id),
            lambda found: found.status is status,
            f"the subscription is {status}",
        )

    async def has_credits(self, wanted: int) -> None:
        await until(self.credits, lambda found: found == wanted, f"{wanted} credits are there")

    async def messages_about(self, record: SubscriptionRecord) -> list[Message]:
        """Every webhook message about a subscription so far, once all of them have come."""
        reference = str(record.reference)
        await until(self._undelivered, lambda waiting: waiting == 0, "all messages are delivered")
        return [message for message in self.world.inbox.messages if reference in message.body.decode()]

    async def _undelivered(self) -> int:
        return int((await self.world.sandbox.control("health"))["undelivered"])


def shop_on(world: CardWorld, rail: CardRail, log: MemoryLog, account_id: AccountId) -> Shop:
    ids, rails = Identifiers(world.clock), {"card": rail}
    subscriptions = Subscriptions(
        log=log,
        reader=log,
        store=MemorySubscriptionStore(log.tables),
        rails=rails,
        ids=ids,
        clock=world.clock,
        plans=PLANS,
    )
    payments = Payments(
        log=log,
        store=MemoryRailStore(log.tables),
        rails=rails,
        rates=FixedRates(world.clock, {}),
        ids=ids,
        clock=world.clock,
        elsewhere=subscriptions.deal_with,
    )
    return Shop(world, rail, log, subscriptions, payments, account_id)


@pytest.fixture
async def shop(world: CardWorld, rail: CardRail) -> Shop:
    log = MemoryLog([ACCOUNTS, PAYMENTS], world.clock)
    shop = shop_on(world, rail, log, Identifiers(world.clock).account())
    newest = (await world.sandbox.api("GET", "events?limit=1")).json()["data"]
    if newest:  # what happened to others before is none of this test's
        await shop.payments.store.keep_cursor("card", newest[0]["id"])
    return shop


@asynccontextmanager
async def running(shop: Shop) -> AsyncIterator[Supervision]:
    """While it listens to the event list, works through its inbox, and sweeps."""
    rules = RunnerRules(sweep_seconds=1)
    async with Supervision(
        shop.payments, {"card": shop.rail}, clock=shop.world.clock, rules=rules
    ) as supervision:
        yield supervision


async def test_a_subscription_from_the_first_page_to_its_end(shop: Shop, world: CardWorld) -> None:
    async with running(shop):
        record = await shop.open()
        await world.sandbox.pay(str(record.page_reference))
        record = await shop.status(record, SubscriptionStatus.ACTIVE)
        await shop.has_credits(2_000)
        await world.move_clock(timedelta(days=32))
        await until(
            lambda: shop.payments.topups_of(shop.account_id), lambda found: len(found) == 2, "it was renewed"
        )
        assert await shop.plan() == "starter"
        await shop.subscriptions.cancel(record.subscription_id)
        await world.move_clock(timedelta(days=31))
        record = await shop.status(record, SubscriptionStatus.ENDED)
    topups = await shop.payments.topups_of(shop.account_id)
    assert [(topup.state, topup.amount_due.minor) for topup in topups] == [(TopupState.PAID, 800)] * 2
    assert await shop.plan() == "free"


async def test_messages_doubled_and_in_reverse_grant_once(shop: Shop, world: CardWorld) -> None:
    record = await shop.open()
    await world.sandbox.pay(str(record.page_reference))
    record = await shop.subscriptions.observe(record.subscription_id)
    await world.move_clock(timedelta(days=32))
    messages = await shop.messages_about(record)
    # The signature carries the machine's time, which the messages of a simulated month do not have.
    world.clock.offset = timedelta()
    assert {"customer.subscription.created", "invoice.paid"} <= {m.event["type"] for m in messages}
    # Another platform, to which nothing of it is known.
    again = shop_on(world, shop.rail, MemoryLog([ACCOUNTS, PAYMENTS], world.clock), shop.account_id)
    again.log.tables["rail_subscriptions", record.subscription_id] = dict(
        shop.log.tables["rail_subscriptions", record.subscription_id]
    )
    for message in [*reversed(messages), *messages]:
        await again.payments.accept_notification("card", message.headers, message.body)
        for row in await again.payments.store.due_notifications("card", world.clock(), 100):
            await again.payments.deal_with("card", row.reference)
            await again.payments.store.close_notification(row.id, "done")
    assert len(await again.payments.topups_of(shop.account_id)) == 2
    known = (await again.account()).status.find_subscription(record.subscription_id)
    assert known is not None
    assert len(known.starts) == 2


async def test_messages_that_never_came_are_made_up_for(shop: Shop, world: CardWorld) -> None:
    await world.sandbox.control("faults", {"drop": 1_000})
    async with running(shop):
        record = await shop.open(PRO)
        await world.sandbox.pay(str(record.page_reference))
        await shop.status(record, SubscriptionStatus.ACTIVE)
        await shop.has_credits(8_000)


async def test_a_refund_in_the_dashboard_takes_the_period_back(shop: Shop, world: CardWorld) -> None:
    async with running(shop):
        record = await shop.begin()
        seen = await shop.rail.observe_subscription(str(record.reference))
        assert seen is not None
        await world.reverse_invoice(seen.invoices[0].reference)
        await shop.has_credits(0)
    (topup,) = await shop.payments.topups_of(shop.account_id)
    assert topup.state is TopupState.REVERSED


@pytest.mark.parametrize("won", [True, False])
async def test_a_dispute_about_a_period_moves_its_credits(shop: Shop, world: CardWorld, won: bool) -> None:
    async with running(shop):
        record = await shop.begin()
        intent = await intent_of(shop, record)
        await world.sandbox.control("dispute", {"payment_intent": intent})
        await shop.has_credits(0)
        await world.sandbox.control("dispute", {"payment_intent": intent, "status": "won" if won else "lost"})
        await shop.has_credits(2_000 if won else 0)


async def test_a_refund_of_ours_goes_to_the_card_that_paid_the_invoice_once(
    shop: Shop, world: CardWorld
) -> None:
    record = await shop.begin()
    seen = await shop.rail.observe_subscription(str(record.reference))
    assert seen is not None
    reference = seen.invoices[0].reference
    for _ in range(2):
        assert await shop.rail.refund(reference, Money(300, USD), None, "refund_1") is Refund.SENT
    observed = await shop.rail.observe(reference)
    assert [(back.key, back.outcome) for back in observed.refunds] == [("refund_1", Refund.SENT)]
    assert observed.receipts[0].reversed_amount is None, "what we sent back ourselves was booked before"


async def test_a_payment_of_an_invoice_is_shown_and_closed_like_any_other(
    shop: Shop, world: CardWorld
) -> None:
    await shop.begin()
    (topup,) = await shop.payments.topups_of(shop.account_id)
    again = await shop.payments.cancel(topup.payment_id)
    assert (again.state, again.credited, again.instructions) == (TopupState.PAID, 2_000, None)


async def intent_of(shop: Shop, record: SubscriptionRecord) -> str:
    seen = await shop.rail.observe_subscription(str(record.reference))
    assert seen is not None
    receipt = (await shop.rail.observe(seen.invoices[0].reference)).receipts[0]
    return receipt.money_ref.removeprefix("stripe:")


async def test_an_upgrade_that_wants_3d_secure_waits_for_the_payer(shop: Shop, world: CardWorld) -> None:
    async with running(shop):
        record = await shop.begin()
        await world.sandbox.control(f"subscriptions/{record.reference}/card", {"last4": "3184"})
        await world.move_clock(timedelta(days=10))
        shown, more, _ = await shop.subscriptions.preview(record.subscription_id, PRO)
        record = await shop.subscriptions.change(record.subscription_id, PRO, at=shown.at, key="up")
        assert (record.plan, record.pending_plan) == ("starter", "pro")
        assert record.pay_url is not None
        assert await shop.credits() == 2_000
        await world.pay_invoice(record.pay_url.rpartition("/")[2])
        await until(shop.plan, lambda plan: plan == "pro", "the larger plan is there")
        # Time has gone on by some seconds since it was shown.
        assert 0 <= 2_000 + more - await shop.credits() <= 2


async def test_dunning_ends_in_unpaid_and_paying_by_hand_brings_the_plan_back(
    shop: Shop, world: CardWorld
) -> None:
    record = await shop.begin()
    await world.put_card(str(record.reference), works=False)
    await world.sandbox.control("faults", {"unpaid_at_last": True})
    await world.move_clock(timedelta(days=32))
    record = await shop.subscriptions.observe(record.subscription_id)
    assert record.status is SubscriptionStatus.PAST_DUE
    assert record.pay_url is not None
    first_unpaid = record.pay_url.rpartition("/")[2]
    for _ in range(4):
        await world.move_clock(timedelta(days=8))
    record = await shop.subscriptions.observe(record.subscription_id)
    assert (record.status, await shop.plan()) == (SubscriptionStatus.UNPAID, "free")
    await world.pay_invoice(first_unpaid)
    record = await shop.subscriptions.observe(record.subscription_id)
    assert (record.status, await shop.plan()) == (SubscriptionStatus.ACTIVE, "starter")


async def test_a_first_invoice_that_stays_unpaid_expires(shop: Shop, world: CardWorld) -> None:
    record = await shop.open()
    await world.sandbox.pay(str(record.page_reference), "declined")
    record = await shop.subscriptions.observe(record.subscription_id)
    assert record.status is SubscriptionStatus.INCOMPLETE
    await world.move_clock(timedelta(hours=24))
    record = await shop.subscriptions.observe(record.subscription_id)
    assert (record.status, record.watched) == (SubscriptionStatus.EXPIRED, False)
    assert await shop.account() == Account()


async def test_what_is_done_in_the_portal_arrives(shop: Shop, world: CardWorld) -> None:
    async with running(shop):
        record = await shop.begin()
        data = {"cancel_at_period_end": "true"}
        await world.sandbox.api("POST", f"subscriptions/{record.reference}", data=data)
        await until(
            lambda: shop.subscriptions.known(record.subscription_id),
            lambda found: found.cancels,
            "the cancellation arrived",
        )
        known = (await shop.account()).status.find_subscription(record.subscription_id)
        assert known is not None
        assert known.cancels


async def test_time_outs_and_failures_of_the_provider_lose_nothing(shop: Shop, world: CardWorld) -> None:
    await world.sandbox.control("faults", {"error_500": 3})
    async with running(shop):
        record = await until(lambda: tried(shop), lambda found: found is not None, "a page is open")
        assert record is not None
        await world.sandbox.control("faults", {"refuse_500": 4})
        await world.sandbox.pay(str(record.page_reference))
        await shop.status(record, SubscriptionStatus.ACTIVE)
        await shop.has_credits(2_000)


async def tried(shop: Shop) -> SubscriptionRecord | None:
    try:
        return await shop.open()
    except Exception:  # noqa: BLE001 - the provider fails for a while
        return None


# --- what is not ours, or not right ----------------------------------------------------------------


async def foreign(shop: Shop, metadata: dict[str, str], **price: str) -> str:
    """A subscription that somebody made past us; its name at the provider."""
    api = shop.world.sandbox.api
    product = (await api("POST", "products", data={"name": "Foreign"})).json()["id"]
    made = {"product": product, "currency": "usd", "unit_amount": "900", "recurring[interval]": "month"}
    cents = (await api("POST", "prices", data={**made, **price})).json()["id"]
    data = {
        "mode": "subscription",
        "success_url": "https://shop.example/ok",
        "line_items[0][price]": cents,
        "line_items[0][quantity]": "1",
        **{f"subscription_data[metadata][{name}]": text for name, text in metadata.items()},
    }
    session = (await api("POST", "checkout/sessions", data=data)).json()["id"]
    await shop.world.sandbox.pay(session)
    return str((await api("GET", f"checkout/sessions/{session}")).json()["subscription"])


@pytest.mark.parametrize(
    "metadata", [{}, {"subscription_id": "theirs"}, {"subscription_id": "subscr_" + "0" * 26}]
)
async def test_a_subscription_of_nobody_here_changes_nothing(shop: Shop, metadata: dict[str, str]) -> None:
    reference = await foreign(shop, metadata)
    before = len(shop.log.log)
    with pytest.raises(UnknownReference):
        await shop.payments.deal_with("card", reference)
    assert len(shop.log.log) == before


async def test_a_plan_of_another_currency_is_refused_with_its_reason(shop: Shop) -> None:
    record = await shop.open()
    reference = await foreign(shop, {"subscription_id": record.subscription_id}, currency="eur")
    with pytest.raises(RailProtocolError, match="'eur'"):
        await shop.payments.deal_with("card", reference)
    assert await shop.account() == Account()


async def test_money_for_a_price_that_is_no_plan_becomes_plain_credits(shop: Shop) -> None:
    record = await shop.open()
    reference = await foreign(shop, {"subscription_id": record.subscription_id})
    await shop.payments.deal_with("card", reference)
    assert (await shop.credits(), await shop.plan()) == (900, "free")
    assert any(topup.amount_due.minor == 900 for topup in await shop.payments.topups_of(shop.account_id))
