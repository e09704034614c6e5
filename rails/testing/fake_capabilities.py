"""What the fake rail can do."""

from __future__ import annotations

from ledger.money import BTC, USD, USDT, Asset
from rails.contract import Capabilities, RefundTo


def fake_capabilities(
    assets: tuple[Asset, ...] = (BTC, USDT, USD),
    label: str = "Fake",
    refund_to: RefundTo | None = RefundTo.ORIGIN,
) -> Capabilities:
    """Generous limits, a quote of 15 minutes."""
    return Capabilities(
        assets=assets,
        label=label,
        minimum={asset.code: 1 for asset in assets},
        maximum={asset.code: 10**15 for asset in assets},
        order=99,
        quote_seconds=900,
        payer_learns_secret=True,
        refund_to=refund_to,
    )
