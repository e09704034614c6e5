"""The control API of the stand-in: the payer's wallet, blocks, the clock, and faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette

from sandbox.common.control import Refused, Values, get, post, text, whole
from sandbox.lnd import addresses
from sandbox.lnd.errors import LndError
from sandbox.lnd.node import Node
from sandbox.lnd.wallet import Payment

MAX_BLOCKS = 10_000
MAX_CLOCK_STEP_SECONDS = 400 * 86_400


def build(node: Node) -> Starlette:
    """The application; serve it on loopback only."""
    control = Control(node)
    reads: dict[str, Callable[[Values], Any]] = {
        "health": control.health,
        "invoice": lambda values: node.wallet.describe(text(values, "bolt11")),
        "faults": lambda _: node.faults.all(),
        "wallet/invoice": control.wallet_received,
    }
    changes: dict[str, Callable[[Values], Any]] = {
        "pay": control.pay,
        "faults": node.faults.change,
        "blocks": control.blocks,
        "clock": control.clock,
        "wallet/invoice": control.wallet_invoice,
        "payments/resolve": control.resolve,
    }
    return Starlette(
        routes=[
            *(get(f"/sandbox/{path}", _in_words(answer)) for path, answer in reads.items()),
            *(post(f"/sandbox/{path}", _in_words(answer)) for path, answer in changes.items()),
            *addresses.routes(node),
        ]
    )


def _in_words(answer: Callable[[Values], Any]) -> Callable[[Values], Any]:
    """An error of the node is a refusal."""

    def refuse(values: Values) -> Any:
        try:
            return answer(values)
        except LndError as error:
            raise Refused(error.text) from error

    return refuse


class Control:
    """What the routes do to one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def health(self, _: Values) -> Values:
        """Who the node is, how high its chain, and its time."""
        node = self._node
        height, now = node.registry.height, int(node.clock())
        return {"ok": True, "node_id": node.node_id, "height": height, "now": now}

    def pay(self, values: Values) -> Values:
        """`bolt11`, and what the payer makes different (see `Payment`)."""
        given = {name: whole(values, name) for name in ("amount_msat", "send_parts") if name in values}
        expired = values.get("even_if_expired") is True
        parts = whole(values, "parts", 1)
        return self._node.wallet.pay(
            Payment(text=text(values, "bolt11"), parts=parts, even_if_expired=expired, **given)
        )

    def blocks(self, values: Values) -> Values:
        """`count` blocks arrive."""
        return {"height": self._node.registry.mine(whole(values, "count", 1, most=MAX_BLOCKS))}

    def clock(self, values: Values) -> Values:
        """Time passes."""
        node = self._node
        step = whole(values, "advance_seconds", most=MAX_CLOCK_STEP_SECONDS)
        node.clock.move(node.clock.offset_seconds + step)
        node.registry.tick()
        node.wake.set()
        return {"now": int(node.clock()), "offset_seconds": node.clock.offset_seconds}

    def wallet_invoice(self, values: Values) -> Values:
        """The wallet makes an invoice, so that something can be refunded to it."""
        amount, description = whole(values, "amount_msat", 0), str(values.get("description", ""))
        return {"bolt11": self._node.payer.wallet_invoice(amount, description)}

    def wallet_received(self, values: Values) -> Values:
        """What came in on an invoice of the wallet."""
        payment_hash = bytes.fromhex(self._node.payer.decode(text(values, "bolt11")).payment_hash)
        known = self._node.store.wallet_invoice(payment_hash)
        if known is None:
            raise Refused("the sandbox wallet made no such invoice", 404)
        return {"amount_msat": known[1], "received_msat": known[2]}

    def resolve(self, values: Values) -> Values:
        """A payment that is stuck comes to its end."""
        node, payment_hash = self._node, bytes.fromhex(text(values, "payment_hash"))
        payment = node.payer.resolve(payment_hash, whole(values, "fee_limit_msat", 10**6))
        node.feed.announce(payment_hash)
        return {"status": int(payment.status)}
