"""Whatever a payment provider, a node or a price feed answers: it is read, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from hypothesis import strategies as st
from lndgrpc.compiled import lightning_pb2 as ln

from ledger.identifiers import AccountId, PaymentId
from ledger.money import USD, Money
from rails.contract import (
    FundsReceipt,
    NotificationRejected,
    Order,
    RailProtocolError,
    RailUnavailable,
    RejectionReason,
)
from rails.lightning.invoices import from_wire
from rails.lightning.listening import Position
from rails.lightning.observing import observe
from rails.liquid import cursor
from rails.liquid.elementsd import ElementsdChain, RpcFault
from rails.liquid.esplora import EsploraChain
from rails.liquid.integrity import is_transaction
from rails.liquid.unblind import Output, outputs, unblind
from rails.quotes.feeds import KINDS, FeedFailed, HttpFeed
from rails.recurring import ChangeRefused, Offer, SubscriptionOrder
from rails.stripe.books import read_contents, read_movement
from rails.stripe.calls import API_VERSION
from rails.stripe.rail import CardCalls, CardRail
from rails.stripe.reading import read_charged, read_intent, read_refund, read_session, refund_key
from rails.stripe.reading_subscriptions import (
    intents_of,
    prices_in,
    read_invoice,
    read_managed,
    read_offer,
    read_session_of_subscription,
    read_subscription,
)
from rails.stripe.transport import HttpxTransport
from rails.stripe.webhooks import WebhookRules, open_message
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import TEXTS, Question, bodies, rpc_answer, server, spoiled

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = "whsec_fuzz"
RULES = WebhookRules(secrets=("whsec_old", SECRET), api_version=API_VERSION, livemode=False)
PAYMENT = "pay_01jd3z9k4w7q8r5s6t7v8x9y0z"
OURS = "subscr_01jd3z9k4w7q8r5s6t7v8x9y0z"
NAMED = (RailProtocolError, RailUnavailable)
HASH = "ab" * 32


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def answered(runner: asyncio.Runner, question: Question, *named: type[Exception]) -> Any:
    """The answer; None if it was refused by one of these names."""

    async def ask() -> Any:
        with contextlib.suppress(*named):
            return await question()

    return runner.run(ask())


# --- Stripe ------------------------------------------------------------------------------------------


def event(kind: str, **value: Any) -> dict[str, Any]:
    about = {"metadata": {"payment_id": PAYMENT}, **value}
    facts = {"id": "evt_1", "object": "event", "api_version": API_VERSION, "livemode": False}
    return {**facts, "type": kind, "data": {"object": about}}


EVENTS = (
    event("checkout.session.completed", object="checkout.session", id="cs_1"),
    event("payment_intent.payment_failed", object="payment_intent", id="pi_1"),
    event("charge.refunded", object="charge", id="ch_1", payment_intent="pi_1"),
    event("charge.dispute.created", object="dispute", id="dp_1", payment_intent="pi_1"),
    event(
        "invoice.paid",
        object="invoice",
        id="in_1",
        parent={"subscription_details": {"subscription": "sub_1", "metadata": {"subscription_id": OURS}}},
    ),
    event(
        "customer.subscription.updated",
        object="subscription",
        id="sub_1",
        metadata={"subscription_id": OURS},
    ),
)


class Clock:
    def __call__(self) -> datetime:
        return NOW


def card(body: bytes = b"{}", status: int = 200) -> CardRail:
    transport = HttpxTransport(server(body, status))
    client = stripe.StripeClient(
        "sk_test_x", base_addresses={"api": "http://node.test"}, http_client=transport, max_network_retries=0
    )
    calls = CardCalls(client, transport, deadline_seconds=5)
    return CardRail(calls, Clock(), RULES, poll_seconds=0)


def signature(body: bytes, at: int) -> str:
    text = body.decode(errors="replace")
    return str(stripe.WebhookSignature.generate_signature_header(text, SECRET, at))


@fuzzed(body=bodies(*EVENTS), age=st.sampled_from([0, 0, 0, 299, -299, 301, -301, -86_400, 10**9]))
def test_a_signed_webhook_message_is_read_or_rejected(body: bytes, age: int) -> None:
    header = signature(body, int(NOW.timestamp()) - age)
    try:
        found = card().verify_notification({"stripe-signature": header}, body)
    except NotificationRejected:
        return
    assert abs(age) <= 300
    for notification in found:
        assert notification.notification_id is not None
        assert notification.notification_id.isprintable()


@fuzzed(header=st.text(max_size=60) | TEXTS | st.from_regex(r"t=\d+,v1=[0-9a-fé]*"))
def test_a_header_that_nobody_signed_is_rejected_for_its_signature(header: str) -> None:
    with pytest.raises(NotificationRejected) as refused:
        open_message({"stripe-signature": header}, json.dumps(EVENTS[0]).encode(), RULES, NOW)
    assert refused.value.reason is RejectionReason.SIGNATURE


REFUND = {
    "id": "re_1",
    "object": "refund",
    "amount": 5,
    "status": "succeeded",
    "metadata": {"refund_key": "k"},
}
DISPUTE = {"id": "dp_1", "amount": 5, "status": "lost", "balance_transactions": [{"amount": -5, "fee": 3}]}
CHARGE = {
    "id": "ch_1",
    "created": 1_790_000_000,
    "disputed": False,
    "balance_transaction": {"currency": "usd", "fee": 30},
    "refunds": {"data": [REFUND], "has_more": False},
}
INTENT = {
    "id": "pi_1",
    "status": "succeeded",
    "currency": "usd",
    "amount": 500,
    "amount_received": 500,
    "created": 1_790_000_000,
    "last_payment_error": None,
    "latest_charge": CHARGE,
}
SESSION = {"id": "cs_1", "object": "checkout.session", "status": "complete", "payment_intent": INTENT}
DECLINED = {
    "id": "cs_2",
    "object": "checkout.session",
    "status": "open",
    "payment_intent": {**INTENT, "status": "requires_payment_method", "last_payment_error": {"code": "x"}},
}


@fuzzed(session=spoiled(SESSION, DECLINED), refund=spoiled(REFUND), dispute=spoiled(DISPUTE))
def test_a_checkout_session_is_understood_or_refused(session: Any, refund: Any, dispute: Any) -> None:
    for read in (read_charged, read_intent):
        with contextlib.suppress(RailProtocolError):
            read(session)
    with contextlib.suppress(RailProtocolError):
        for receipt in read_session(session, [refund], [dispute]).receipts:
            is_whole(receipt)
    if isinstance(refund, dict):
        refund_key(refund)
        read_refund(refund)


def is_whole(receipt: FundsReceipt) -> None:
    """What ends in the books is an amount, and what ends in a table is a name."""
    assert type(receipt.amount.minor) is int
    assert receipt.amount.minor >= 0
    assert receipt.money_ref.isprintable()


PAGE = {"object": "list", "url": "/v1/x", "has_more": False, "data": [{**EVENTS[0]}, {**SESSION}]}


FAULT = {"error": {"type": "idempotency_error", "code": "x", "message": "m"}}
ORDER = Order(
    payment_id=PaymentId(PAYMENT),
    account_id=AccountId("acct_01jd3z9k4w7q8r5s6t7v8x9y0z"),
    ordinal=1,
    amount_due=Money(500, USD),
    description="credits",
    expires_at=NOW,
    return_url="http://llamasketch.test",
)


@fuzzed(body=bodies(SESSION, PAGE, FAULT), status=st.sampled_from([200, 200, 200, 400, 404, 500]))
def test_the_card_rail_understands_answers_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail = card(body, status)
    answered(loop, lambda: rail.open(ORDER), *NAMED)
    answered(loop, lambda: rail._calls.refunds("pi_1"), *NAMED)
    answered(loop, lambda: rail._events_after(None), *NAMED)
    answered(loop, lambda: rail.observe("cs_1"), *NAMED)
    answered(loop, rail.health, *NAMED)
    answered(loop, lambda: rail._find_session(PAYMENT), *NAMED)
    answered(loop, lambda: _first(rail.listen("evt_0")), *NAMED)


TRANSACTION = {
    "id": "txn_1",
    "object": "balance_transaction",
    "type": "charge",
    "amount": 500,
    "fee": 45,
    "net": 455,
    "currency": "usd",
    "created": 1_790_000_000,
    "source": {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"},
}
PAYOUT = {
    **TRANSACTION,
    "type": "payout",
    "amount": -455,
    "fee": 0,
    "source": {"id": "po_1", "object": "payout", "automatic": True},
}
BALANCE = {
    "object": "balance",
    "available": [{"amount": 5, "currency": "usd"}],
    "pending": [{"amount": -3, "currency": "eur"}],
}


@fuzzed(transaction=spoiled(TRANSACTION, PAYOUT), part=spoiled(TRANSACTION))
def test_a_balance_transaction_is_understood_or_refused(transaction: Any, part: Any) -> None:
    with contextlib.suppress(RailProtocolError):
        movement = read_movement(transaction)
        assert type(movement.amount.minor) is int
        assert movement.movement_ref.isprintable()
        assert (movement.money_ref or "x").isprintable()
    with contextlib.suppress(RailProtocolError):
        whole = read_contents(read_movement(PAYOUT), [part])
        assert whole.consists_of is not None
        assert type(whole.consists_of.minor) is int


@fuzzed(
    body=bodies({**PAGE, "data": [TRANSACTION]}, {**PAGE, "data": [PAYOUT]}, BALANCE, FAULT),
    status=st.sampled_from([200, 200, 200, 400, 404, 500]),
)
def test_the_card_rail_understands_its_books_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail = card(body, status)
    answered(loop, lambda: rail.movements(None, NOW), *NAMED)
    answered(loop, lambda: rail.movements("x", NOW), *NAMED)
    answered(loop, rail.holdings, *NAMED)


PRICE = {
    "id": "price_1",
    "metadata": {"plan": "starter"},
    "recurring": {"interval": "month", "interval_count": 1},
}
LINE = {
    "amount": 800,
    "period": {"start": 1_790_000_000, "end": 1_792_600_000},
    "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}},
    "parent": {"subscription_item_details": {"proration": False}},
}
INVOICE = {
    "id": "in_1",
    "object": "invoice",
    "status": "open",
    "currency": "usd",
    "amount_due": 800,
    "created": 1_790_000_000,
    "next_payment_attempt": 1_790_000_500,
    "hosted_invoice_url": "https://invoice.test/1",
    "lines": {"data": [LINE]},
    "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"subscription_id": OURS}}},
    "payments": {"data": [{"payment": {"type": "payment_intent", "payment_intent": "pi_1"}}]},
}
ITEM = {
    "id": "si_1",
    "price": PRICE,
    "current_period_start": 1_790_000_000,
    "current_period_end": 1_792_600_000,
}
PHASE = {"start_date": 1_792_600_000, "end_date": 1_795_200_000, "items": [{"price": "price_1"}]}
SUBSCRIPTION = {
    "id": "sub_1",
    "object": "subscription",
    "status": "active",
    "customer": "cus_1",
    "metadata": {"subscription_id": OURS},
    "items": {"data": [ITEM]},
    "schedule": {"id": "sub_sched_1", "phases": [PHASE], "current_phase": {"start_date": 1_790_000_000}},
    "pending_update": {"subscription_items": [ITEM]},
    "pause_collection": None,
    "cancel_at_period_end": False,
    "cancel_at": None,
}
PAGE_TO_SUBSCRIBE = {
    "id": "cs_3",
    "object": "checkout.session",
    "status": "open",
    "subscription": None,
    "metadata": {"subscription_id": OURS},
}


@fuzzed(
    subscription=spoiled(SUBSCRIPTION),
    invoice=spoiled(INVOICE),
    session=spoiled(PAGE_TO_SUBSCRIBE),
    price=spoiled(PRICE),
)
def test_a_subscription_is_understood_or_refused(
    subscription: Any, invoice: Any, session: Any, price: Any
) -> None:
    offers = {"price_1": Offer(plan="starter", length="month")}
    for read in (
        lambda: read_offer(price),
        lambda: prices_in(subscription, [invoice]),
        lambda: read_managed(subscription),
        lambda: intents_of(invoice),
        lambda: read_session_of_subscription(session),
        lambda: read_subscription(subscription, [invoice], offers),
    ):
        with contextlib.suppress(RailProtocolError):
            read()
    with contextlib.suppress(RailProtocolError):
        for receipt in read_invoice(invoice, [(INTENT, [REFUND], [DISPUTE])]).receipts:
            is_whole(receipt)
    with contextlib.suppress(RailProtocolError):
        seen = read_subscription(subscription, [invoice], offers)
        for each in seen.invoices if seen else ():
            assert type(each.due.minor) is int
            assert each.due.minor >= 0
            assert each.reference.isprintable()


@fuzzed(
    body=bodies(SUBSCRIPTION, INVOICE, PAGE_TO_SUBSCRIBE, PRICE, {**PAGE, "data": [PRICE]}, FAULT),
    status=st.sampled_from([200, 200, 200, 400, 404, 500]),
)
def test_the_card_rail_understands_answers_about_subscriptions_or_refuses_them(
    loop: asyncio.Runner, body: bytes, status: int
) -> None:
    rail, offer = card(body, status), Offer(plan="starter", length="month")
    order = SubscriptionOrder(
        subscription_id=OURS,
        account_id=ORDER.account_id,
        offer=offer,
        expires_at=NOW,
        return_url="http://llamasketch.test",
    )
    named = (*NAMED, ChangeRefused)
    answered(loop, lambda: rail.subscribe(order), *named)
    for reference in ("cs_3", "sub_1"):
        answered(loop, lambda name=reference: rail.observe_subscription(name), *named)
    answered(loop, lambda: rail.observe("in_1"), *named)
    answered(loop, lambda: rail.invoice_paid_by("pi_1"), *named)
    answered(loop, lambda: rail._offer("price_2"), *named)
    answered(loop, lambda: rail.close_subscribing("cs_3"), *named)
    answered(loop, lambda: rail.preview_change("sub_1", offer, now=True), *named)
    for at in (NOW, None):
        answered(loop, lambda at=at: rail.change_plan("sub_1", offer, at=at, key="k"), *named)
    answered(loop, lambda: rail.cancel_subscription("sub_1"), *named)
    answered(loop, lambda: rail.resume_subscription("sub_1"), *named)
    answered(loop, lambda: rail.portal("sub_1", "http://llamasketch.test"), *named)
    answered(loop, lambda: rail.refund("in_1", Money(5, USD), None, "k"), *named)


async def _first(notifications: AsyncIterator[Any]) -> Any:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            async for notification in notifications:
                return notification
    return None


# --- Lightning ---------------------------------------------------------------------------------------


@fuzzed(
    state=st.integers(-(2**31), 2**31 - 1) | st.sampled_from(range(5)),
    numbers=st.lists(
        st.sampled_from([0, 1, -1, 1_790_000_000, 2**40, 2**63 - 1, -(2**63)]), min_size=6, max_size=6
    ),
    htlc_state=st.integers(-1, 4),
    digest=st.binary(max_size=40),
)
def test_an_invoice_of_a_node_is_understood_or_refused(
    state: int, numbers: list[int], htlc_state: int, digest: bytes
) -> None:
    value, paid, created, settled, amount, accepted = numbers
    htlc = ln.InvoiceHTLC(state=htlc_state, amt_msat=abs(amount), accept_time=accepted, expiry_height=7)
    message = ln.Invoice(
        r_hash=digest,
        state=state,
        value_msat=value,
        amt_paid_msat=paid,
        creation_date=created,
        settle_date=settled,
        htlcs=[htlc],
    )
    with contextlib.suppress(RailProtocolError):
        for receipt in observe(from_wire(message)).receipts:
            is_whole(receipt)


@fuzzed(
    text=st.text(max_size=30)
    | TEXTS
    | st.from_regex(r"[0-9]{1,30}:[0-9]{1,25}")
    | st.just("9" * 5_000 + ":1")
)
def test_a_cursor_of_an_earlier_day_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RailProtocolError):
        assert Position.parse(text).add_index < 2**64
    cursor.read(text)


CARRIED = cursor.Carried(HASH, 0, "51", HASH, 5, NOW)


@fuzzed(body=bodies(json.loads(cursor.Cursor(5, HASH, (CARRIED,)).text())))
def test_a_kept_place_in_the_chain_is_read_or_forgotten(body: bytes) -> None:
    found = cursor.read(body.decode(errors="replace"))
    for carried in () if found is None else found.carried:
        carried.sighting()


# --- Liquid ------------------------------------------------------------------------------------------

BLOCK = {"hash": HASH, "height": 7, "time": 1_790_000_000, "tx": [HASH], "merkleroot": HASH}
SCAN = {"unspents": [{"txid": HASH, "vout": 0, "scriptPubKey": "51", "height": 5}]}
INFO = {
    "chain": "liquidv1", "blocks": 7, "bestblockhash": HASH, "initialblockdownload": False, "time": 1, "loaded": True,
}  # fmt: skip


@fuzzed(
    result=spoiled(BLOCK, SCAN, INFO, [HASH], HASH, 7, "00ff"),
    junk=st.none() | bodies([{"id": 1, "error": None}]),
)
def test_an_answer_of_elementsd_is_understood_or_refused(
    loop: asyncio.Runner, result: Any, junk: bytes | None
) -> None:
    chain = ElementsdChain(server(junk if junk is not None else lambda request: rpc_answer(request, result)))
    questions: list[Question] = [
        chain.pulse,
        chain.tip_time,
        lambda: chain.block_hash(7),
        lambda: chain.block(HASH),
        lambda: chain.transactions([HASH], None),
        lambda: chain.seen_at(HASH),
        lambda: chain.unspent([b"Q"]),
    ]
    for question in questions:
        answered(loop, question, *NAMED, RpcFault)


ESPLORA_BLOCK = {"id": HASH, "height": 7, "timestamp": 1_790_000_000, "merkle_root": HASH}
UTXO = [{"txid": HASH, "vout": 0, "status": {"confirmed": True, "block_height": 5}}]


@fuzzed(body=bodies(ESPLORA_BLOCK, UTXO, [HASH], 7) | st.just(HASH.encode()))
def test_an_answer_of_esplora_is_understood_or_refused(loop: asyncio.Runner, body: bytes) -> None:
    chain = EsploraChain(server(body))
    questions: list[Question] = [
        chain.pulse,
        chain.tip_time,
        lambda: chain.block_hash(7),
        lambda: chain.block(HASH),
        lambda: chain.unspent([b"Q"]),
    ]
    for question in questions:
        answered(loop, question, *NAMED)


@fuzzed(raw=st.binary(max_size=120), parts=st.lists(st.binary(max_size=70), min_size=5, max_size=5))
def test_bytes_of_a_transaction_are_read_or_refused(raw: bytes, parts: list[bytes]) -> None:
    for read in (lambda: list(outputs(raw)), lambda: is_transaction(raw, HASH)):
        with contextlib.suppress(ValueError):  # as documented
            read()
    script, asset, value, nonce, range_proof = parts
    unblind(Output(0, script, asset, value, nonce, range_proof), b"\x01" * 32)


# --- price feeds -------------------------------------------------------------------------------------

PRICES = {
    "coinbase": {"data": {"amount": "97123.45", "currency": "USD"}},
    "kraken": {"error": [], "result": {"XXBTZUSD": {"c": ["97123.4", "0.1"]}}},
    "bitstamp": {"last": "97123"},
}


@fuzzed(name=st.sampled_from(sorted(KINDS)), data=st.data())
def test_a_price_is_exact_or_refused(loop: asyncio.Runner, name: str, data: st.DataObject) -> None:
    feed = HttpFeed(name, "http://node.test/x", server(data.draw(bodies(PRICES[name]))))
    price = answered(loop, feed.read, FeedFailed)
    assert price is None or price > 0
