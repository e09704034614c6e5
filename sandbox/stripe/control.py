"""`/sandbox/…`: what a demo, a test or the sandbox wallet may do from outside the protocol."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sandbox.stripe import billing, checkout, payments, queries
from sandbox.stripe.context import API_VERSION, Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json
from sandbox.stripe.webhooks import Deliverer


class Control:
    """The control endpoints of one stand-in."""

    def __init__(self, context: Context, faults: Faults, deliverer: Deliverer) -> None:
        self._context = context
        self._faults = faults
        self._deliverer = deliverer

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/sandbox")
        router.add_api_route("/health", self.health, methods=["GET"])
        router.add_api_route("/faults", self.read_faults, methods=["GET"])
        router.add_api_route("/faults", self.set_faults, methods=["POST"])
        router.add_api_route("/clock", self.read_clock, methods=["GET"])
        router.add_api_route("/clock", self.set_clock, methods=["POST"])
        router.add_api_route("/deliveries", self.deliveries, methods=["GET"])
        router.add_api_route("/checkout/{session_id}", self.session, methods=["GET"])
        router.add_api_route("/checkout/{session_id}/pay", self.pay, methods=["POST"])
        router.add_api_route("/checkout/{session_id}/settle", self.settle, methods=["POST"])
        router.add_api_route("/dispute", self.dispute, methods=["POST"])
        router.add_api_route("/refund", self.refund, methods=["POST"])
        return router

    async def health(self) -> JSONResponse:
        """Up, which version, and how many messages still wait to be delivered."""
        query = "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'"
        waiting = self._context.store.connection.execute(query).fetchone()[0]
        return JSONResponse({"ok": True, "api_version": API_VERSION, "undelivered": waiting})

    async def read_faults(self) -> JSONResponse:
        """The faults that are set, with what is left of each counter."""
        return JSONResponse(msgspec.to_builtins(self._faults))

    async def set_faults(self, request: Request) -> JSONResponse:
        """Set some faults; names that are not given stay. `{"reset": true}` clears all first."""
        values = await _body(request)
        base = Faults() if values.pop("reset", False) else self._faults
        try:
            wanted = base.update(values)
        except msgspec.ValidationError as error:
            return JSONResponse({"error": str(error)}, 400)
        for name, value in msgspec.to_builtins(wanted).items():
            setattr(self._faults, name, value)
        self._deliverer.wake()
        return JSONResponse(msgspec.to_builtins(self._faults))

    async def read_clock(self) -> JSONResponse:
        """The stand-in's time."""
        return JSONResponse({"now": self._context.clock(), "offset_seconds": self._context.clock.offset})

    async def set_clock(self, request: Request) -> JSONResponse:
        """`{"advance_seconds": n}`, `{"now": seconds since 1970}` or `{"reset": true}`."""
        values = await _body(request)
        clock = self._context.clock
        if values.get("reset"):
            clock.move(0)
        elif isinstance(values.get("now"), int):
            clock.move(clock.offset + values["now"] - clock())
        elif isinstance(values.get("advance_seconds"), int):
            clock.move(clock.offset + values["advance_seconds"])
        else:
            return JSONResponse({"error": "say reset, now or advance_seconds"}, 400)
        with self._context.store.transaction():
            checkout.sweep(self._context)
            billing.sweep(self._context, self._faults)
        self._context.wake()
        return await self.read_clock()

    async def deliveries(self) -> JSONResponse:
        """The newest hundred webhook messages and what became of them."""
        query = (
            "SELECT event, json_extract(objects.body, '$.type'), state, attempts, last_status FROM deliveries "
            "JOIN objects ON objects.id = deliveries.event ORDER BY deliveries.seq DESC LIMIT 100"
        )
        rows = self._context.store.connection.execute(query).fetchall()
        names = ("event", "type", "state", "attempts", "last_status")
        return JSONResponse({"deliveries": [dict(zip(names, row, strict=True)) for row in rows]})

    async def session(self, session_id: str) -> JSONResponse:
        """What a payer's wallet shows: amount, currency, description, state."""
        try:
            session = self._context.store.get("checkout.session", session_id)
        except StripeFault as fault:
            return _refused(fault)
        return JSONResponse(_summary(session))

    async def pay(self, session_id: str, request: Request) -> JSONResponse:
        """`{"outcome": "paid"|"declined"|"abandoned"|"challenge"|"authentication_failed"|"processing",
        "decline_code"?}`: what the payer does."""
        values = await _body(request)

        def work() -> Json:
            session = self._context.store.get("checkout.session", session_id)
            outcome, code = values.get("outcome"), values.get("decline_code")
            if not isinstance(outcome, str):
                raise required("outcome")
            return _summary(checkout.act(self._context, session, outcome, code))

        return self._commit(work)

    async def settle(self, session_id: str, request: Request) -> JSONResponse:
        """`{"outcome": "succeeded"|"failed"}`: how a delayed method ends."""
        values = await _body(request)

        def work() -> Json:
            session = self._context.store.get("checkout.session", session_id)
            succeeded = values.get("outcome") == "succeeded"
            return _summary(checkout.finish_delayed(self._context, session, succeeded=succeeded))

        return self._commit(work)

    async def dispute(self, request: Request) -> JSONResponse:
        """`{"session"|"payment_intent"|"charge", "status": "open"|"inquiry"|"won"|"lost", "amount"?, "reason"?}`."""
        values = await _body(request)

        def work() -> Json:
            charge = payments.charge_of(self._context, _target(values))
            status = values.get("status", "open")
            if status in ("won", "lost"):
                return payments.close_dispute(self._context, charge, won=status == "won")
            if status not in ("open", "inquiry"):
                raise invalid("status", "Say open, inquiry, won or lost.")
            reason = str(values.get("reason", "fraudulent"))
            inquiry = status == "inquiry"
            amount = values.get("amount")
            return payments.open_dispute(self._context, charge, amount, reason, inquiry=inquiry)

        return self._commit(work)

    async def refund(self, request: Request) -> JSONResponse:
        """`{"session"|"payment_intent"|"charge", "amount"?}` as from the dashboard, or
        `{"refund": "re_…", "status": "failed"}` for a refund that bounces."""
        values = await _body(request)

        def work() -> Json:
            if "refund" in values:
                refund = self._context.store.get("refund", str(values["refund"]))
                return payments.fail_refund(self._context, refund)
            charge = payments.charge_of(self._context, _target(values))
            given = {"charge": charge["id"]}
            if values.get("amount") is not None:
                given["amount"] = str(values["amount"])
            return payments.create_refund(self._context, Params(given))

        return self._commit(work)

    def _commit(self, work: Any) -> JSONResponse:
        try:
            with self._context.store.transaction():
                answer = work()
        except StripeFault as fault:
            return _refused(fault)
        self._context.wake()
        return JSONResponse(queries.public(answer))


def _refused(fault: StripeFault) -> JSONResponse:
    return JSONResponse({"error": str(fault), "code": fault.code}, fault.status)


def _target(values: Json) -> str:
    for name in ("session", "payment_intent", "charge"):
        if isinstance(values.get(name), str):
            return str(values[name])
    raise required("session")


def _summary(session: Json) -> Json:
    return {
        "id": session["id"],
        "status": session["status"],
        "payment_status": session["payment_status"],
        "amount_total": session["amount_total"],
        "currency": session["currency"],
        "description": session["_sandbox"]["line_items"][0]["description"],
        "expires_at": session["expires_at"],
        "payment_intent": session["payment_intent"],
        "client_reference_id": session["client_reference_id"],
        "url": session["url"],
    }


async def _body(request: Request) -> Json:
    try:
        value = msgspec.json.decode(await request.body() or b"{}")
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
