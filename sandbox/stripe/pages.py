"""The hosted pages of Checkout, with the 3-D Secure challenge. HTML without a script."""

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

from sandbox.stripe import checkout, saved
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault
from sandbox.stripe.forms import parse_form
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


def page_templates() -> jinja2.Environment:
    """All pages, escaped."""
    loader = jinja2.FileSystemLoader(_HERE / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def static_files() -> StaticFiles:
    """The style sheet."""
    return StaticFiles(directory=_HERE / "static")


class Pages:
    """The Checkout pages of one stand-in."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._templates = page_templates()

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/c/pay/{id}", self.show),
            Route("/c/pay/{id}", self.submit, methods=["POST"]),
            Route("/c/pay/{id}/challenge", self.show_challenge),
            Route("/c/pay/{id}/challenge", self.answer_challenge, methods=["POST"]),
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
        if session["mode"] == "setup":
            waits = (
                self._context.store.get("setup_intent", session["setup_intent"])["status"]
                == "requires_action"
            )
            return self._render("setup.html", session, 200, cards=saved.CARDS, challenge=waits)
        return self._show(session)

    def _show(self, session: Json, code_error: str | None = None) -> Response:
        details, typed = session["total_details"], session["_sandbox"].get("promotion")
        on_top = session["amount_total"] - session["amount_subtotal"] + details["amount_discount"]
        return self._render(
            "checkout.html",
            session,
            200,
            error=self._error(session),
            subtotal=dollars(session["amount_subtotal"]),
            discount=dollars(details["amount_discount"]) if details["amount_discount"] else None,
            tax=dollars(details["amount_tax"]) if session["automatic_tax"]["enabled"] else None,
            tax_on_top=bool(on_top),
            promotion=None if typed is None else typed["typed"],
            code_error=code_error,
            decline_codes=[(code, _LABELS[code]) for code in DECLINES],
            subscription=session["mode"] == "subscription",
        )

    async def submit(self, request: Request) -> Response:
        """The payer pressed Pay."""
        session = self._session(request)
        answers = await form(request)
        if session is not None and session["mode"] == "setup":
            return self._save(session, answers)
        if session is not None and "promotion_code" in answers:
            return self._put_code(session, answers["promotion_code"])
        outcome = _CARDS.get(answers.get("card", "success"))
        if session is None or outcome is None:
            return self._unknown()
        session = self._act(session, outcome, answers.get("decline_code"))
        if session["status"] == "complete":
            return go(_success_url(session))
        suffix = "/challenge" if outcome == "challenge" and session["status"] == "open" else ""
        return go(f"/c/pay/{session['id']}{suffix}")

    def _put_code(self, session: Json, typed: str) -> Response:
        """The payer typed a promotion code; why it does nothing is said on the page."""
        try:
            with self._context.store.transaction():
                checkout.apply_code(self._context, session, typed[:100])
        except StripeFault as fault:
            return self._show(
                self._context.store.get("checkout.session", session["id"]), code_error=str(fault)
            )
        return go(f"/c/pay/{session['id']}")

    def _save(self, session: Json, answers: Mapping[str, str]) -> Response:
        """A card is saved; one that asks for 3-D Secure when its owner presses the second button."""
        try:
            with self._context.store.transaction():
                confirmed = answers.get("answer") == "approve"
                saved.save(self._context, session, answers.get("card", "4242"), confirmed=confirmed)
            self._context.wake()
        except StripeFault:
            pass  # Another tab was quicker: the page shows what is so now.
        session = self._context.store.get("checkout.session", session["id"])
        return go(_success_url(session) if session["status"] == "complete" else f"/c/pay/{session['id']}")

    async def show_challenge(self, request: Request) -> Response:
        """The bank's 3-D Secure page."""
        session = self._session(request)
        if session is None or session["status"] != "open":
            return go(f"/c/pay/{request.path_params['id']}")
        return self._render("challenge.html", session, 200)

    async def answer_challenge(self, request: Request) -> Response:
        """The payer approved, failed or walked away."""
        session = self._session(request)
        answers = await form(request)
        if session is None or session["status"] != "open":
            return go(f"/c/pay/{request.path_params['id']}")
        match answers.get("answer"):
            case "approve":
                session = self._act(session, "paid", None)
            case "fail":
                session = self._act(session, "authentication_failed", None)
            case _:
                pass  # Left without an answer: the payment intent goes on waiting for one.
        return go(_success_url(session) if session["status"] == "complete" else f"/c/pay/{session['id']}")

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
            items = session["_sandbox"]["line_items"]
            values.update(
                session=session,
                item=items[0]["description"] if items else session["_sandbox"]["description"],
                quantity=items[0]["quantity"] if items else 1,
                amount=dollars(session["amount_total"] or 0),
                merchant=session["branding_settings"]["display_name"],
                open_for=_duration(session["expires_at"] - self._context.now()),
            )
            targets = [origin(session[name]) for name in ("success_url", "cancel_url") if session[name]]
        html = self._templates.get_template(template).render(**values)
        return HTMLResponse(html, status, security_headers(targets))


def security_headers(targets: list[str]) -> Mapping[str, str]:
    """For a page whose forms lead to these origins."""
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


def origin(url: str) -> str:
    """`https://host:port` of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _success_url(session: Json) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def go(url: str) -> RedirectResponse:
    """The page that follows a form."""
    return RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _duration(seconds: int) -> str:
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    if hours >= 2:
        return f"{hours} hours"
    total = hours * 60 + minutes
    return "1 minute" if total == 1 else f"{total} minutes"


def day(timestamp: int) -> str:
    """`3 Jan 2027`."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    return f"{moment.day} {moment:%b %Y}"


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that was sent; none if it cannot be read."""
    body = (await request.body())[:4096]
    try:
        values = parse_form(body.decode())
    except (StripeFault, UnicodeDecodeError):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, str)}
