"""The hosted pages of billing: the customer portal, and the page of one invoice. HTML without a script."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from sandbox.stripe import metering, shapes, updates
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.pages import day, form, go, page_templates, security_headers
from sandbox.stripe.payments import dollars
from sandbox.stripe.store import Json

CARDS = {
    "4242": "Pays at once",
    "0341": "Is declined from the next charge on",
    "3184": "Asks for 3-D Secure with each charge",
}
INVOICES_SHOWN = 24


class PortalPages:
    """The portal and invoice pages of one stand-in."""

    def __init__(self, context: Context, faults: Faults) -> None:
        self._context = context
        self._faults = faults
        self._templates = page_templates()

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/p/session/{id}", self.show_portal),
            Route("/p/session/{id}", self.change, methods=["POST"]),
            Route("/i/{id}", self.show_invoice),
            Route("/i/{id}", self.pay_invoice, methods=["POST"]),
        ]

    async def show_portal(self, request: Request) -> Response:
        """What a customer may see and change by themselves."""
        store = self._context.store
        portal = store.find("billing_portal.session", request.path_params["id"])
        if portal is None:
            return self._unknown()
        subscriptions = store.where("subscription", customer=portal["customer"])
        for subscription in subscriptions:
            self._add_view(subscription)
        invoices = [
            {
                "name": f"{entry['number']} · {day(entry['created'])}",
                "total": dollars(max(0, entry["total"])),
                "status": entry["status"],
                "url": f"/i/{entry['id']}",
            }
            for entry in store.where("invoice", customer=portal["customer"])[:INVOICES_SHOWN]
        ]
        values = {"portal": portal, "subscriptions": subscriptions, "invoices": invoices, "cards": CARDS}
        return self._render("portal.html", 200, **values)

    def _add_view(self, subscription: Json) -> None:
        item = metering.licensed(subscription)[0]
        store, method = self._context.store, subscription["default_payment_method"]
        card = None if method is None else store.find("payment_method", method)
        subscription["_view"] = {
            "name": store.get("product", item["price"]["product"])["name"],
            "price": dollars(item["price"]["unit_amount"] * item["quantity"]),
            "interval": item["price"]["recurring"]["interval"],
            "until": day(item["current_period_end"]),
            "card": None if card is None else card["card"]["last4"],
        }

    async def change(self, request: Request) -> Response:
        """Cancel at the end of the period, resume, or put another card on file."""
        answers = await form(request)
        store = self._context.store
        portal = store.find("billing_portal.session", request.path_params["id"])
        subscription = store.find("subscription", answers.get("subscription", ""))
        if portal is not None and subscription is not None and subscription["customer"] == portal["customer"]:
            try:
                with store.transaction():
                    self._change(subscription, answers)
                self._context.wake()
            except StripeFault:
                pass  # Another tab was quicker: the page shows what is so now.
        return go(request.url.path)

    def _change(self, subscription: Json, answers: dict[str, str]) -> None:
        context = self._context
        if answers.get("card") in CARDS:
            put_card(context, subscription, answers["card"])
            return
        wanted = {"cancel_at_period_end": "true" if answers.get("action") == "cancel" else "false"}
        updates.update_subscription(context, subscription, Params(wanted), self._faults)

    async def show_invoice(self, request: Request) -> Response:
        """One invoice, and how to pay it while it is open."""
        invoice = self._context.store.find("invoice", request.path_params["id"])
        if invoice is None:
            return self._unknown()
        return self._render(
            "invoice.html",
            200,
            invoice=invoice,
            amount=dollars(invoice["amount_due"]),
            lines=[(entry["description"], entry["amount"]) for entry in invoice["lines"]["data"]],
            discount=sum(entry["amount"] for entry in invoice["total_discount_amounts"]),
            dollars=dollars,
        )

    async def pay_invoice(self, request: Request) -> Response:
        """The payer paid, confirmed with the bank, or was declined."""
        answers = await form(request)
        store = self._context.store
        invoice = store.find("invoice", request.path_params["id"])
        if invoice is not None:
            try:
                with store.transaction():
                    succeeds = answers.get("answer") == "pay"
                    updates.pay_invoice(self._context, invoice, succeeds=succeeds)
                self._context.wake()
            except StripeFault:
                pass  # Another tab was quicker: the page shows what is so now.
        return go(request.url.path)

    def _unknown(self) -> HTMLResponse:
        return self._render("closed.html", 404, state="unknown", continue_url=None)

    def _render(self, template: str, status: int, **values: Any) -> HTMLResponse:
        html = self._templates.get_template(template).render(**values)
        return HTMLResponse(html, status, security_headers([]))


def put_card(context: Context, subscription: Json, last4: str) -> Json:
    """Another card on file: what it does is in its number (Stripe's own test numbers)."""
    method = context.store.insert(shapes.payment_method(context, last4, subscription["customer"]))
    subscription["default_payment_method"] = method["id"]
    context.store.save(subscription)
    context.emit("payment_method.attached", method)
    context.emit("customer.subscription.updated", subscription, {})
    return method
