"""The catalogue's promotion codes at Stripe: a coupon for what is taken off, and the code that people type.

A coupon never changes at Stripe, so its id is made of what it says: other terms are another coupon, and the code is
taken from the old one and given to the new one. Who used it before keeps what they got.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import stripe

from ledger.plans import Promotion
from rails.stripe.calls import PAGE_SIZE, Json

LEAST_LEFT = 50
"""US cents that Stripe takes at least: an amount is taken off what costs so much more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionChange:
    """One thing to be done at Stripe, in words for its operator."""

    says: str
    promotion: Promotion
    ends: str = ""
    """The code that nobody can use any more, by Stripe's name; empty: one begins."""
    coupon_is_new: bool = False


def coupon_id(promotion: Promotion) -> str:
    """By what is taken off, from what, and for how long."""
    terms = [
        promotion.percent_off,
        promotion.off_usd_minor,
        promotion.months,
        *sorted(promotion.plans),
    ]
    digest = hashlib.sha256(msgspec.json.encode(terms)).hexdigest()
    return f"{promotion.code.lower()}_{digest[:10]}"


def coupon_of(promotion: Promotion) -> Json:
    """The coupon as it should be."""
    off: Json = {"percent_off": promotion.percent_off}
    if promotion.off_usd_minor:
        off = {"amount_off": promotion.off_usd_minor, "currency": "usd"}
    match promotion.months:
        case 0:
            lasts: Json = {"duration": "forever"}
        case 1:
            lasts = {"duration": "once"}
        case months:
            lasts = {"duration": "repeating", "duration_in_months": months}
    products = [f"plan_{name}" for name in sorted(promotion.plans)]
    limited: Json = {"applies_to": {"products": products}} if products else {}
    return {"id": coupon_id(promotion), "name": promotion.label, **off, **lasts, **limited}


def code_of(promotion: Promotion) -> Json:
    """The promotion code as it should be."""
    limits: Json = {}
    if promotion.first_purchase:
        limits["first_time_transaction"] = True
    if promotion.off_usd_minor:
        limits |= {
            "minimum_amount": promotion.off_usd_minor + LEAST_LEFT,
            "minimum_amount_currency": "usd",
        }
    params: Json = {
        "code": promotion.code,
        "promotion": {"type": "coupon", "coupon": coupon_id(promotion)},
        "metadata": {"promotion": promotion.code},
    }
    if limits:
        params["restrictions"] = limits
    if promotion.redemptions_max:
        params["max_redemptions"] = promotion.redemptions_max
    if promotion.ends_at is not None:
        params["expires_at"] = int(promotion.ends_at.timestamp())
    return params


def difference(
    promotions: Iterable[Promotion], coupons: Mapping[str, Json], codes: Mapping[str, Json], now: datetime
) -> Iterator[PromotionChange]:
    """What has to be done. `coupons` is by their ids, `codes` has those that can be used now, by what people type."""
    for promotion in promotions:
        there = codes.get(promotion.code)
        known = coupons.get(coupon_id(promotion))
        off = f"{promotion.percent_off} %" if promotion.percent_off else f"{promotion.off_usd_minor} US cents"
        if there is not None and (not promotion.active or not _same(there, promotion)):
            yield PromotionChange(
                says=f"end promotion code {promotion.code}; whoever used it keeps what they got",
                promotion=promotion,
                ends=str(there["id"]),
            )
            there = None
        is_over = promotion.ends_at is not None and promotion.ends_at <= now
        if there is None and promotion.active and not is_over:
            yield PromotionChange(
                says=f"create promotion code {promotion.code}: {off} off",
                promotion=promotion,
                coupon_is_new=known is None,
            )


def _same(there: Json, promotion: Promotion) -> bool:
    wanted, limits = code_of(promotion), there["restrictions"]
    asked = wanted.get("restrictions", {})
    return bool(
        there["promotion"]["coupon"] == wanted["promotion"]["coupon"]
        and there["max_redemptions"] == wanted.get("max_redemptions")
        and there["expires_at"] == wanted.get("expires_at")
        and limits["first_time_transaction"] == asked.get("first_time_transaction", False)
        and limits["minimum_amount"] == asked.get("minimum_amount")
    )


class StripePromotions:
    """Reads what is at Stripe and does changes, by the official client."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._v1 = client.v1

    async def changes(self, promotions: Sequence[Promotion], now: datetime) -> Sequence[PromotionChange]:
        """What has to be done. Raises `stripe.StripeError`."""
        coupons: dict[str, Json] = {}
        codes: dict[str, Json] = {}
        for promotion in promotions:
            name = coupon_id(promotion)
            try:
                coupons[name] = (await self._v1.coupons.retrieve_async(name)).to_dict()
            except stripe.InvalidRequestError as error:
                if error.code != "resource_missing":
                    raise
            page = await self._v1.promotion_codes.list_async(
                {"code": promotion.code, "active": True, "limit": PAGE_SIZE}
            )
            for found in page.data:
                codes[promotion.code] = found.to_dict()
        return list(difference(promotions, coupons, codes, now))

    async def apply(self, change: PromotionChange) -> None:
        """Do one change. Doing it again, as after a crash, finds it done. Raises `stripe.StripeError`."""
        if change.ends:
            await self._v1.promotion_codes.update_async(change.ends, {"active": False})
            return
        if change.coupon_is_new:
            coupon = coupon_of(change.promotion)
            await self._v1.coupons.create_async(coupon)  # type: ignore[arg-type]
        code = code_of(change.promotion)
        await self._v1.promotion_codes.create_async(code)  # type: ignore[arg-type]
