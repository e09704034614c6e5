"""One of each letter, with everything in it."""

from __future__ import annotations

from datetime import UTC, datetime

from mail.domain.letters import AnyLetter, Receipt, RefundFailed, RefundSent, SignInLink

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
LETTERS: dict[str, AnyLetter] = {
    "receipt by card": CARD,
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
    "refund failed": RefundFailed(refund_id="re_01kb7", credits=350),
    "sign-in link": SignInLink(link_id=LINK, expires_at=MOMENT),
}
