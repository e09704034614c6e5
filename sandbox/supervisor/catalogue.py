"""What the try-out stack sells by subscription, for the stand-ins of those who charge again by themselves."""

from __future__ import annotations

import json

from ledger.plans import PLANS

CATALOGUE = "SANDBOX_CATALOGUE"
"""The setting by which a stand-in is given it."""


def catalogue() -> str:
    """Plans that cost something, as JSON: see `sandbox/stripe/stock.py`. Amounts in US cents."""
    return json.dumps(
        [
            {
                "id": f"plan_{plan.name}",
                "name": plan.label,
                "metadata": {"plan": plan.name},
                "prices": [
                    {
                        "lookup_key": f"{plan.name}_month",
                        "unit_amount": plan.price_usd_minor,
                        "interval": "month",
                    }
                ],
            }
            for plan in PLANS.values()
            if plan.price_usd_minor > 0
        ]
    )
