"""The card rail's view of Stripe's own books: balance transactions, payouts, and the balance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ledger.clock import Clock
from ledger.money import ASSETS, Asset, Money
from rails.contract import RailProtocolError
from rails.movements import Movement, MovementKind, MovementPage
from rails.reading import understood
from rails.stripe.amounts import amount_of, name_of
from rails.stripe.billing_calls import BillingCalls
from rails.stripe.calls import PAGE_SIZE, Json, Refused

WINDOW = timedelta(days=1)
"""Asked for at once. Stripe lists newest first, so only a whole stretch of time can be gone on from."""
OVERLAP = timedelta(hours=6)
"""Read again each time: what Stripe books a little late is not passed over."""
PAGES_MAX = 10_000
"""A million movements in a day."""
_KINDS = {
    "charge": MovementKind.RECEIVED,
    "payment": MovementKind.RECEIVED,
    "refund": MovementKind.TAKEN_BACK,
    "payment_refund": MovementKind.TAKEN_BACK,
    "refund_failure": MovementKind.TAKEN_BACK,
    "payment_failure_refund": MovementKind.TAKEN_BACK,
    "payment_reversal": MovementKind.TAKEN_BACK,
    "payout": MovementKind.PAID_OUT,
    "payout_cancel": MovementKind.PAID_OUT,
    "payout_failure": MovementKind.PAID_OUT,
    "stripe_fee": MovementKind.COST,
    "stripe_fx_fee": MovementKind.COST,
    "tax_fee": MovementKind.COST,
}


class BookCalls(BillingCalls):
    """Stripe, as far as comparing its books needs it. Calls raise `RailUnavailable`, `RailProtocolError`."""

    async def transactions(self, since: datetime, until: datetime) -> Sequence[Json]:
        """Balance transactions of a stretch of time, each with what caused it."""
        created = {"gte": int(since.timestamp()), "lt": int(until.timestamp())}
        return await self._all({"created": created, "expand": ["data.source"]})

    async def paid_out_by(self, payout: str) -> Sequence[Json]:
        """Balance transactions that an automatic payout consists of, and its own."""
        return await self._all({"payout": payout})

    async def balance(self) -> Json:
        """What Stripe holds for us."""
        try:
            return await self._ask(self._client.v1.balance.retrieve_async())
        except Refused as refused:
            raise RailProtocolError(f"Stripe refuses its balance: {refused.code}") from refused

    async def _all(self, params: Json) -> Sequence[Json]:
        found: list[Json] = []
        params = {**params, "limit": PAGE_SIZE}
        for _ in range(PAGES_MAX):
            page = await self._list(self._client.v1.balance_transactions.list_async(params))  # type: ignore[arg-type]
            found += page["data"]
            if not page["has_more"] or not page["data"]:
                return found
            params["starting_after"] = found[-1]["id"]
        raise RailProtocolError("Stripe lists balance transactions without end")


class CardBooks:
    """See `rails.movements.Movements`."""

    def __init__(self, calls: BookCalls, clock: Clock) -> None:
        self._books = calls
        self._now = clock

    async def movements(self, cursor: str | None, since: datetime) -> MovementPage:
        """A day at a time; the cursor is up to when everything was read, in seconds since 1970."""
        begins = since if cursor is None else _cursor(cursor) - OVERLAP
        now = self._now()
        ends = min(begins + WINDOW, now + timedelta(seconds=1))
        found = [read_movement(entry) for entry in await self._books.transactions(begins, ends)]
        movements = [await self._with_contents(movement) for movement in found]
        reached = ends if cursor is None else max(ends, _cursor(cursor))
        return MovementPage(
            movements=movements, cursor=str(int(reached.timestamp())), complete=begins + WINDOW > now
        )

    async def _with_contents(self, movement: Movement) -> Movement:
        if movement.kind is not MovementKind.PAID_OUT or movement.consists_of is None:
            return movement
        parts = await self._books.paid_out_by(str(movement.external_ref))
        return read_contents(movement, parts)

    async def holdings(self) -> Sequence[Money]:
        """Available and pending together, for each currency."""
        balance = await self._books.balance()
        with understood("Stripe"):
            sums: dict[Asset, int] = {}
            for entry in (*balance["available"], *balance["pending"]):
                asset = _asset(entry["currency"])
                sums[asset] = sums.get(asset, 0) + amount_of(entry["amount"], may_be_negative=True)
            return [Money(minor, asset) for asset, minor in sums.items()]


def read_movement(transaction: Json) -> Movement:
    """One balance transaction, its source expanded. Pure. Raises `RailProtocolError`."""
    with understood("Stripe"):
        asset, source = _asset(transaction["currency"]), transaction["source"]
        if isinstance(source, str):
            raise RailProtocolError("Stripe did not expand the source of a balance transaction")
        amount = Money(amount_of(transaction["amount"], may_be_negative=True), asset)
        kind = _kind(transaction, source)
        automatic = kind is MovementKind.PAID_OUT and amount.minor < 0 and source and source["automatic"]
        return Movement(
            movement_ref=name_of(transaction["id"]),
            kind=kind,
            amount=amount,
            fee=Money(amount_of(transaction["fee"], may_be_negative=True), asset),
            money_ref=_money_ref(source),
            occurred_at=datetime.fromtimestamp(amount_of(transaction["created"]), UTC),
            external_ref=None if source is None else name_of(source["id"]),
            consists_of=Money(0, asset) if automatic else None,
        )


def read_contents(payout: Movement, parts: Sequence[Json]) -> Movement:
    """A payout with the sum of what it consists of. Pure. Raises `RailProtocolError`."""
    with understood("Stripe"):
        nets = [
            amount_of(entry["net"], may_be_negative=True)
            for entry in parts
            if name_of(entry["id"]) != payout.movement_ref
        ]
        return Movement(
            movement_ref=payout.movement_ref,
            kind=payout.kind,
            amount=payout.amount,
            fee=payout.fee,
            occurred_at=payout.occurred_at,
            external_ref=payout.external_ref,
            consists_of=Money(sum(nets), payout.amount.asset),
        )


def _kind(transaction: Json, source: Json | None) -> MovementKind:
    # Stripe books what a dispute takes and gives back as an adjustment.
    if transaction["type"] == "adjustment" and source is not None and source["object"] == "dispute":
        return MovementKind.TAKEN_BACK
    return _KINDS.get(transaction["type"], MovementKind.OTHER)


def _money_ref(source: Json | None) -> str | None:
    """Charges, refunds and disputes name the payment intent whose money they move."""
    intent = None if source is None else source.get("payment_intent")
    return None if intent is None else f"stripe:{name_of(intent)}"


def _asset(currency: str) -> Asset:
    code = name_of(currency).upper()
    return ASSETS.get(code) or Asset(code, 2)


def _cursor(text: str) -> datetime:
    with understood("our own cursor of Stripe's books"):
        return datetime.fromtimestamp(int(text), UTC)
