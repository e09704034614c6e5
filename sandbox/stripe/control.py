"""`/sandbox/…`: what a demo, a test or the sandbox wallet may do from outside the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.routing import Route

from sandbox.common.control import Refused, Values, get, post, text, whole
from sandbox.stripe import balance, billing, checkout, payments, queries, saved, updates
from sandbox.stripe.context import API_VERSION, Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.portal import put_card
from sandbox.stripe.store import Json
from sandbox.stripe.webhooks import Deliverer


class Control:
    """The control endpoints of one stand-in."""

    def __init__(self, context: Context, faults: Faults, deliverer: Deliverer) -> None:
        self._context = context
        self._faults = faults
        self._deliverer = deliverer

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            get("/sandbox/health", self.health),
            get("/sandbox/faults", lambda _: self._faults.all()),
            post("/sandbox/faults", self.set_faults),
            get("/sandbox/clock", self.clock),
            post("/sandbox/clock", self.set_clock),
            post("/sandbox/forget", self._commit(self.forget)),
            get("/sandbox/deliveries", self.deliveries),
            get("/sandbox/checkout/{session}", self._commit(self.session)),
            post("/sandbox/checkout/{session}/pay", self._commit(self.pay)),
            post("/sandbox/checkout/{session}/promotion", self._commit(self.promotion)),
            post("/sandbox/checkout/{session}/settle", self._commit(self.settle)),
            post("/sandbox/setup/{session}", self._commit(self.save)),
            post("/sandbox/invoices/{invoice}/pay", self._commit(self.pay_invoice)),
            post("/sandbox/subscriptions/{subscription}/card", self._commit(self.put_card)),
            post("/sandbox/dispute", self._commit(self.dispute)),
            post("/sandbox/refund", self._commit(self.refund)),
            post("/sandbox/payout", self._commit(self.payout)),
        ]

    def health(self, _: Values) -> Json:
        """Up, which version, and how many messages still wait to be delivered."""
        query = "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'"
        waiting = self._context.store.connection.execute(query).fetchone()[0]
        return {"ok": True, "api_version": API_VERSION, "undelivered": waiting}

    def set_faults(self, values: Values) -> Json:
        """Set some faults; names that are not given stay. `{"reset": true}` clears all first."""
        changed = self._faults.change(values)
        self._deliverer.wake()
        return changed

    def clock(self, _: Values) -> Json:
        """The stand-in's time."""
        return {"now": self._context.now(), "offset_seconds": self._context.clock.offset_seconds}

    def set_clock(self, values: Values) -> Json:
        """`{"advance_seconds": n}`, `{"now": seconds since 1970}` or `{"reset": true}`."""
        clock = self._context.clock
        if values.get("reset"):
            clock.move(0)
        elif isinstance(values.get("now"), int):
            clock.move(clock.offset_seconds + values["now"] - self._context.now())
        elif isinstance(values.get("advance_seconds"), int):
            clock.move(clock.offset_seconds + values["advance_seconds"])
        else:
            raise ValueError("name reset, now or advance_seconds")
        with self._context.store.transaction():
            checkout.sweep(self._context)
            billing.sweep(self._context, self._faults)
            balance.sweep(self._context)
        self._context.wake()
        return self.clock(values)

    def forget(self, _: Values) -> Json:
        """The account is as empty as a new one; only where its messages go stays."""
        self._context.store.forget(but="webhook_endpoint")
        return {}

    def deliveries(self, _: Values) -> Json:
        """The newest hundred webhook messages and what became of them."""
        query = (
            "SELECT event, json_extract(objects.body, '$.type'), state, attempts, last_status FROM deliveries "
            "JOIN objects ON objects.id = deliveries.event ORDER BY deliveries.seq DESC LIMIT 100"
        )
        rows = self._context.store.connection.execute(query).fetchall()
        names = ("event", "type", "state", "attempts", "last_status")
        return {"deliveries": [dict(zip(names, row, strict=True)) for row in rows]}

    def session(self, values: Values) -> Json:
        """What a payer's wallet shows: amount, currency, description, state."""
        return _summary(self._session(values))

    def pay(self, values: Values) -> Json:
        """`{"outcome": "paid"|"declined"|"abandoned"|"challenge"|"authentication_failed"|"processing",
        "decline_code"?}`: what the payer does."""
        session, code = self._session(values), values.get("decline_code")
        return _summary(checkout.act(self._context, session, text(values, "outcome"), code))

    def promotion(self, values: Values) -> Json:
        """`{"code": "…"}`: the promotion code that a payer types; an empty one takes it back."""
        code = values.get("code")
        typed = code if isinstance(code, str) else ""
        return _summary(checkout.apply_code(self._context, self._session(values), typed))

    def settle(self, values: Values) -> Json:
        """`{"outcome": "succeeded"|"failed"}`: how a delayed method ends."""
        succeeded = values.get("outcome") == "succeeded"
        return _summary(checkout.finish_delayed(self._context, self._session(values), succeeded=succeeded))

    def save(self, values: Values) -> Json:
        """`{"last4": one of `saved.CARDS`}`: the card that a person saves, and confirms where its bank wants that."""
        return saved.save(self._context, self._session(values), text(values, "last4"), confirmed=True)

    def pay_invoice(self, values: Values) -> Json:
        """`{"outcome": "paid"|"declined"}`: what the payer does on an open invoice's own page."""
        invoice = self._context.store.get("invoice", values["invoice"])
        return updates.pay_invoice(self._context, invoice, succeeds=text(values, "outcome") == "paid")

    def put_card(self, values: Values) -> Json:
        """`{"last4": "4242"|"0341"|"3184"}`: another card on file; the second is declined, the third asks for
        3-D Secure."""
        subscription = self._context.store.get("subscription", values["subscription"])
        return put_card(self._context, subscription, text(values, "last4"))

    def dispute(self, values: Values) -> Json:
        """`{"session"|"payment_intent"|"charge", "status": "open"|"inquiry"|"won"|"lost", "amount"?, "reason"?}`."""
        charge = payments.charge_of(self._context, _target(values))
        status = values.get("status", "open")
        if status in ("won", "lost"):
            return payments.close_dispute(self._context, charge, won=status == "won")
        if status not in ("open", "inquiry"):
            raise invalid("status", "Name open, inquiry, won or lost.")
        amount, reason = values.get("amount"), str(values.get("reason", "fraudulent"))
        return payments.open_dispute(self._context, charge, amount, reason, inquiry=status == "inquiry")

    def refund(self, values: Values) -> Json:
        """`{"session"|"payment_intent"|"charge", "amount"?}` as from the dashboard, or
        `{"refund": "re_…", "status": "failed"}` for a refund that bounces."""
        if "refund" in values:
            refund = self._context.store.get("refund", str(values["refund"]))
            return payments.fail_refund(self._context, refund)
        given = {"charge": payments.charge_of(self._context, _target(values))["id"]}
        if values.get("amount") is not None:
            given["amount"] = str(values["amount"])
        return payments.create_refund(self._context, Params(given))

    def payout(self, values: Values) -> Json:
        """`{}` for all that is available, as Stripe pays out each day; `{"amount"}` as from the dashboard;
        `{"payout": "po_…", "status": "failed"}` for one that the bank sends back."""
        if "payout" in values:
            payout = self._context.store.get("payout", str(values["payout"]))
            return balance.fail_payout(self._context, payout)
        amount = None if values.get("amount") is None else whole(values, "amount", least=1)
        return balance.pay_out(self._context, amount)

    def _session(self, values: Values) -> Json:
        return self._context.store.get("checkout.session", values["session"])

    def _commit(self, work: Callable[[Values], Json]) -> Callable[[Values], Any]:
        def answer(values: Values) -> Any:
            try:
                with self._context.store.transaction():
                    found = work(values)
            except StripeFault as fault:
                raise Refused(str(fault), fault.status) from fault
            self._context.wake()
            return queries.public(found)

        return answer


def _target(values: Values) -> str:
    for name in ("session", "payment_intent", "charge"):
        if isinstance(values.get(name), str):
            return str(values[name])
    raise required("session")


def _summary(session: Json) -> Json:
    names = "id status payment_status amount_total currency expires_at payment_intent client_reference_id url"
    shown = {name: session[name] for name in names.split()}
    items = session["_sandbox"]["line_items"]
    return {**shown, "description": items[0]["description"] if items else session["_sandbox"]["description"]}
