"""One of each letter, with everything in it."""

from __future__ import annotations

from datetime import UTC, datetime

from mail.domain.letters import (
    AnyLetter,
    AutoTopupOff,
    AutoTopupWaits,
    PaymentFailed,
    PlanEnds,
    Receipt,
    RefundFailed,
    RefundSent,
    RenewalAhead,
    SignInLink,
    UsageReached,
)

MOMENT = datetime(2026, 11, 29, 16, 20, tzinfo=UTC)
ACCOUNT = "acct_01kb7zzzzzzzzzzzzzzzzzzzzz"
LINK = "sil_01kb7zzzzzzzzzzzzzzzzzzzzz"
PAYMENT = "pay_01kb7zzzzzzzzzzzzzzzzzzzzz"

CARD = Receipt(
    payment_id=PAYMENT,
    amount_minor=595,
    tax_minor=95,
    asset="USD",
    usd_minor=595,
    credits=500,
    rail="card",
    paid_at=MOMENT,
)
LIGHTNING = Receipt(
    payment_id=PAYMENT,
    amount_minor=5_120_000,
    tax_minor=0,
    asset="BTC",
    usd_minor=499,
    credits=500,
    rail="lightning",
    paid_at=MOMENT,
)
TETHER = Receipt(
    payment_id=PAYMENT,
    amount_minor=2_000_000_000,
    tax_minor=0,
    asset="USDT",
    usd_minor=1_999,
    credits=2_000,
    rail="liquid",
    paid_at=MOMENT,
)
PLAN = Receipt(
    payment_id=PAYMENT,
    amount_minor=4_000,
    tax_minor=0,
    asset="USD",
    usd_minor=4_000,
    credits=0,
    rail="card",
    paid_at=MOMENT,
    label="Unlimited",
    until=MOMENT,
)
TAXED = Receipt(
    payment_id=PAYMENT,
    amount_minor=480,
    tax_minor=80,
    asset="USD",
    usd_minor=480,
    credits=500,
    rail="card",
    paid_at=MOMENT,
    label="500 images",
    price_minor=500,
    discount_minor=100,
    tax_on_top_minor=80,
)
WITHIN = Receipt(
    payment_id=PAYMENT,
    amount_minor=800,
    tax_minor=133,
    asset="USD",
    usd_minor=800,
    credits=2_000,
    rail="card",
    paid_at=MOMENT,
    label="Starter",
    price_minor=800,
)
FAILED = PaymentFailed(subscription_id="sub_01kb7", plan_label="Pro", next_attempt_at=MOMENT)
LETTERS: dict[str, AnyLetter] = {
    "receipt by card": CARD,
    "receipt with a discount and tax": TAXED,
    "receipt with tax within": WITHIN,
    "receipt by lightning": LIGHTNING,
    "receipt in tether": TETHER,
    "refund sent by card": RefundSent(
        refund_id="re_01kb7", amount_minor=350, asset="USD", credits=350, rail="card", sent_at=MOMENT
    ),
    "refund sent by lightning": RefundSent(
        refund_id="re_01kb7",
        amount_minor=3_584_000,
        asset="BTC",
        credits=350,
        rail="lightning",
        sent_at=MOMENT,
    ),
    "plan that ends": PlanEnds(plan="pro", label="Pro", ends_at=MOMENT),
    "refund failed": RefundFailed(refund_id="re_01kb7", credits=350),
    "receipt of a plan": PLAN,
    "payment failed": FAILED,
    "payment failed for good": PaymentFailed(subscription_id="sub_01kb7", plan_label="Pro"),
    "renewal ahead": RenewalAhead(
        subscription_id="sub_01kb7", plan_label="Pro", length="month", renews_at=MOMENT
    ),
    **{
        f"automatic top-up {reason}": AutoTopupWaits(
            reason=reason,
            label="500 images",
            amount_minor=500,
            limit_minor=2_000,
            method_label="Visa •••• 4242",
            next_attempt_at=None if reason == "confirm" else MOMENT,
        )
        for reason in ("declined", "confirm", "limit")
    },
    **{
        f"automatic top-up off, {reason}": AutoTopupOff(reason=reason, label="500 images")
        for reason in ("declined", "card_removed", "card_expired", "disputed", "refunded", "price_changed")
    },
    "four fifths used": UsageReached(
        plan_label="Starter", percent=80, used=1_600, granted=2_000, ends_at=MOMENT
    ),
    "all used, and billed beyond": UsageReached(
        plan_label="Starter",
        percent=100,
        used=2_000,
        granted=2_000,
        ends_at=MOMENT,
        overage_left=500,
        overage_usd_minor=2,
    ),
    "all used": UsageReached(plan_label="Starter", percent=100, used=2_000, granted=2_000, ends_at=MOMENT),
    "sign-in link": SignInLink(link_id=LINK, expires_at=MOMENT),
}
