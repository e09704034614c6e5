"""Products and their prices: what is sold, and under which lookup key."""

from __future__ import annotations

from sandbox.stripe import billing, queries, shapes, taxing
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json


def create_product(context: Context, params: Params) -> Json:
    """POST /v1/products."""
    params.allow("id", "name", "description", "metadata", "active", "tax_code", "expand")
    given: Json = {"name": params.need("name")}
    given |= {name: params.text(name) for name in ("description", "tax_code")}
    wanted = params.text("id")
    if wanted is not None:
        if context.store.find("product", wanted) is not None:
            raise StripeFault("Product already exists.", code="resource_already_exists", param="id")
        given["id"] = wanted
    product = shapes.product(context, **given, metadata=params.metadata())
    context.store.insert(product)
    context.emit("product.created", product)
    return product


def update_product(context: Context, product: Json, params: Params) -> Json:
    """POST /v1/products/:id."""
    params.allow("name", "description", "metadata", "active", "tax_code", "expand")
    given: Json = {
        name: value
        for name in ("name", "description", "tax_code")
        if (value := params.text(name)) is not None
    }
    if (active := params.flag("active")) is not None:
        given["active"] = active
    changed = {**product, **given, "metadata": {**product["metadata"], **params.metadata()}}
    changed["updated"] = context.now()
    context.store.save(changed)
    context.emit("product.updated", changed, {name: product[name] for name in given})
    return changed


def create_price(context: Context, params: Params) -> Json:
    """POST /v1/prices."""
    params.allow(
        "currency",
        "unit_amount",
        "product",
        "recurring",
        "nickname",
        "lookup_key",
        "transfer_lookup_key",
        "tax_behavior",
        "metadata",
        "expand",
    )
    product = context.store.get("product", params.need("product"), "product")
    amount = params.integer("unit_amount")
    if amount is None or amount < 0:
        raise invalid("unit_amount", "Invalid non-negative integer")
    key = params.text("lookup_key")
    for holder in context.store.where("price", lookup_key=key) if key is not None else ():
        if not params.flag("transfer_lookup_key"):
            raise invalid("lookup_key", f"A price already uses the lookup key `{key}`.")
        _save_price(context, {**holder, "lookup_key": None}, {"lookup_key": key})
    price = shapes.price(
        context,
        product["id"],
        params.need("currency").lower(),
        amount,
        recurring=billing.recurring(context, params),
        nickname=params.text("nickname"),
        lookup_key=key,
        tax_behavior=params.choice("tax_behavior", taxing.BEHAVIORS, "unspecified"),
        metadata=params.metadata(),
    )
    context.store.insert(price)
    context.emit("price.created", price)
    return price


def update_price(context: Context, price: Json, params: Params) -> Json:
    """POST /v1/prices/:id. What it costs never changes."""
    params.allow("active", "nickname", "tax_behavior", "metadata", "expand")
    active, nickname = params.flag("active"), params.text("nickname")
    given: Json = {} if active is None else {"active": active}
    if nickname is not None:
        given["nickname"] = nickname
    behavior = params.text("tax_behavior")
    if behavior is not None and behavior != price["tax_behavior"]:
        if price["tax_behavior"] != "unspecified":
            message = "The `tax_behavior` of a price cannot be changed once it is specified."
            raise invalid("tax_behavior", message)
        given["tax_behavior"] = params.choice("tax_behavior", taxing.BEHAVIORS, "unspecified")
    changed = {**price, **given, "metadata": {**price["metadata"], **params.metadata()}}
    _save_price(context, changed, {name: price[name] for name in given})
    return changed


def _save_price(context: Context, changed: Json, before: Json) -> None:
    context.store.save(changed)
    context.emit("price.updated", changed, before)


def list_prices(context: Context, params: Params, path: str) -> Json:
    """GET /v1/prices; by `lookup_keys` without a page."""
    keys = params.strings("lookup_keys")
    values = {name: value for name, value in params.values.items() if name != "lookup_keys"}
    if keys:
        found = [price for key in keys for price in context.store.where("price", lookup_key=key)]
        return queries.listing(found, path)
    return queries.page(context, "price", Params(values), path, "product")
