"""Which request does what: the resources of the API as one table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.stripe import (
    balance,
    catalogue,
    checkout,
    metering,
    payments,
    promotions,
    queries,
    saved,
    schedules,
    shapes,
    taxing,
    updates,
)
from sandbox.stripe.context import API_VERSION, Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json


@dataclass(frozen=True, slots=True)
class Call:
    """One API request, understood."""

    context: Context
    faults: Faults
    params: Params
    path: str
    identifier: str


Handler = Callable[[Call], Json]


def _create_customer(call: Call) -> Json:
    call.params.allow("email", "name", "metadata", "description", "phone", "expand")
    given = {name: call.params.text(name) for name in ("email", "name", "description", "phone")}
    customer = shapes.customer(call.context, **given, metadata=call.params.metadata())
    call.context.store.insert(customer)
    call.context.emit("customer.created", customer)
    return customer


def _of(kind: str, work: Callable[[Call, Json], Json]) -> Handler:
    """Does something with the object whose id is in the path."""
    return lambda call: work(call, call.context.store.get(kind, call.identifier))


def _on_context(work: Callable[[Context, Json], Json]) -> Callable[[Call, Json], Json]:
    return lambda call, value: work(call.context, value)


def _on_call(work: Callable[[Context, Params], Json]) -> Handler:
    return lambda call: work(call.context, call.params)


def _list_prices(call: Call) -> Json:
    return catalogue.list_prices(call.context, call.params, call.path)


def _update_product(call: Call, product: Json) -> Json:
    return catalogue.update_product(call.context, product, call.params)


def _update_price(call: Call, price: Json) -> Json:
    return catalogue.update_price(call.context, price, call.params)


def _line_items(call: Call, session: Json) -> Json:
    return queries.listing(session["_sandbox"]["line_items"], call.path)


def _update_subscription(call: Call, subscription: Json) -> Json:
    return updates.update_subscription(call.context, subscription, call.params, call.faults)


def _update_schedule(call: Call, schedule: Json) -> Json:
    return schedules.update_schedule(call.context, schedule, call.params)


def _list_invoice_payments(call: Call) -> Json:
    """By the payment that pays; else as any list."""
    payment = call.params.child("payment").text("payment_intent")
    values = {name: value for name, value in call.params.values.items() if name != "payment"}
    if payment is None:
        return queries.page(call.context, "invoice_payment", Params(values), call.path, "invoice", "status")
    paying = [
        entry
        for entry in call.context.store.where("invoice_payment")
        if entry["payment"]["payment_intent"] == payment
    ]
    return queries.listing(paying, call.path)


def _list_transactions(call: Call) -> Json:
    """Of one automatic payout; else as any list."""
    payout = call.params.text("payout")
    if payout is None:
        filters = ("source", "currency", "type")
        return queries.page(call.context, "balance_transaction", call.params, call.path, *filters)
    call.params.allow("payout", "limit", "expand", "starting_after", "ending_before")
    return queries.slice_of(balance.list_transactions_of(call.context, payout), call.params, call.path)


def _balance(call: Call) -> Json:
    call.params.allow("expand")
    return balance.balance(call.context)


def _create_portal(call: Call) -> Json:
    call.params.allow("customer", "return_url", "configuration", "flow_data", "locale", "expand")
    customer = call.context.store.get("customer", call.params.need("customer"), "customer")
    identifier = call.context.new_id("bps")
    session = {
        "id": identifier,
        "object": "billing_portal.session",
        **shapes.nulls("after_expiration customer_account flow locale on_behalf_of"),
        "configuration": "bpc_sandbox",
        "created": call.context.now(),
        "customer": customer["id"],
        "livemode": False,
        "return_url": call.params.text("return_url"),
        "url": f"{call.context.public_url}/p/session/{identifier}",
    }
    return call.context.store.insert(session)


def _create_endpoint(call: Call) -> Json:
    params = call.params
    params.allow("url", "enabled_events", "api_version", "description", "metadata", "expand")
    version = params.text("api_version") or API_VERSION
    if version != API_VERSION:
        raise invalid("api_version", f"Invalid API version: {version[:40]}")
    events = params.strings("enabled_events")
    if not events:
        raise invalid("enabled_events", "You must enable at least one event.")
    secret = call.context.new_id("whsec")
    endpoint = shapes.webhook_endpoint(call.context, params.need("url"), events, secret, version)
    call.context.store.insert({**endpoint, "secret": None, "_sandbox": {"secret": secret}})
    return endpoint


def _delete_endpoint(call: Call, endpoint: Json) -> Json:
    call.context.store.delete(endpoint["id"])
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


def _cancel_intent(call: Call, intent: Json) -> Json:
    return saved.cancel_intent(call.context, intent, call.params)


def _read(call: Call, value: Json) -> Json:
    call.params.allow("expand")
    return value


def _lister(kind: str, *filters: str) -> Handler:
    def read(call: Call) -> Json:
        return queries.page(call.context, kind, call.params, call.path, *filters)

    return read


_SAVED: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "payment_intents", _on_call(saved.create_intent)),
    ("POST", "payment_intents/:id/cancel", _of("payment_intent", _cancel_intent)),
    ("POST", "payment_methods/:id/detach", _of("payment_method", _on_context(saved.detach))),
)


def _update_code(call: Call, code: Json) -> Json:
    return promotions.update_code(call.context, code, call.params)


def _read_coupon(call: Call, coupon: Json) -> Json:
    """What it is limited to is left out unless it is asked for."""
    if "applies_to" in call.params.strings("expand") and coupon["_sandbox"]["products"]:
        coupon["applies_to"] = {"products": coupon["_sandbox"]["products"]}
    call.params.values.pop("expand", None)
    return coupon


def _list_codes(call: Call) -> Json:
    """By code, whatever its capitals, and whether it can be used; else as any list."""
    code, active = call.params.text("code"), call.params.flag("active")
    names = ("code", "active")
    rest = {name: value for name, value in call.params.values.items() if name not in names}
    if code is None and active is None:
        return queries.page(call.context, "promotion_code", Params(rest), call.path)
    found = [
        entry
        for entry in call.context.store.where("promotion_code")
        if (code is None or entry["code"].upper() == code.upper()) and active in (None, entry["active"])
    ]
    return queries.slice_of(found, Params(rest), call.path)


_SALES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "coupons", _on_call(promotions.create_coupon)),
    ("GET", "coupons", lambda call: queries.page(call.context, "coupon", call.params, call.path)),
    ("GET", "coupons/:id", _of("coupon", _read_coupon)),
    ("POST", "promotion_codes", _on_call(promotions.create_code)),
    ("POST", "promotion_codes/:id", _of("promotion_code", _update_code)),
    ("GET", "promotion_codes", _list_codes),
    ("POST", "tax/calculations", _on_call(taxing.calculate)),
)


def _list_summaries(call: Call, meter: Json) -> Json:
    return metering.list_summaries(call.context, meter, call.params, call.path)


_METERS: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "billing/meters", _on_call(metering.create_meter)),
    ("POST", "billing/meters/:id/deactivate", _of("billing.meter", _on_context(metering.deactivate_meter))),
    ("GET", "billing/meters/:id/event_summaries", _of("billing.meter", _list_summaries)),
    ("POST", "billing/meter_events", _on_call(metering.create_event)),
)


_BESIDES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "balance", _balance),
    ("GET", "balance_transactions", _list_transactions),
    ("POST", "billing_portal/sessions", _create_portal),
    *_METERS,
    ("POST", "webhook_endpoints", _create_endpoint),
    ("DELETE", "webhook_endpoints/:id", _of("webhook_endpoint", _delete_endpoint)),
)


def _table() -> list[tuple[str, str, Handler]]:
    rows: list[tuple[str, str, Handler]] = [
        ("POST", "customers", _create_customer),
        ("POST", "products", _on_call(catalogue.create_product)),
        ("POST", "products/:id", _of("product", _update_product)),
        ("POST", "prices", _on_call(catalogue.create_price)),
        ("POST", "prices/:id", _of("price", _update_price)),
        ("GET", "prices", _list_prices),
        ("POST", "checkout/sessions", lambda call: checkout.create_session(call.context, call.params)),
        (
            "POST",
            "checkout/sessions/:id/expire",
            _of("checkout.session", _on_context(checkout.expire_session)),
        ),
        ("GET", "checkout/sessions/:id/line_items", _of("checkout.session", _line_items)),
        *_SAVED,
        *_SALES,
        *_BESIDES,
        ("POST", "refunds", lambda call: payments.create_refund(call.context, call.params)),
        ("POST", "subscriptions/:id", _of("subscription", _update_subscription)),
        ("DELETE", "subscriptions/:id", _of("subscription", _on_context(updates.cancel_subscription))),
        ("POST", "subscription_schedules", lambda call: schedules.create_schedule(call.context, call.params)),
        ("POST", "subscription_schedules/:id", _of("subscription_schedule", _update_schedule)),
        (
            "POST",
            "subscription_schedules/:id/release",
            _of("subscription_schedule", _on_context(schedules.release_schedule)),
        ),
        ("POST", "invoices/create_preview", lambda call: updates.preview(call.context, call.params)),
        ("GET", "invoice_payments", _list_invoice_payments),
    ]
    readable: dict[str, tuple[str, tuple[str, ...]]] = {
        "customers": ("customer", ("email",)),
        "products": ("product", ()),
        "prices": ("price", ("product",)),
        "checkout/sessions": (
            "checkout.session",
            ("payment_intent", "customer", "subscription", "status"),
        ),
        "payment_intents": ("payment_intent", ("customer",)),
        "setup_intents": ("setup_intent", ("customer",)),
        "payment_methods": ("payment_method", ("customer",)),
        "charges": ("charge", ("payment_intent", "customer")),
        "balance_transactions": ("balance_transaction", ("source",)),
        "payouts": ("payout", ("status",)),
        "refunds": ("refund", ("charge", "payment_intent")),
        "disputes": ("dispute", ("charge", "payment_intent")),
        "subscriptions": ("subscription", ("customer", "status")),
        "subscription_schedules": ("subscription_schedule", ("customer",)),
        "invoices": ("invoice", ("customer", "status", "subscription")),
        "invoice_payments": ("invoice_payment", ("invoice", "status")),
        "events": ("event", ()),
        "billing/meters": ("billing.meter", ("status",)),
        "tax/calculations": ("tax.calculation", ()),
        "webhook_endpoints": ("webhook_endpoint", ()),
    }
    for name, (kind, filters) in readable.items():
        rows += [("GET", name, _lister(kind, *filters)), ("GET", f"{name}/:id", _of(kind, _read))]
    return rows


class Router:
    """Finds the handler of a request."""

    def __init__(self) -> None:
        self._routes = [
            (method, re.compile(path.replace(":id", r"([A-Za-z0-9_]{1,120})")), handler)
            for method, path, handler in _table()
        ]

    def find(self, method: str, path: str) -> tuple[Handler, str]:
        """The handler and the id in the path. Raises the 404 fault."""
        for wanted, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is not None and wanted == method:
                return handler, match[1] if match.groups() else ""
        message = f"Unrecognized request URL ({method}: /v1/{path[:80]})."
        raise StripeFault(message, status=404)
