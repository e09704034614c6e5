"""The card rail's saved cards: Checkout in setup mode, and charges without the payer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ledger.clock import Clock
from ledger.money import USD
from rails.contract import Instructions, Observation, Order, RailProtocolError, RailUnavailable
from rails.reading import understood
from rails.saved import ChargeLapsed, MethodUnusable, SavedMethod, SaveOrder, SavingState
from rails.stripe.amounts import amount_of, name_of
from rails.stripe.breakdowns import BEHAVIOR
from rails.stripe.calls import FailureReplayed, Json, KeyReused, Refused
from rails.stripe.checkout import lifetime, open_session
from rails.stripe.metering import CardMetering
from rails.stripe.reading import read_intent_alone
from rails.stripe.saved_calls import SavedCalls
from rails.stripe.terms import CheckoutTerms
from rails.stripe.webhooks import CHARGED, is_charged, our_payment_id

LAST_CHANCE = timedelta(minutes=5)
"""So long before its order's end no charge begins any more: whoever looks for it afterwards finds it."""
LOOK_BACK = timedelta(hours=3)
"""Older than any order is when its charge is looked for."""


def is_charge(reference: str) -> bool:
    """Whether a reference names a payment intent that nobody opened a page for."""
    return reference.startswith("pi_")


class CardSaved(CardMetering):
    """See `rails.saved.SavedMethods`. A method is `<customer>/<payment method>`."""

    def __init__(self, calls: SavedCalls, clock: Clock, terms: CheckoutTerms) -> None:
        super().__init__(calls, clock, terms)
        self._saved = calls

    # --- saving --------------------------------------------------------------------------------

    async def save_method(self, order: SaveOrder) -> Instructions:
        """Open a Checkout session in setup mode; the idempotency key comes from our id."""
        try:
            customer = await self._saved.create_customer(order.account_id)
        except (KeyReused, Refused) as error:
            raise RailProtocolError("Stripe refuses to make a customer") from error
        params: Json = {
            "mode": "setup",
            "currency": "usd",
            "customer": customer,
            "client_reference_id": order.saving_id,
            "metadata": {"saving_id": order.saving_id},
            **lifetime(order.expires_at, self._clock(), order.return_url),
            **self._terms.of_saving(),
        }
        return await open_session(self._calls, params, f"save:{order.saving_id}")

    async def observe_saving(self, reference: str) -> SavedMethod:
        """The session, and the card that was saved on it."""
        try:
            session = await self._saved.setup_session(reference)
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not know this session: {refused.code}") from refused
        with understood("Stripe"):
            intent = session["setup_intent"]
            if intent is not None and intent["status"] == "succeeded":
                return read_method(intent["payment_method"])
            over = session["status"] != "open"
            return SavedMethod(state=SavingState.CLOSED if over else SavingState.OPEN)

    async def observe_method(self, method: str) -> SavedMethod:
        """The card, as its bank and its owner left it."""
        customer, _, card = method.partition("/")
        try:
            found = await self._saved.payment_method(card)
        except Refused:
            await self._require_known(customer)
            return SavedMethod(state=SavingState.GONE)
        with understood("Stripe"):
            return read_method(found)

    async def forget_method(self, method: str) -> None:
        """Detach the card from its customer."""
        try:
            await self._saved.detach(method.partition("/")[2])
        except Refused as refused:
            self._notes.info("card_not_attached", code=refused.code)

    # --- charging ------------------------------------------------------------------------------

    async def charge(self, order: Order, method: str) -> Instructions:
        """Create and confirm a payment intent off-session; the idempotency key comes from the payment id."""
        if order.amount_due.asset != USD or order.hold:
            raise ValueError("the card rail takes US dollars and cannot hold them")
        customer, _, card = method.partition("/")
        now = self._clock()
        if now >= order.expires_at:
            found = await self._find_charge(order, customer)
            if found is None:
                raise ChargeLapsed
            return _instructions_of(found)
        if now >= order.expires_at - LAST_CHANCE:
            raise RailUnavailable("it is too late to begin a charge, and too early to give it up")
        metadata = {"payment_id": order.payment_id, **CHARGED}
        params: Json = {
            "amount": order.amount_due.minor,
            "currency": "usd",
            "customer": customer,
            "payment_method": card,
            "confirm": True,
            "off_session": True,
            "description": order.description,
            "metadata": metadata,
        }
        try:
            if self._terms.taxed:
                params |= await self._taxed(order, card, metadata)
            intent: Json | None = await self._saved.create_charge(params, f"charge:{order.payment_id}")
        except Refused as refused:
            intent = refused.intent or await self._find_charge(order, customer)
            if intent is None:
                await self._require_known(customer)
                self._notes.warning("card_not_chargeable", code=refused.code)
                raise MethodUnusable from refused
        except (KeyReused, FailureReplayed):
            intent = await self._find_charge(order, customer)
        if intent is None:
            # Whether it repeats a failure or does not know itself: nothing else is charged in its place.
            raise RailUnavailable("Stripe fails to charge a card")
        return _instructions_of(intent)

    async def _require_known(self, customer: str) -> None:
        """We delete no customer: an account that has never had this one is not the account that we saved the card in."""
        if not await self._saved.knows_customer(customer):
            raise RailUnavailable("Stripe does not know a customer of ours: is the key another account's?")

    async def _taxed(self, order: Order, card: str, metadata: Json) -> Json:
        """What tax adds to a charge. Stripe computes it beforehand, by the address that was saved with the card.

        Whoever asks again gets the same computation, so that the charge is the same request, too.
        """
        method = await self._saved.payment_method(card)
        with understood("Stripe"):
            address = {name: part for name, part in method["billing_details"]["address"].items() if part}
        line = {
            "amount": order.amount_due.minor,
            "reference": order.payment_id,
            **self._terms.of_price(),
            **self._terms.of_product(),
        }
        params: Json = {
            "currency": "usd",
            "line_items": [line],
            "customer_details": {"address": address, "address_source": "billing"},
        }
        found = await self._saved.calculate_tax(params, f"tax:{order.payment_id}")
        with understood("Stripe"):
            tax = amount_of(found["tax_amount_exclusive"]) + amount_of(found["tax_amount_inclusive"])
            return {
                "amount": amount_of(found["amount_total"]),
                "amount_details": {"tax": {"total_tax_amount": tax}},
                # With this Stripe reports the tax by itself, and takes it back with a refund.
                "hooks": {"inputs": {"tax": {"calculation": name_of(found["id"])}}},
                "metadata": {**metadata, BEHAVIOR: self._terms.tax.value},
            }

    async def _find_charge(self, order: Order, customer: str) -> Json | None:
        since = int((order.expires_at - LOOK_BACK).timestamp())
        for intent in await self._saved.intents_since(customer, since):
            if our_payment_id(intent) == order.payment_id:
                return intent
        return None

    async def observe_charge(
        self, reference: str, remember: Callable[[str, str | None], None]
    ) -> Observation:
        """The money of a payment intent without a page, or why there is none."""
        try:
            charged = await self._charged(await self._calls.intent(reference))
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not know this payment: {refused.code}") from refused
        remember(reference, reference)
        return read_intent_alone(*charged)

    async def charge_of(self, intent: str) -> str | None:
        """The payment intent itself if it charged a saved card for us: nothing else names it."""
        try:
            found = await self._calls.intent(intent)
        except Refused:
            return None
        return intent if is_charged(found) else None

    async def cancel_charge(self, reference: str) -> None:
        """Close an unpaid payment intent, so that nothing comes of it any more."""
        try:
            await self._saved.cancel_intent(reference)
        except Refused as refused:
            self._notes.info("card_charge_not_open", code=refused.code)


def _instructions_of(intent: Json) -> Instructions:
    with understood("Stripe"):
        return Instructions(kind="charge", reference=name_of(intent["id"]))


def read_method(method: Json) -> SavedMethod:
    """A card of a customer's. Raises what `understood` translates."""
    customer, card = method["customer"], method["card"]
    if customer is None:
        return SavedMethod(state=SavingState.GONE)
    year, month = int(card["exp_year"]), int(card["exp_month"])
    over = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    brand, last4 = str(card["brand"]).capitalize()[:20], str(card["last4"])
    if not (len(last4) == 4 and last4.isdecimal() and brand.isprintable()):
        raise ValueError("not a card")
    return SavedMethod(
        state=SavingState.SAVED,
        method=f"{name_of(customer)}/{name_of(method['id'])}",
        label=f"{brand} •••• {last4}",
        expires_at=over,
    )
