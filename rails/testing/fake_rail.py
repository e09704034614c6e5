"""A rail with every power, over a network that lives in memory. It passes the same suite as the real ones.

`FakeNetwork` is the world outside: it survives the rail, can be paid, and can misbehave.
`FakeRail` is the thing under test in the core: restart it by building another on the same network.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from ledger.clock import Clock
from ledger.money import BTC, USD, USDT, Asset, Money
from rails.contract import (
    Capabilities,
    Health,
    Hint,
    HintRejected,
    Instructions,
    Observation,
    Order,
    Piece,
    PieceState,
    RailProtocolError,
    RailUnavailable,
    Refund,
    Standing,
)

WEBHOOK_SECRET = b"a secret of the fake network"


@dataclass(slots=True)
class _Way:
    """One way to pay, as the network knows it."""

    order: Order
    reference: str
    standing: Standing = Standing.OPEN
    pieces: dict[str, Piece] = field(default_factory=dict)
    decline_code: str | None = None


class FakeNetwork:
    """The outside world of a `FakeRail`."""

    def __init__(self, clock: Clock, *, finality: PieceState = PieceState.SEEN) -> None:
        self._clock = clock
        self._finality = finality
        self._ways: dict[str, _Way] = {}
        self._hints: list[str] = []
        self._refunds: dict[str, Refund] = {}
        self._changed = asyncio.Condition()
        self.down = False
        """Every call to the rail fails."""
        self.answers_to_lose = 0
        """That many calls take effect, and then fail as if the answer had been lost."""
        self.hints_per_change = 1
        """0 drops hints, 2 duplicates them."""
        self.refund_outcome = Refund.SENT
        self.refunded: list[tuple[str, Money, str | None]] = []
        """Every outgoing payment."""
        self.calls: list[str] = []
        """Every call made to the rail, in order: `open`, `observe` …"""

    def way(self, reference: str) -> _Way:
        """The way to pay named by `reference`."""
        try:
            return self._ways[reference]
        except KeyError:
            raise RailProtocolError(f"the fake network knows no {reference!r}") from None

    def register(self, order: Order) -> _Way:
        """Open a way to pay, once per payment."""
        reference = f"fake-{order.payment_id}"
        return self._ways.setdefault(reference, _Way(order=order, reference=reference))

    async def pay(self, reference: str, amount: Money) -> str:
        """A payer pays `amount`, now. Returns the money's reference."""
        way = self.way(reference)
        money_ref = f"fake:{way.order.ordinal}:{len(way.pieces) + 1}"
        state = PieceState.HELD if way.order.hold else self._finality
        piece = Piece(
            money_ref=money_ref, amount=amount, state=state, first_seen_at=self._clock(), proof=money_ref
        )
        await self.put(reference, piece)
        return money_ref

    async def put(self, reference: str, piece: Piece) -> None:
        """Set one piece of money to exactly this, whatever it was before."""
        self.way(reference).pieces[piece.money_ref] = piece
        await self.hint(reference)

    async def change(
        self, reference: str, money_ref: str, state: PieceState, reversed_minor: int | None = None
    ) -> None:
        """Move one piece of money to another state."""
        piece = self.way(reference).pieces[money_ref]
        back = None if reversed_minor is None else Money(reversed_minor, piece.amount.asset)
        await self.put(reference, replace(piece, state=state, reversed_amount=back))

    async def forget(self, reference: str, money_ref: str) -> None:
        """Money that was on its way vanishes without a trace."""
        del self.way(reference).pieces[money_ref]
        await self.hint(reference)

    async def settle(self) -> None:
        """All money on its way arrives."""
        for way in self._ways.values():
            for piece in list(way.pieces.values()):
                if piece.state is PieceState.SEEN:
                    await self.change(way.reference, piece.money_ref, PieceState.SETTLED)

    def forget_way(self, reference: str) -> None:
        """A way to pay that the network knows no more."""
        del self._ways[reference]

    async def stand(self, reference: str, standing: Standing, decline_code: str | None = None) -> None:
        """Expire, decline or close a way to pay."""
        way = self.way(reference)
        way.standing, way.decline_code = standing, decline_code
        await self.hint(reference)

    async def hint(self, reference: str) -> None:
        """Say that something may have changed."""
        async with self._changed:
            self._hints.extend([reference] * self.hints_per_change)
            self._changed.notify_all()

    async def hint_at(self, place: int) -> Hint:
        """The hint at this place in the network's own order; waits for it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.down or place < len(self._hints))
            if self.down:
                raise RailUnavailable("the fake network is down")
            return Hint(reference=self._hints[place], cursor=str(place + 1), hint_id=f"fake-hint-{place}")

    async def set_down(self, down: bool) -> None:
        """Break or mend the connection; listeners notice at once."""
        async with self._changed:
            self.down = down
            self._changed.notify_all()

    def check(self, call: str) -> None:
        """Fail if the network is down."""
        self.calls.append(call)
        if self.down:
            raise RailUnavailable("the fake network is down")

    def answer(self) -> None:
        """Fail if this answer is to be lost."""
        if self.answers_to_lose > 0:
            self.answers_to_lose -= 1
            raise RailUnavailable("the answer was lost")

    def refund_once(self, key: str, reference: str, amount: Money, destination: str | None) -> Refund:
        """The outcome of an outgoing payment, fixed by its key."""
        self.way(reference)
        if key not in self._refunds:
            self.refunded.append((reference, amount, destination))
        return self._refunds.setdefault(key, self.refund_outcome)

    @staticmethod
    def webhook(reference: str, hint_id: str) -> tuple[dict[str, str], bytes]:
        """A signed message about one reference."""
        body = msgspec.json.encode({"id": hint_id, "reference": reference})
        return {"fake-signature": hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()}, body


def fake_capabilities(assets: tuple[Asset, ...] = (BTC, USDT, USD), label: str = "Fake") -> Capabilities:
    """Generous limits, a quote of 15 minutes."""
    return Capabilities(
        assets=assets,
        label=label,
        minimum={asset.code: 1 for asset in assets},
        maximum={asset.code: 10**15 for asset in assets},
        order=99,
        quote_seconds=900,
    )


class FakeRail:
    """A rail that can do everything a rail may be able to do."""

    def __init__(
        self, network: FakeNetwork, *, name: str = "fake", capabilities: Capabilities | None = None
    ) -> None:
        self.name = name
        self.capabilities = capabilities or fake_capabilities()
        self._network = network
        self.closed = False

    async def open(self, order: Order) -> Instructions:
        """Open a way to pay, once per payment."""
        self._network.check("open")
        way = self._network.register(order)
        self._network.answer()
        amount = way.order.amount_due
        return Instructions(
            kind="address",
            reference=way.reference,
            uri=f"fake:{way.reference}?amount={amount.decimal()}",
            text=way.reference,
            details={"address": way.reference, "amount": amount.decimal()},
        )

    async def observe(self, reference: str) -> Observation:
        """Everything the network knows about one reference."""
        self._network.check("observe")
        way = self._network.way(reference)
        return Observation(
            reference=reference,
            standing=way.standing,
            pieces=tuple(way.pieces.values()),
            decline_code=way.decline_code,
        )

    async def listen(self, cursor: str | None) -> AsyncIterator[Hint]:
        """Every hint since `cursor`, then new ones as they come."""
        place = int(cursor or 0)
        while True:
            yield await self._network.hint_at(place)
            place += 1

    async def health(self) -> Health:
        """Whether the network is there."""
        return Health(
            ok=not self._network.down, detail="the fake network is down" if self._network.down else ""
        )

    async def close(self) -> None:
        """Nothing to let go of."""
        self.closed = True

    def verify_hint(self, headers: Mapping[str, str], body: bytes) -> Sequence[Hint]:
        """Check the signature, then read the message."""
        expected = hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(headers.get("fake-signature", ""), expected):
            raise HintRejected("the signature does not match")
        message = msgspec.json.decode(body)
        return [Hint(reference=message["reference"], hint_id=message["id"])]

    async def cancel(self, reference: str) -> Observation:
        """Close an unpaid way to pay."""
        self._network.check("cancel")
        way = self._network.way(reference)
        if not way.pieces and way.standing is Standing.OPEN:
            await self._network.stand(reference, Standing.CLOSED)
        return await self.observe(reference)

    async def capture(self, reference: str) -> Observation:
        """Take the held money."""
        return await self._resolve(reference, PieceState.SETTLED, "capture")

    async def release(self, reference: str) -> Observation:
        """Give the held money back."""
        return await self._resolve(reference, PieceState.RETURNED, "release")

    async def refund(self, reference: str, amount: Money, destination: str | None, key: str) -> Refund:
        """Send money back, once per key."""
        self._network.check("refund")
        return self._network.refund_once(key, reference, amount, destination)

    async def _resolve(self, reference: str, state: PieceState, call: str) -> Observation:
        self._network.check(call)
        for piece in list(self._network.way(reference).pieces.values()):
            if piece.state is PieceState.HELD:
                await self._network.change(reference, piece.money_ref, state)
        self._network.answer()
        return await self.observe(reference)
