"""The calls that saved cards need, each with a deadline, as plain dictionaries."""

from __future__ import annotations

from rails.contract import RailProtocolError
from rails.stripe.calls import MAX_PAGES, PAGE_SIZE, Json, Refused, named
from rails.stripe.metering import MeterCalls


class SavedCalls(MeterCalls):
    """Stripe, as far as saved cards need it. All calls may raise `RailUnavailable` and `Refused`."""

    async def create_customer(self, account_id: str) -> str:
        """Who the saved cards of an account belong to."""
        customers = self._client.v1.customers
        options = {"idempotency_key": f"customer:{account_id}"}
        call = customers.create_async({"metadata": {"account_id": account_id}}, options)  # type: ignore[arg-type]
        return str(named(await self._ask(call, keyed=True))["id"])

    async def knows_customer(self, name: str) -> bool:
        """Whether there is, or was, such a customer. One that was deleted is still told of."""
        try:
            await self._ask(self._client.v1.customers.retrieve_async(name))
        except Refused:
            return False
        return True

    async def setup_session(self, reference: str) -> Json:
        """A page to save a card on, with the card that was saved there."""
        sessions = self._client.v1.checkout.sessions
        return await self._ask(
            sessions.retrieve_async(reference, {"expand": ["setup_intent.payment_method"]})
        )

    async def payment_method(self, name: str) -> Json:
        """A saved card."""
        return await self._ask(self._client.v1.payment_methods.retrieve_async(name))

    async def detach(self, name: str) -> None:
        """Let nobody charge a card any more."""
        await self._ask(self._client.v1.payment_methods.detach_async(name))

    async def create_charge(self, params: Json, key: str) -> Json:
        """Charge a saved card. Raises `KeyReused`, `FailureReplayed`, and `Refused` with the intent that was declined."""
        call = self._client.v1.payment_intents.create_async(params, {"idempotency_key": key})  # type: ignore[arg-type]
        return await self._ask(call, keyed=True)

    async def calculate_tax(self, params: Json, key: str) -> Json:
        """What tax something bears at an address. Raises `KeyReused`, `FailureReplayed`."""
        call = self._client.v1.tax.calculations.create_async(params, {"idempotency_key": key})  # type: ignore[arg-type]
        return named(await self._ask(call, keyed=True))

    async def cancel_intent(self, name: str) -> None:
        """Close an unpaid payment intent. Raises `Refused` if it cannot be closed any more."""
        await self._ask(self._client.v1.payment_intents.cancel_async(name))

    async def intents_since(self, customer: str, since: int) -> list[Json]:
        """Every payment intent of a customer since then."""
        found: list[Json] = []
        params: Json = {"customer": customer, "created": {"gte": since}, "limit": PAGE_SIZE}
        for _ in range(MAX_PAGES):
            try:
                page = await self._page(self._client.v1.payment_intents.list_async(params))  # type: ignore[arg-type]
            except Refused as refused:
                raise RailProtocolError(f"Stripe refuses a list: {refused.code}") from refused
            found += page["data"]
            if not page["has_more"] or not page["data"]:
                return found
            params["starting_after"] = found[-1]["id"]
        raise RailProtocolError("Stripe lists more payments of a customer than can be true")
