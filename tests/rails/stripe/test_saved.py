"""The card rail's saved cards, on the stand-in over HTTP: the suite, and what only cards do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import stripe

from ledger.identifiers import AccountId, Identifiers
from ledger.money import USD, Money
from rails.contract import Notification, Order, PaymentRequestStatus, RailUnavailable
from rails.saved import MethodUnusable, SaveOrder, SavingState
from rails.stripe.rail import CardRail
from rails.stripe.saved import LAST_CHANCE
from rails.testing.memory_references import MemoryReferences
from rails.testing.saved_suite import SavedContract
from tests.rails.stripe.outside import CardWorld, Impossible, Inbox, Relay, Sandbox

CARDS = {"works": "4242", "declined": "0341", "asks": "3184"}


class CardSavedWorld(CardWorld):
    """People with test cards."""

    async def save(self, page: str, does: str) -> None:
        await self.sandbox.control(f"setup/{page}", {"last4": CARDS.get(does, does)})

    async def remove(self, method: str) -> None:
        await self.sandbox.api("POST", f"payment_methods/{method.partition('/')[2]}/detach")


@pytest.fixture
async def saved_world(sandbox: Sandbox, inbox: Inbox) -> AsyncIterator[CardSavedWorld]:
    relay = Relay(sandbox.port)
    await relay.start()
    world = CardSavedWorld(sandbox, relay, inbox)
    yield world
    await world.calm()
    await relay.stop()


@pytest.fixture
async def rail(saved_world: CardSavedWorld) -> AsyncIterator[CardRail]:
    rail = await saved_world.start(MemoryReferences(), deadline_seconds=30)
    yield rail
    await rail.close()


class TestCardSaved(SavedContract):
    """On the stand-in."""


def an_order(world: CardSavedWorld, ids: Identifiers, minutes: int = 60) -> Order:
    return Order(
        payment_id=ids.payment(),
        account_id=AccountId(ids.new("acct")),
        ordinal=1,
        amount_due=Money(500, USD),
        description="500 images",
        expires_at=world.clock() + timedelta(minutes=minutes),
        return_url="https://llamasketch.test/topups/x",
    )


async def saved(rail: CardRail, world: CardSavedWorld, card: str) -> str:
    ids = Identifiers(world.clock)
    order = SaveOrder(
        saving_id=ids.new("saving"),
        account_id=ids.account(),
        expires_at=world.clock() + timedelta(hours=1),
        return_url="https://llamasketch.test/account",
    )
    page = await rail.save_method(order)
    await world.save(page.reference, card)
    found = await rail.observe_saving(page.reference)
    assert found.method is not None
    assert found.expires_at is not None
    return found.method


async def test_a_card_that_asked_when_it_was_saved_works_without_its_owner(
    rail: CardRail, saved_world: CardSavedWorld
) -> None:
    ids = Identifiers(saved_world.clock)
    method = await saved(rail, saved_world, "3155")
    charged = await rail.charge(an_order(saved_world, ids), method)
    assert (await rail.observe(charged.reference)).status is PaymentRequestStatus.CLOSED


@pytest.mark.parametrize(("card", "code"), [("9995", "insufficient_funds"), ("0069", "expired_card")])
async def test_why_a_card_was_declined_is_said(
    rail: CardRail, saved_world: CardSavedWorld, card: str, code: str
) -> None:
    ids = Identifiers(saved_world.clock)
    charged = await rail.charge(an_order(saved_world, ids), await saved(rail, saved_world, card))
    seen = await rail.observe(charged.reference)
    assert (seen.status, seen.decline_code) == (PaymentRequestStatus.DECLINED, code)


async def test_a_charge_whose_answer_was_lost_is_found_under_its_key(
    rail: CardRail, saved_world: CardSavedWorld, sdk: stripe.StripeClient
) -> None:
    ids, method = Identifiers(saved_world.clock), await saved(rail, saved_world, "works")
    order = an_order(saved_world, ids)
    hasty = await saved_world.start(MemoryReferences(), deadline_seconds=1)
    await saved_world.sandbox.control("faults", {"timeout_after_commit": 1})
    with pytest.raises(RailUnavailable):
        await hasty.charge(order, method)
    await hasty.close()
    await saved_world.calm()
    charged = await rail.charge(order, method)
    page = await sdk.v1.payment_intents.list_async({"customer": method.partition("/")[0]})
    assert [intent.id for intent in page.data] == [charged.reference]


async def test_a_failure_that_is_kept_under_the_key_charges_nobody_and_lapses(
    rail: CardRail, saved_world: CardSavedWorld
) -> None:
    ids, method = Identifiers(saved_world.clock), await saved(rail, saved_world, "works")
    order = an_order(saved_world, ids)
    await saved_world.sandbox.control("faults", {"error_500": 1})
    for _ in range(3):
        with pytest.raises(RailUnavailable):
            await rail.charge(order, method)
    assert await rail._find_charge(order, method.partition("/")[0]) is None


async def test_with_the_key_of_another_account_no_card_is_called_gone(
    rail: CardRail, saved_world: CardSavedWorld
) -> None:
    method = await saved(rail, saved_world, "works")
    strange = f"cus_of_another_account/{method.partition('/')[2]}x"
    with pytest.raises(RailUnavailable, match="another account"):
        await rail.observe_method(strange)
    with pytest.raises(RailUnavailable, match="another account"):
        await rail.charge(an_order(saved_world, Identifiers(saved_world.clock)), strange)
    await saved_world.remove(method)
    assert (await rail.observe_method(method)).state is SavingState.GONE
    with pytest.raises(MethodUnusable):
        await rail.charge(an_order(saved_world, Identifiers(saved_world.clock)), method)


async def test_shortly_before_its_end_no_charge_begins(rail: CardRail, saved_world: CardSavedWorld) -> None:
    ids, method = Identifiers(saved_world.clock), await saved(rail, saved_world, "works")
    order = replace(an_order(saved_world, ids), expires_at=saved_world.clock() + LAST_CHANCE)
    with pytest.raises(RailUnavailable):
        await rail.charge(order, method)


async def test_messages_about_a_charge_and_its_dispute_name_the_charge_itself(
    rail: CardRail, saved_world: CardSavedWorld, inbox: Inbox
) -> None:
    ids, method = Identifiers(saved_world.clock), await saved(rail, saved_world, "works")
    reference = (await rail.charge(an_order(saved_world, ids), method)).reference
    message = await inbox.message("payment_intent.succeeded", reference)
    [found] = rail.verify_notification(message.headers, message.body)
    assert found.reference == reference
    await saved_world.sandbox.control("dispute", {"payment_intent": reference})
    dispute = await inbox.message("charge.dispute.created", reference)
    other = await saved_world.start(MemoryReferences(), deadline_seconds=30)
    later = await _first(other, dispute.event["id"])
    assert later.reference == reference
    await other.close()


async def _first(rail: CardRail, event_id: str) -> Notification:
    async for notification in rail.listen(None):
        if notification.notification_id == event_id:
            return notification
    raise AssertionError("it was never listed")


async def test_a_page_that_was_left_is_closed_in_time(rail: CardRail, saved_world: CardSavedWorld) -> None:
    ids = Identifiers(saved_world.clock)
    order = SaveOrder(
        saving_id=ids.new("saving"),
        account_id=ids.account(),
        expires_at=saved_world.clock() + timedelta(minutes=40),
        return_url="https://llamasketch.test/account",
    )
    page = await rail.save_method(order)
    await saved_world.sandbox.api("POST", f"checkout/sessions/{page.reference}/expire")
    assert (await rail.observe_saving(page.reference)).state is SavingState.CLOSED
    with pytest.raises(Impossible):
        await saved_world.save(page.reference, "works")


async def test_the_stand_in_refuses_what_stripe_refuses(
    rail: CardRail, saved_world: CardSavedWorld, sdk: stripe.StripeClient
) -> None:
    method = await saved(rail, saved_world, "works")
    customer, _, card = method.partition("/")
    asked = {"amount": 500, "currency": "usd", "customer": customer, "payment_method": card}
    for missing in ({"confirm": True}, {"confirm": True, "off_session": True, "amount": 10}):
        with pytest.raises(stripe.InvalidRequestError):
            await sdk.v1.payment_intents.create_async({**asked, **missing})  # type: ignore[arg-type]
    other = await sdk.v1.customers.create_async({})
    stolen = {**asked, "customer": other.id, "confirm": True, "off_session": True}
    with pytest.raises(stripe.InvalidRequestError):
        await sdk.v1.payment_intents.create_async(stolen)  # type: ignore[arg-type]
