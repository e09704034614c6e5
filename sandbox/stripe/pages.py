"""The hosted pages: Checkout, the 3-D Secure challenge, the billing portal. HTML without a script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from sandbox.stripe import billing, checkout
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params, parse_form
from sandbox.stripe.payments import DECLINES, dollars
from sandbox.stripe.store import Json

_HERE = Path(__file__).parent
_CARDS = {"success": "paid", "challenge": "challenge", "declined": "declined", "delayed": "processing"}
_LABELS = {
    "generic_decline": "No reason given",
    "insufficient_funds": "Insufficient funds",
    "do_not_honor": "Do not honor",
    "lost_card": "Lost card",
    "stolen_card": "Stolen card",
    "fraudulent": "Suspected fraud",
    "card_velocity_exceeded": "Too many attempts",
    "expired_card": "Expired card",
    "incorrect_cvc": "Incorrect security code",
    "processing_error": "Processing error",
}


def static_files() -> StaticFiles:
    """The style sheet."""
    return StaticFiles(directory=_HERE / "static")


class Pages:
    """The hosted pages of one stand-in."""

    def __init__(self, context: Context, faults: Faults) -> None:
        self._context = context
        self._faults = faults
        loader = jinja2.FileSystemLoader(_HERE / "templates")
        self._templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/c/pay/{id}", self.show),
            Route("/c/pay/{id}", self.submit, methods=["POST"]),
            Route("/c/pay/{id}/challenge", self.show_challenge),
            Route("/c/pay/{id}/challenge", self.answer_challenge, methods=["POST"]),
            Route("/p/session/{id}", self.show_portal),
            Route("/p/session/{id}", self.change_subscription, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """The Checkout page, or why there is nothing to pay any more."""
        session = self._session(request)
        if session is None:
            return self._unknown()
        if session["status"] != "open":
            continue_url = _success_url(session) if session["status"] == "complete" else session["cancel_url"]
            return self._render(
                "closed.html", session, 200, state=session["status"], continue_url=continue_url
            )
        return self._render(
            "checkout.html",
            session,
            200,
            error=self._error(session),
            decline_codes=[(code, _LABELS[code]) for code in DECLINES],
            subscription=session["mode"] == "subscription",
        )

    async def submit(self, request: Request) -> Response:
        """The payer pressed Pay."""
        session = self._session(request)
        form = await _form(request)
        outcome = _CARDS.get(form.get("card", "success"))
        if session is None or outcome is None:
            return self._unknown()
        session = self._act(session, outcome, form.get("decline_code"))
        if session["status"] == "complete":
            return _go(_success_url(session))
        suffix = "/challenge" if outcome == "challenge" and session["status"] == "open" else ""
        return _go(f"/c/pay/{session['id']}{suffix}")

    async def show_challenge(self, request: Request) -> Response:
        """The bank's 3-D Secure page."""
        session = self._session(request)
        if session is None or session["status"] != "open":
            return _go(f"/c/pay/{request.path_params['id']}")
        return self._render("challenge.html", session, 200)

    async def answer_challenge(self, request: Request) -> Response:
        """The payer approved, failed or walked away."""
        session = self._session(request)
        form = await _form(request)
        if session is None or session["status"] != "open":
            return _go(f"/c/pay/{request.path_params['id']}")
        match form.get("answer"):
            case "approve":
                session = self._act(session, "paid", None)
            case "fail":
                session = self._act(session, "authentication_failed", None)
            case _:
                pass  # Left without an answer: the payment intent goes on waiting for one.
        return _go(_success_url(session) if session["status"] == "complete" else f"/c/pay/{session['id']}")

    async def show_portal(self, request: Request) -> Response:
        """What a customer may see and change by themselves."""
        portal = self._context.store.find("billing_portal.session", request.path_params["id"])
        if portal is None:
            return self._unknown()
        store = self._context.store
        subscriptions = store.where("subscription", customer=portal["customer"])
        invoices = store.where("invoice", customer=portal["customer"])[:24]
        for subscription in subscriptions:
            item = subscription["items"]["data"][0]
            subscription["_view"] = {
                "name": store.get("product", item["price"]["product"])["name"],
                "price": dollars(item["price"]["unit_amount"] * item["quantity"]),
                "interval": item["price"]["recurring"]["interval"],
                "until": _day(item["current_period_end"]),
            }
        rows = [
            (entry["number"], _day(entry["created"]), dollars(entry["total"]), entry["status"])
            for entry in invoices
        ]
        return self._render(
            "portal.html", None, 200, portal=portal, subscriptions=subscriptions, invoices=rows
        )

    async def change_subscription(self, request: Request) -> Response:
        """Cancel at the end of the period, or resume."""
        form = await _form(request)
        store = self._context.store
        portal = store.find("billing_portal.session", request.path_params["id"])
        subscription = store.find("subscription", form.get("subscription", ""))
        if portal is not None and subscription is not None and subscription["customer"] == portal["customer"]:
            wanted = {"cancel_at_period_end": "true" if form.get("action") == "cancel" else "false"}
            try:
                with store.transaction():
                    billing.update_subscription(self._context, subscription, Params(wanted), self._faults)
                self._context.wake()
            except StripeFault:
                pass  # Another tab was quicker: the page shows what is so now.
        return _go(request.url.path)

    def _session(self, request: Request) -> Json | None:
        with self._context.store.transaction():
            checkout.sweep(self._context)
        return self._context.store.find("checkout.session", request.path_params["id"])

    def _act(self, session: Json, outcome: str, decline_code: str | None) -> Json:
        try:
            with self._context.store.transaction():
                checkout.act(self._context, session, outcome, decline_code)
            self._context.wake()
        except StripeFault:
            pass  # Another tab was quicker: the page shows what is so now.
        return self._context.store.get("checkout.session", session["id"])

    def _unknown(self) -> HTMLResponse:
        return self._render("closed.html", None, 404, state="unknown", continue_url=None)

    def _error(self, session: Json) -> str | None:
        intent_id = session["payment_intent"] or session["_sandbox"].get("intent")
        if intent_id is None:
            return None
        error = self._context.store.get("payment_intent", intent_id)["last_payment_error"]
        return None if error is None else str(error["message"])

    def _render(self, template: str, session: Json | None, status: int, **values: Any) -> HTMLResponse:
        targets: list[str] = []
        if session is not None:
            item = session["_sandbox"]["line_items"][0]
            values.update(
                session=session,
                item=item["description"],
                quantity=item["quantity"],
                amount=dollars(session["amount_total"]),
                merchant=session["branding_settings"]["display_name"],
                open_for=_duration(session["expires_at"] - self._context.now()),
            )
            targets = [_origin(session[name]) for name in ("success_url", "cancel_url") if session[name]]
        html = self._templates.get_template(template).render(**values)
        return HTMLResponse(html, status, _security_headers(targets))


def _security_headers(targets: list[str]) -> Mapping[str, str]:
    # Browsers apply form-action to the redirect that answers a form, so the shop's origin is named.
    form_action = " ".join(["'self'", *sorted(set(targets))])
    policy = (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        f"form-action {form_action}"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _success_url(session: Json) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def _go(url: str) -> RedirectResponse:
    return RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _duration(seconds: int) -> str:
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    if hours >= 2:
        return f"{hours} hours"
    total = hours * 60 + minutes
    return "1 minute" if total == 1 else f"{total} minutes"


def _day(timestamp: int) -> str:
    moment = datetime.fromtimestamp(timestamp, UTC)
    return f"{moment.day} {moment:%b %Y}"


async def _form(request: Request) -> dict[str, str]:
    body = (await request.body())[:4096]
    try:
        values = parse_form(body.decode())
    except (StripeFault, UnicodeDecodeError):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, str)}
