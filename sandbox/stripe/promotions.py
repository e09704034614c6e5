"""Coupons, the codes by which people get them, and what they take off."""

from __future__ import annotations

import stripe

from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.forms import Params
from sandbox.stripe.periods import period_end
from sandbox.stripe.shapes import blank
from sandbox.stripe.store import Json

DURATIONS = ("once", "repeating", "forever")
_COUPON = (
    "id name percent_off amount_off currency duration duration_in_months max_redemptions redeem_by applies_to "
    "metadata expand"
).split()


def create_coupon(context: Context, params: Params) -> Json:
    """`POST /v1/coupons`."""
    params.allow(*_COUPON)
    percent, amount = params.integer("percent_off"), params.integer("amount_off")
    if (percent is None) == (amount is None):
        raise required("percent_off")
    if percent is not None and not 1 <= percent <= 100:
        raise invalid("percent_off", "Invalid percent_off: must be greater than 0 and at most 100")
    if amount is not None and (amount < 1 or params.text("currency") is None):
        raise required("currency")
    duration = params.choice("duration", DURATIONS, "once")
    months = params.integer("duration_in_months")
    if (duration == "repeating") != (months is not None):
        raise required("duration_in_months")
    identifier = params.text("id") or context.new_id("x")[2:10]
    if context.store.find("coupon", identifier) is not None:
        raise StripeFault("Coupon already exists.", code="resource_already_exists", param="id")
    coupon = {
        **blank(stripe.Coupon),
        "id": identifier,
        "object": "coupon",
        "amount_off": amount,
        "created": context.now(),
        "currency": None if amount is None else params.need("currency").lower(),
        "duration": duration,
        "duration_in_months": months,
        "livemode": False,
        "max_redemptions": params.integer("max_redemptions"),
        "metadata": params.metadata(),
        "name": params.text("name"),
        "percent_off": percent,
        "redeem_by": params.integer("redeem_by"),
        "times_redeemed": 0,
        "valid": True,
        "_sandbox": {"products": params.child("applies_to").strings("products")},
    }
    for name in ("applies_to", "currency_options"):  # left out by Stripe unless they are asked for
        del coupon[name]
    context.store.insert(coupon)
    context.emit("coupon.created", coupon)
    return coupon


def create_code(context: Context, params: Params) -> Json:
    """`POST /v1/promotion_codes`."""
    params.allow(
        "promotion", "code", "active", "expires_at", "max_redemptions", "metadata", "restrictions", "expand"
    )
    promotion = params.child("promotion")
    promotion.allow("type", "coupon")
    coupon = context.store.get("coupon", promotion.need("coupon"), "promotion[coupon]")
    code = params.text("code") or context.new_id("x")[2:10].upper()
    if any(entry["active"] for entry in _of_code(context, code)):
        raise StripeFault(f"An active promotion code with `code: {code}` already exists.", param="code")
    limits = params.child("restrictions")
    limits.allow("first_time_transaction", "minimum_amount", "minimum_amount_currency")
    found = {
        **blank(stripe.PromotionCode),
        "id": context.new_id("promo"),
        "object": "promotion_code",
        "active": params.flag("active") is not False,
        "code": code,
        "created": context.now(),
        "expires_at": params.integer("expires_at"),
        "livemode": False,
        "max_redemptions": params.integer("max_redemptions"),
        "metadata": params.metadata(),
        "promotion": {"coupon": coupon["id"], "type": "coupon"},
        "restrictions": {
            "first_time_transaction": limits.flag("first_time_transaction") is True,
            "minimum_amount": limits.integer("minimum_amount"),
            "minimum_amount_currency": limits.text("minimum_amount_currency"),
        },
        "times_redeemed": 0,
    }
    context.store.insert(found)
    context.emit("promotion_code.created", found)
    return found


def update_code(context: Context, code: Json, params: Params) -> Json:
    """`POST /v1/promotion_codes/<id>`: only whether it can be used changes."""
    params.allow("active", "metadata", "expand")
    active = params.flag("active")
    if active is not None:
        code["active"] = active
    code["metadata"].update(params.metadata())
    context.store.save(code)
    context.emit("promotion_code.updated", code)
    return code


def _of_code(context: Context, code: str) -> list[Json]:
    # As at Stripe, capitals make no difference.
    return [entry for entry in context.store.where("promotion_code") if entry["code"].upper() == code.upper()]


def redeemable(context: Context, typed: str, items: list[Json]) -> tuple[Json, Json]:
    """The code that somebody typed, and its coupon. Raises the fault that says why not."""
    for code in _of_code(context, typed.strip()):
        coupon = context.store.get("coupon", code["promotion"]["coupon"])
        if not code["active"] or not coupon["valid"] or _is_over(context, code, coupon):
            continue
        subtotal = sum(item["amount_subtotal"] for item in items)
        if (code["restrictions"]["minimum_amount"] or 0) > subtotal:
            raise invalid("promotion_code", "This code is for larger purchases.")
        if not discounts_of(coupon, items):
            raise invalid("promotion_code", "This code is not for what you are buying.")
        return code, coupon
    raise invalid("promotion_code", "This code is invalid.")


def _is_over(context: Context, code: Json, coupon: Json) -> bool:
    now = context.now()
    ends = [end for end in (code["expires_at"], coupon["redeem_by"]) if end is not None]
    return any(end <= now for end in ends) or any(
        entry["max_redemptions"] is not None and entry["times_redeemed"] >= entry["max_redemptions"]
        for entry in (code, coupon)
    )


def applies(coupon: Json, price: Json) -> bool:
    """Whether a coupon takes anything off a price."""
    products = coupon["_sandbox"]["products"]
    return not products or price["product"] in products


def discounts_of(coupon: Json, items: list[Json]) -> dict[str, int]:
    """What a coupon takes off each item, by the item's id; the parts of a fixed amount add up to it."""
    eligible = [item for item in items if item["amount_subtotal"] > 0 and applies(coupon, item["price"])]
    whole = sum(item["amount_subtotal"] for item in eligible)
    if coupon["percent_off"] is not None:
        percent = int(coupon["percent_off"])
        return {item["id"]: (item["amount_subtotal"] * percent + 50) // 100 for item in eligible}
    off, found, done, given = min(coupon["amount_off"], whole), {}, 0, 0
    for item in eligible:
        done += item["amount_subtotal"]
        found[item["id"]] = off * done // whole - given
        given = off * done // whole
    return found


def begin(context: Context, code: Json, coupon: Json, **of: str | None) -> Json:
    """The `discount` that a subscription or session has from a code, and the code counted as used."""
    for entry in (code, coupon):
        entry["times_redeemed"] += 1
        context.store.save(entry)
    now, months = context.now(), coupon["duration_in_months"]
    rule = {"recurring": {"interval": "month", "interval_count": months}}
    found = {
        **blank(stripe.Discount),
        "id": context.new_id("di"),
        "object": "discount",
        "end": None if months is None else period_end(now, now, rule),
        "promotion_code": code["id"],
        "source": {"coupon": coupon["id"], "type": "coupon"},
        "start": now,
        **of,
    }
    return context.store.insert(found)


def in_force(context: Context, subscription: Json) -> tuple[Json, Json] | None:
    """The discount of a subscription and its coupon; what is over is taken off it."""
    for name in list(subscription["discounts"]):
        discount = context.store.get("discount", name)
        coupon = context.store.get("coupon", discount["source"]["coupon"])
        if discount["end"] is None or context.now() < discount["end"]:
            return discount, coupon
        subscription["discounts"].remove(name)
    return None


def used_up(coupon: Json) -> bool:
    """Whether one invoice is all that it is for."""
    return bool(coupon["duration"] == "once")
