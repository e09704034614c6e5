"""Lists with cursors, and `expand[]`."""

from __future__ import annotations

from typing import Any

from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json

MAX_PAGE = 100
MAX_EXPAND_DEPTH = 4
MAX_TYPES = 20
_REFERENCES = {
    "balance_transaction": "balance_transaction",
    "charge": "charge",
    "customer": "customer",
    "coupon": "coupon",
    "default_payment_method": "payment_method",
    "default_price": "price",
    "failure_balance_transaction": "balance_transaction",
    "invoice": "invoice",
    "latest_charge": "charge",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "product": "product",
    "promotion_code": "promotion_code",
    "setup_intent": "setup_intent",
    "schedule": "subscription_schedule",
    "subscription": "subscription",
}

_FIELDS = {("invoice", "subscription"): "parent.subscription_details.subscription"}
"""Where a filter's field is, if not under the filter's own name."""


def page(context: Context, kind: str, params: Params, url: str, *filters: str) -> Json:
    """A `list` object. Filters are equality on fields of the object."""
    names = ("limit", "starting_after", "ending_before", "created", "expand", "types", "type")
    params.allow(*names, *filters)
    limit = params.integer("limit")
    if limit is None:
        limit = 10
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("limit", f"Invalid limit: must be between 1 and {MAX_PAGE}")
    before, after = params.text("ending_before"), params.text("starting_after")
    if before is not None and after is not None:
        raise StripeFault("You may only specify one of these parameters: ending_before, starting_after.")
    types = params.strings("types") or [text for text in [params.text("type")] if text]
    if len(types) > MAX_TYPES:
        raise invalid("types", f"You may only specify up to {MAX_TYPES} event types.")
    equal = {
        _FIELDS.get((kind, name), name): params.text(name)
        for name in filters
        if params.text(name) is not None
    }
    data, more = context.store.page(
        kind,
        equal,
        limit=limit,
        starting_after=after,
        ending_before=before,
        created=_created(params),
        types=types,
    )
    return {"object": "list", "url": url, "has_more": more, "data": data}


def slice_of(found: list[Json], params: Params, url: str) -> Json:
    """A page of objects that are at hand, newest first."""
    limit, after = params.integer("limit") or 10, params.text("starting_after")
    known = [entry["id"] for entry in found]
    if after is not None and after not in known:
        raise invalid("starting_after", f"No such balance_transaction: {after[:40]}")
    rest = found if after is None else found[known.index(after) + 1 :]
    return {"object": "list", "url": url, "has_more": len(rest) > limit, "data": rest[:limit]}


def _created(params: Params) -> dict[str, int]:
    if isinstance(params.values.get("created"), str):
        exact = params.integer("created") or 0
        return {"gte": exact, "lte": exact}
    bounds = params.child("created")
    bounds.allow("gt", "gte", "lt", "lte")
    return {name: bounds.integer(name) or 0 for name in bounds.values}


def listing(data: list[Json], url: str) -> Json:
    """A `list` object with everything in it."""
    return {"object": "list", "url": url, "has_more": False, "data": data}


def public(value: Any) -> Any:
    """Without what the stand-in keeps for itself."""
    if isinstance(value, dict):
        return {key: public(inner) for key, inner in value.items() if key != "_sandbox"}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    return value


def expand(context: Context, value: Json, paths: list[str]) -> Json:
    """Replace ids by their objects along each path, at most four levels deep."""
    for path in paths:
        parts = path.split(".")
        if len(parts) > MAX_EXPAND_DEPTH:
            raise StripeFault("You cannot expand more than 4 levels of a property.", param="expand")
        _walk(context, value, parts, path)
    return value


def _walk(context: Context, node: Any, parts: list[str], path: str) -> None:
    if not parts or node is None:
        return
    if isinstance(node, list):
        for entry in node:
            _walk(context, entry, parts, path)
        return
    name, rest = parts[0], parts[1:]
    if name == "data" and node.get("object") == "list":
        _walk(context, node["data"], rest, path)
        return
    included = _included(context, node, name)
    if included is not None:
        node[name] = included
    elif isinstance(node.get(name), str) and name in _REFERENCES:
        node[name] = context.store.find(_REFERENCES[name], node[name])
    elif isinstance(node.get(name), str) and name == "source":
        node[name] = context.store.any(node[name])
    elif name not in node:
        raise StripeFault(f"This property cannot be expanded ({path}).", param="expand")
    _walk(context, node.get(name), rest, path)


def _included(context: Context, node: Json, name: str) -> Json | None:
    """Lists that Stripe leaves out unless asked for."""
    identifier = node.get("id", "")
    match node.get("object"), name:
        case "checkout.session", "line_items":
            items = node.get("_sandbox", {}).get("line_items", [])
            return listing(items, f"/v1/checkout/sessions/{identifier}/line_items")
        case "charge", "refunds":
            refunds = context.store.where("refund", charge=identifier)
            return listing(refunds[:10], f"/v1/charges/{identifier}/refunds")
        case "invoice", "payments":
            payments = context.store.where("invoice_payment", invoice=identifier)
            return listing(payments, f"/v1/invoices/{identifier}/payments")
        case _:
            return None
