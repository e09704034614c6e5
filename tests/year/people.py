"""What customers, their banks and people at the dashboard do: drawn by chance, and always possible at Stripe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout

from ledger.errors import LedgerError, Refusal
from ledger.identifiers import AccountId
from ledger.plans import PACKS
from rails.contract import RailError
from rails.domain.purchases import PackSold
from rails.domain.receipts import ReceiptStatus
from rails.domain.topup import payment_of
from rails.payments.refunds import RefundAsked
from rails.recurring import Offer, SubscriptionStatus
from rails.subscriptions.record import SubscriptionRecord
from rails.testing.worlds import Impossible
from tests.year.world import CODES, Year

PLANS = ("starter", "pro", "unlimited")
CARDS = ("4242", "4242", "0341", "3184")
"""Two work, one is declined, one wants 3-D Secure."""
RETURN_URL = "https://llamasketch.test/back"
Act = Callable[[Year, "Person"], Awaitable[None]]


@dataclass
class Person:
    """A customer."""

    account_id: str
    joins: int
    """In which step."""
    disputed: list[str] = field(default_factory=list)
    """Payment intents with a dispute that has not ended."""


async def subscribe(year: Year, person: Person) -> None:
    """Open a page, and pay there, or not."""
    if await _running(year, person):
        return
    offer = Offer(plan=year.randomness.choice(PLANS), length="month")
    record = await year.services.payments.subscriptions.subscribe(
        person.account_id, "card", offer, return_url=RETURN_URL
    )
    outcome = year.randomness.choices(("paid", "declined", "abandoned"), (85, 8, 7))[0]
    assert record.page_reference is not None
    await _type_a_code(year, record.page_reference)
    await year.sandbox.pay(record.page_reference, outcome)


async def buy_a_pack(year: Year, person: Person) -> None:
    """Pay once, for a pack or a pass; some are declined and try again, some leave."""
    pack = year.randomness.choice(list(PACKS.values()))
    topup = await year.services.payments.payments.open_topup(
        person.account_id, "card", purchase=PackSold(pack=pack), return_url=RETURN_URL
    )
    known = await year.services.payments.payments.store.reference(topup.payment_id)
    if known is None or known.reference is None:
        return
    await _type_a_code(year, known.reference)
    for outcome in year.randomness.choice(
        (("paid",), ("declined", "paid"), ("challenge", "paid"), ("abandoned",))
    ):
        await year.sandbox.pay(known.reference, outcome)


async def _type_a_code(year: Year, page: str) -> None:
    """Some people have a promotion code; not every one counts for what they buy."""
    if year.randomness.random() < 0.4:
        with suppress(Impossible):
            code = {"code": year.randomness.choice(CODES)}
            await year.sandbox.control(f"checkout/{page}/promotion", code)


async def change_plan(year: Year, person: Person) -> None:
    """To any other one, up or down."""
    record = await _running(year, person)
    if record is None:
        return
    subscriptions = year.services.payments.subscriptions
    offer = Offer(plan=year.randomness.choice(PLANS), length=record.length)
    shown, _, _ = await subscriptions.preview(record.subscription_id, offer)
    key = year.services.base.identifiers.command()
    await subscriptions.change(record.subscription_id, offer, at=shown.at, key=key)


async def cancel_or_resume(year: Year, person: Person) -> None:
    """End with the period, or think better of it."""
    record = await _running(year, person)
    if record is None:
        return
    subscriptions = year.services.payments.subscriptions
    act = subscriptions.resume if record.cancels or record.next_plan else subscriptions.cancel
    await act(record.subscription_id)


async def change_card(year: Year, person: Person) -> None:
    """To one that works, or not."""
    record = await _running(year, person)
    if record is not None and record.reference is not None:
        card = {"last4": year.randomness.choice(CARDS)}
        await year.sandbox.control(f"subscriptions/{record.reference}/card", card)


async def pay_what_is_open(year: Year, person: Person) -> None:
    """On the invoice's own page."""
    record = await _running(year, person)
    if record is None or record.reference is None:
        return
    for invoice in await _listed(year, f"invoices?subscription={record.reference}&status=open&limit=1"):
        await year.sandbox.control(f"invoices/{invoice['id']}/pay", {"outcome": "paid"})


async def spend(year: Year, person: Person) -> None:
    """Some of what there is."""
    base, ledger = year.services.base, year.services.ledger.ledger
    account = AccountId(person.account_id)
    available = (await ledger.account(account)).available
    if available <= 0:
        return
    wanted = year.randomness.randint(1, available)
    hold = await ledger.hold(
        account, wanted, job_id=base.identifiers.job(), deadline=base.clock() + timedelta(minutes=5)
    )
    if year.randomness.random() < 0.1:
        await ledger.release(account, hold)
    else:
        await ledger.capture(account, hold)


async def ask_for_money_back(year: Year, person: Person) -> None:
    """Of what is unspent of one payment, all or a part."""
    money = await _paid(year, person)
    if not money:
        return
    payment_id, _ = year.randomness.choice(money)
    credits_ = None if year.randomness.random() < 0.5 else year.randomness.randint(1, 300)
    asked = RefundAsked(payment_id=payment_id, credits=credits_, reason="a customer asked")
    await year.services.payments.payments.refunds.request(person.account_id, asked, actor=person.account_id)


async def refund_at_the_dashboard(year: Year, person: Person) -> None:
    """All of a payment, or a part of it, beside us."""
    money = await _paid(year, person)
    if money:
        _, intent = year.randomness.choice(money)
        more = {} if year.randomness.random() < 0.5 else {"amount": year.randomness.randint(1, 300)}
        await year.sandbox.control("refund", {"payment_intent": intent, **more})


async def let_a_refund_bounce(year: Year, person: Person) -> None:
    """One that was sent comes back."""
    money = await _paid(year, person)
    for _, intent in money:
        found = await _listed(year, f"refunds?payment_intent={intent}")
        sent = [refund["id"] for refund in found if refund["status"] == "succeeded"]
        if sent:
            await year.sandbox.control("refund", {"refund": sent[0], "status": "failed"})
            return


async def dispute(year: Year, person: Person) -> None:
    """The bank withdraws what is left of a payment."""
    money = await _paid(year, person)
    if money:
        _, intent = year.randomness.choice(money)
        await year.sandbox.control("dispute", {"payment_intent": intent})
        person.disputed.append(intent)


async def decide_a_dispute(year: Year, person: Person) -> None:
    """For us or for the customer."""
    if person.disputed:
        status = year.randomness.choice(("won", "lost"))
        await year.sandbox.control("dispute", {"payment_intent": person.disputed.pop(), "status": status})


ACTS: tuple[tuple[Act, float], ...] = (
    (subscribe, 0.15),
    (buy_a_pack, 0.06),
    (change_plan, 0.05),
    (cancel_or_resume, 0.03),
    (change_card, 0.04),
    (pay_what_is_open, 0.2),
    (spend, 0.3),
    (ask_for_money_back, 0.02),
    (refund_at_the_dashboard, 0.01),
    (let_a_refund_bounce, 0.01),
    (dispute, 0.012),
    (decide_a_dispute, 0.2),
)
"""What somebody does within a step, and how likely."""


async def act(year: Year, person: Person, done: Counter[str]) -> None:
    """What one person does in one step. What is refused, or fails by a fault, is tried another day."""
    for work, chance in ACTS:
        if year.randomness.random() < chance:
            try:
                await work(year, person)
            except (Refusal, RailError, LedgerError, Impossible, PoolTimeout) as error:
                done[f"{work.__name__}: {type(error).__name__}"] += 1
            else:
                done[work.__name__] += 1


async def _listed(year: Year, path: str) -> list[dict[str, Any]]:
    """What the dashboard shows; nothing while a fault keeps it from being shown."""
    found: list[dict[str, Any]] = (await year.sandbox.api("GET", path)).json().get("data", [])
    return found


async def _running(year: Year, person: Person) -> SubscriptionRecord | None:
    over = (SubscriptionStatus.ENDED, SubscriptionStatus.EXPIRED, SubscriptionStatus.OPENING)
    found = await year.services.payments.subscriptions.of_account(person.account_id)
    return next((record for record in found if record.status not in over), None)


async def _paid(year: Year, person: Person) -> list[tuple[str, str]]:
    """Payments with money that is ours, and the payment intents that brought it."""
    rows = await year.services.payments.overview.search(accounts=[person.account_id], limit=200)
    return [
        (row["payment_id"], receipt.money_ref.removeprefix("stripe:"))
        for row in rows
        for receipt in payment_of(row).receipts.values()
        if receipt.status is ReceiptStatus.SETTLED
    ]
