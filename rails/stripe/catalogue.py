"""The catalogue at Stripe: a product for each plan, pack and pass, and its prices by lookup key.

What is there is compared with what should be, and only the difference is done; a second time there is none. A price
never changes at Stripe: a new one takes over the lookup key, and the old one is sold no more but goes on serving
those who subscribed at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import stripe

from ledger.plans import Pack, Plan
from rails.recurring import Offer
from rails.stripe.calls import PAGE_SIZE, Json
from rails.stripe.metering import EVENT_NAME, METER_LABEL
from rails.stripe.reading_subscriptions import OVERAGE, lookup_key, overage_key
from rails.stripe.terms import PLAIN, CheckoutTerms, Tax

CURRENCY = "usd"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPrice:
    """A price as it should be; `interval` is empty for what is paid once."""

    lookup_key: str
    unit_amount: int
    interval: str = ""
    metered: bool = False
    """Whether it is for what is used, by the meter."""
    tax_behavior: str = ""
    """How tax relates to it; empty where Stripe computes none, and then any will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedProduct:
    """A product as it should be."""

    product_id: str
    name: str
    metadata: Mapping[str, str]
    prices: Sequence[WantedPrice]
    tax_code: str = ""
    """Stripe's code of what it is; empty: any will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing to be done at Stripe, in words for its operator."""

    says: str
    product: WantedProduct
    price: WantedPrice | None = None
    old_price: str = ""
    """The price that is sold no more once the new one is there."""
    is_new: bool = False
    is_meter: bool = False
    """The meter is to be made: prices for what is used need it."""
    taxes: str = ""
    """The price whose tax behavior is said for the first time, which does not make it another one."""


def wanted(
    plans: Iterable[Plan], packs: Iterable[Pack], terms: CheckoutTerms = PLAIN
) -> Iterator[WantedProduct]:
    """What should be at Stripe; a plan that costs nothing is not sold."""
    plans = list(plans)
    behavior, code = terms.of_price().get("tax_behavior", ""), terms.of_product().get("tax_code", "")
    for plan in plans:
        if plan.price_usd_minor <= 0:
            continue
        lengths = (("month", plan.price_usd_minor), ("year", plan.year_usd_minor))
        yield WantedProduct(
            product_id=f"plan_{plan.name}",
            name=plan.label,
            metadata={"plan": plan.name},
            tax_code=code,
            prices=[
                WantedPrice(
                    lookup_key=lookup_key(Offer(plan=plan.name, length=length)),
                    unit_amount=amount,
                    interval=length,
                    tax_behavior=behavior,
                )
                for length, amount in lengths
                if amount > 0
            ],
        )
    billed = [plan for plan in plans if plan.overage_limit]
    if billed:
        yield WantedProduct(
            product_id=OVERAGE,
            name="Images beyond the plan",
            metadata={OVERAGE: "credit"},
            tax_code=code,
            prices=[
                WantedPrice(
                    lookup_key=overage_key(plan.name),
                    unit_amount=plan.overage_usd_minor,
                    interval="month",
                    metered=True,
                    tax_behavior=behavior,
                )
                for plan in billed
            ],
        )
    for pack in packs:
        yield WantedProduct(
            product_id=f"{pack.kind}_{pack.name}",
            name=pack.label,
            metadata={pack.kind: pack.name},
            tax_code=code,
            prices=[
                WantedPrice(
                    lookup_key=f"{pack.kind}_{pack.name}",
                    unit_amount=pack.price_usd_minor,
                    tax_behavior=behavior,
                )
            ],
        )


def difference(
    products: Iterable[WantedProduct],
    known: Mapping[str, Json],
    prices: Mapping[str, Json],
    meter: str | None = None,
) -> Iterator[Change]:
    """What has to be done. `known` is by product id, `prices` by lookup key; `meter` is the one that is there."""
    for product in products:
        if meter is None and any(price.metered for price in product.prices):
            yield Change(says=f"create meter {EVENT_NAME} “{METER_LABEL}”", product=product, is_meter=True)
        there = known.get(product.product_id)
        if there is None:
            yield Change(
                says=f"create product {product.product_id} “{product.name}”", product=product, is_new=True
            )
        elif _differs(there, product):
            yield Change(says=f"update product {product.product_id} “{product.name}”", product=product)
        for price in product.prices:
            yield from _price_change(product, price, prices.get(price.lookup_key), meter)


def _differs(there: Json, product: WantedProduct) -> bool:
    metadata = {name: there["metadata"].get(name) for name in product.metadata}
    taxed_otherwise = product.tax_code not in ("", there["tax_code"])
    wrong = there["name"] != product.name or not there["active"] or metadata != dict(product.metadata)
    return wrong or taxed_otherwise


_TAX_WORDS: Mapping[str, str] = {Tax.INCLUSIVE: ", tax included", Tax.EXCLUSIVE: " and tax"}


def _price_change(
    product: WantedProduct, price: WantedPrice, there: Json | None, meter: str | None
) -> Iterator[Change]:
    per = " a credit" if price.metered else f" a {price.interval}" if price.interval else ""
    cost = f"{price.unit_amount} US cents{per}"
    cost += _TAX_WORDS.get(price.tax_behavior, "")
    if there is None:
        yield Change(says=f"create price {price.lookup_key}: {cost}", product=product, price=price)
        return
    rule = there["recurring"] or {"interval": "", "interval_count": 1}
    same = (
        there["active"]
        and there["currency"] == CURRENCY
        and there["unit_amount"] == price.unit_amount
        and (rule["interval"], rule["interval_count"]) == (price.interval, 1)
        and (rule.get("usage_type") == "metered") == price.metered
        and rule.get("meter") == (meter if price.metered else None)
        and there["product"] == product.product_id
        and all(there["metadata"].get(name) == value for name, value in product.metadata.items())
    )
    known = there["tax_behavior"] or "unspecified"
    if same and price.tax_behavior and known == "unspecified":
        says = f"say of price {price.lookup_key} that its tax is {price.tax_behavior}"
        yield Change(says=says, product=product, price=price, taxes=str(there["id"]))
    elif not same or price.tax_behavior not in ("", known):
        yield Change(
            says=f"replace price {price.lookup_key}: {there['unit_amount']} by {cost};"
            " whoever subscribed at the old one keeps it",
            product=product,
            price=price,
            old_price=str(there["id"]),
        )


class StripeCatalogue:
    """Reads what is at Stripe and does changes, by the official client."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._v1 = client.v1

    async def changes(self, products: Sequence[WantedProduct]) -> Sequence[Change]:
        """What has to be done. Raises `stripe.StripeError`."""
        known = {}
        for product in products:
            try:
                found = await self._v1.products.retrieve_async(product.product_id)
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing":
                    raise
            else:
                known[product.product_id] = found.to_dict()
        keys = [price.lookup_key for product in products for price in product.prices]
        prices: dict[str, Json] = {}
        for start in range(0, len(keys), 10):  # Stripe takes ten lookup keys at once
            page = await self._v1.prices.list_async(
                {"lookup_keys": keys[start : start + 10], "limit": PAGE_SIZE}
            )
            prices |= {str(price.lookup_key): price.to_dict() for price in page.data}
        metered = any(price.metered for product in products for price in product.prices)
        return list(difference(products, known, prices, await self._meter() if metered else None))

    async def _meter(self) -> str | None:
        page = await self._v1.billing.meters.list_async({"status": "active", "limit": PAGE_SIZE})
        return next((str(meter.id) for meter in page.data if meter.event_name == EVENT_NAME), None)

    async def _make_meter(self) -> None:
        if await self._meter() is not None:
            return
        await self._v1.billing.meters.create_async(
            {
                "display_name": METER_LABEL,
                "event_name": EVENT_NAME,
                "default_aggregation": {"formula": "sum"},
            }
        )

    async def apply(self, change: Change) -> None:
        """Do one change. Doing it again, as after a crash, finds it done. Raises `stripe.StripeError`."""
        product = change.product
        more: Json = {"tax_code": product.tax_code} if product.tax_code else {}
        if change.is_meter:
            await self._make_meter()
        elif change.taxes and change.price is not None:
            behavior: Json = {"tax_behavior": change.price.tax_behavior}
            await self._v1.prices.update_async(change.taxes, behavior)  # type: ignore[arg-type]
        elif change.price is not None:
            await self._new_price(change, change.price)
        elif change.is_new:
            fresh: Json = {"id": product.product_id, "name": product.name, "metadata": dict(product.metadata)}
            await self._v1.products.create_async(fresh | more)  # type: ignore[arg-type]
        else:
            changed: Json = {"name": product.name, "metadata": dict(product.metadata), "active": True}
            await self._v1.products.update_async(product.product_id, changed | more)  # type: ignore[arg-type]

    async def _new_price(self, change: Change, price: WantedPrice) -> None:
        params: Json = {
            "product": change.product.product_id,
            "currency": CURRENCY,
            "unit_amount": price.unit_amount,
            "lookup_key": price.lookup_key,
            "transfer_lookup_key": True,
            "metadata": dict(change.product.metadata),
        }
        if price.tax_behavior:
            params["tax_behavior"] = price.tax_behavior
        if price.metered:
            meter = await self._meter()
            params["recurring"] = {"interval": price.interval, "usage_type": "metered", "meter": meter}
        elif price.interval:
            params["recurring"] = {"interval": price.interval}
        await self._v1.prices.create_async(params)  # type: ignore[arg-type]
        if change.old_price:
            await self._v1.prices.update_async(change.old_price, {"active": False})
