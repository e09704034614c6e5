"""The calls that subscriptions need, each with a deadline, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rails.contract import RailProtocolError
from rails.stripe.calls import Json, StripeCalls

INVOICES_SEEN = 20
"""How many invoices of a subscription are looked at: the newest. Renewals are monthly, and we ask daily."""


class BillingCalls(StripeCalls):
    """Stripe, as far as subscriptions need it. All calls may raise `RailUnavailable` and `Refused`."""

    async def prices_of(self, *lookup_keys: str) -> Mapping[str, str]:
        """The prices that new subscribers pay, by their lookup keys, as far as there are any."""
        prices = self._client.v1.prices
        params = {"lookup_keys": list(lookup_keys), "active": True, "limit": len(lookup_keys)}
        page = await self._list(prices.list_async(params))  # type: ignore[arg-type]
        return {str(price.get("lookup_key")): str(price["id"]) for price in page["data"]}

    async def price(self, price_id: str) -> Json:
        """One price, also one that is sold no more."""
        return await self._ask(self._client.v1.prices.retrieve_async(price_id))

    async def subscription(self, reference: str) -> Json:
        """A subscription with the schedule that manages it, if one does."""
        subscriptions = self._client.v1.subscriptions
        return await self._ask(subscriptions.retrieve_async(reference, {"expand": ["schedule"]}))

    async def plain_session(self, reference: str) -> Json:
        """A Checkout session as it is."""
        return await self._ask(self._client.v1.checkout.sessions.retrieve_async(reference))

    async def invoices(self, subscription: str) -> Sequence[Json]:
        """The newest invoices of a subscription, newest first."""
        params = {"subscription": subscription, "limit": INVOICES_SEEN}
        page = await self._list(self._client.v1.invoices.list_async(params))  # type: ignore[arg-type]
        return list(page["data"])

    async def invoice(self, reference: str) -> Json:
        """One invoice with the payments made for it."""
        return await self._ask(self._client.v1.invoices.retrieve_async(reference, {"expand": ["payments"]}))

    async def intent(self, reference: str) -> Json:
        """A payment intent with its charge, fee and newest refunds."""
        expand = ["latest_charge.balance_transaction", "latest_charge.refunds"]
        return await self._ask(self._client.v1.payment_intents.retrieve_async(reference, {"expand": expand}))

    async def invoice_of_intent(self, intent: str) -> Json | None:
        """The invoice that a payment intent pays, if any."""
        params = {
            "payment": {"type": "payment_intent", "payment_intent": intent},
            "limit": 1,
            "expand": ["data.invoice"],
        }
        page = await self._list(self._client.v1.invoice_payments.list_async(params))  # type: ignore[arg-type]
        found = page["data"][0].get("invoice") if page["data"] else None
        if isinstance(found, str):
            raise RailProtocolError("Stripe did not expand an invoice")
        return found

    async def preview(self, params: Mapping[str, object]) -> Json:
        """The invoice that a change would make."""
        return await self._ask(self._client.v1.invoices.create_preview_async(params))  # type: ignore[arg-type]

    async def update_subscription(self, reference: str, params: Json, key: str | None = None) -> Json:
        """Change a subscription. Raises `KeyReused`, `FailureReplayed`."""
        options = {} if key is None else {"idempotency_key": key}
        subscriptions = self._client.v1.subscriptions
        call = subscriptions.update_async(reference, params, options)  # type: ignore[arg-type]
        return await self._ask(call, keyed=key is not None)

    async def create_schedule(self, subscription: str) -> Json:
        """A schedule that begins with the present period of a subscription."""
        schedules = self._client.v1.subscription_schedules
        return await self._ask(schedules.create_async({"from_subscription": subscription}))

    async def update_schedule(self, reference: str, params: Json) -> Json:
        """The phases of a schedule anew."""
        schedules = self._client.v1.subscription_schedules
        return await self._ask(schedules.update_async(reference, params))  # type: ignore[arg-type]

    async def release_schedule(self, reference: str) -> Json:
        """Let a subscription go on without its schedule."""
        return await self._ask(self._client.v1.subscription_schedules.release_async(reference))

    async def portal_session(self, customer: str, return_url: str) -> Json:
        """A page for one customer, for a few minutes."""
        sessions = self._client.v1.billing_portal.sessions
        return await self._ask(sessions.create_async({"customer": customer, "return_url": return_url}))
