"""The few calls the card rail makes, each with a deadline, as plain dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import stripe

from rails.contract import RailProtocolError, RailUnavailable
from rails.reading import MISREAD, understood
from rails.stripe.transport import HttpxTransport

Json = dict[str, Any]

API_VERSION = "2026-10-28.endive"
"""The version whose shapes this rail reads: sent with each request, demanded of each webhook."""
PAGE_SIZE = 100
MAX_PAGES = 10
_TRUTH = (
    "payment_intent.latest_charge.balance_transaction",
    "payment_intent.latest_charge.refunds",
)


class Refused(Exception):
    """Stripe understood the request and refuses it; nothing was done."""

    def __init__(self, error: stripe.StripeError) -> None:
        super().__init__(error.user_message or str(error))
        self.code = error.code
        self.intent = _intent_of(error)
        """The payment intent that was declined, if that was the refusal."""


class KeyReused(Exception):
    """The idempotency key was used before with other parameters; nothing was done now."""


class FailureReplayed(RailUnavailable):
    """Stripe failed at the first request with this key and goes on repeating that failure."""


class StripeCalls:
    """Stripe, as far as this rail needs it. All calls may raise `RailUnavailable`."""

    def __init__(
        self, client: stripe.StripeClient, transport: HttpxTransport, *, deadline_seconds: float
    ) -> None:
        self._client = client
        self._transport = transport
        self._deadline_seconds = deadline_seconds

    async def close(self) -> None:
        """Let go of the connections."""
        await self._transport.close_async()

    async def create_session(self, params: Json, key: str) -> Json:
        """Open a Checkout session. Raises `KeyReused`, `FailureReplayed`, `Refused`."""
        sessions = self._client.v1.checkout.sessions
        session = await self._ask(
            sessions.create_async(params, {"idempotency_key": key}),  # type: ignore[arg-type]
            keyed=True,
        )
        return named(session)

    async def session(self, reference: str) -> Json:
        """A session with its payment intent, charge, fee and newest refunds."""
        sessions = self._client.v1.checkout.sessions
        return await self._ask(sessions.retrieve_async(reference, {"expand": list(_TRUTH)}))

    async def expire_session(self, reference: str) -> Json:
        """Close an open session. Raises `Refused` if it is open no more."""
        return await self._ask(self._client.v1.checkout.sessions.expire_async(reference))

    async def session_of_intent(self, intent: str) -> Json | None:
        """The session that a payment intent belongs to, if any."""
        sessions = self._client.v1.checkout.sessions
        page = await self._list(sessions.list_async({"payment_intent": intent, "limit": 1}))
        return page["data"][0] if page["data"] else None

    async def recent_sessions(self, since: int, after: str | None) -> Json:
        """A page of the sessions created since then, newest first."""
        params: Json = {"created": {"gte": since}, "limit": PAGE_SIZE}
        if after is not None:
            params["starting_after"] = after
        return await self._list(self._client.v1.checkout.sessions.list_async(params))  # type: ignore[arg-type]

    async def refunds(self, intent: str) -> Sequence[Json]:
        """Every refund of a payment intent."""
        found: list[Json] = []
        params: Json = {"payment_intent": intent, "limit": PAGE_SIZE}
        for _ in range(MAX_PAGES):
            page = await self._list(self._client.v1.refunds.list_async(params))  # type: ignore[arg-type]
            found += page["data"]
            if not page["has_more"] or not page["data"]:
                return found
            params["starting_after"] = found[-1]["id"]
        raise RailProtocolError(f"{intent} has more refunds than can be true")

    async def disputes(self, intent: str) -> Sequence[Json]:
        """Every dispute about a payment intent."""
        page = await self._list(
            self._client.v1.disputes.list_async({"payment_intent": intent, "limit": PAGE_SIZE})
        )
        return list(page["data"])

    async def create_refund(self, intent: str, amount: int, key: str) -> Json:
        """Refund `amount` minor units. Raises `KeyReused`, `FailureReplayed`, `Refused`."""
        refunds = self._client.v1.refunds
        return await self._ask(
            refunds.create_async(
                {"payment_intent": intent, "amount": amount, "metadata": {"refund_key": key}},
                {"idempotency_key": f"refund:{key}"},
            ),
            keyed=True,
        )

    async def events(
        self, types: Sequence[str], *, before: str | None = None, after: str | None = None
    ) -> Json:
        """A page of events, newest first; `before` gives the page of the next newer ones. Raises `Refused`."""
        params: Json = {"types": list(types), "limit": PAGE_SIZE}
        if before is not None:
            params["ending_before"] = before
        if after is not None:
            params["starting_after"] = after
        return await self._page(self._client.v1.events.list_async(params))  # type: ignore[arg-type]

    async def ping(self) -> None:
        """Ask for next to nothing, with the permission that opening needs. Raises `Refused`."""
        await self._ask(self._client.v1.checkout.sessions.list_async({"limit": 1}))

    async def _list(self, call: Awaitable[stripe.StripeObject]) -> Json:
        """A page of a list that nobody has a reason to refuse."""
        try:
            return await self._page(call)
        except Refused as refused:
            raise RailProtocolError(f"Stripe refuses a list: {refused.code}") from refused

    async def _page(self, call: Awaitable[stripe.StripeObject]) -> Json:
        """A page of a list, each entry of which has an id."""
        page = await self._ask(call)
        with understood("Stripe"):
            return {"data": [named(entry) for entry in page["data"]], "has_more": bool(page["has_more"])}

    async def _ask(self, call: Awaitable[stripe.StripeObject], *, keyed: bool = False) -> Json:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await call
        except TimeoutError:
            raise RailUnavailable("Stripe did not answer in time") from None
        except stripe.IdempotencyError as error:
            if not keyed:
                raise RailProtocolError("Stripe speaks of a key where there was none") from error
            raise KeyReused(str(error)) from error
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            raise Refused(error) from error
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise RailUnavailable("Stripe does not accept our key") from error
        except stripe.APIConnectionError as error:
            raise RailUnavailable("Stripe cannot be reached") from error
        except stripe.StripeError as error:
            status = error.http_status
            if status is not None and status >= 500 and _is_replay(error):
                raise FailureReplayed("Stripe repeats an earlier failure") from error
            raise RailUnavailable(f"Stripe failed ({type(error).__name__}, {status})") from error
        except MISREAD as error:
            raise RailProtocolError("Stripe gave an answer that the SDK cannot read") from error
        with understood("Stripe"):
            return answer.to_dict()


def named(entry: Any) -> Json:
    """An object with an id. Raises `RailProtocolError`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"].isprintable():
        raise RailProtocolError("Stripe gave an object without an id")
    return entry


def _intent_of(error: stripe.StripeError) -> Json | None:
    body = error.json_body
    inner = body.get("error") if isinstance(body, dict) else None
    found = inner.get("payment_intent") if isinstance(inner, dict) else None
    return found if isinstance(found, dict) else None


def _is_replay(error: stripe.StripeError) -> bool:
    return (error.headers or {}).get("idempotent-replayed") == "true"
