"""What the shop sells, put into the stand-in when it starts: nobody has to set up a catalogue to try a subscription out."""

from __future__ import annotations

import json

from sandbox.stripe import shapes
from sandbox.stripe.context import Context


def stock(context: Context, catalogue: str) -> None:
    """Add the products and prices that are missing. What is there is left as it is.

    `catalogue` is JSON: a list of `{"id", "name", "metadata", "prices": [{"lookup_key", "unit_amount", "interval"}]}`,
    amounts in US cents.
    """
    store = context.store
    with store.transaction():
        for entry in json.loads(catalogue):
            metadata = entry["metadata"]
            if store.find("product", entry["id"]) is None:
                given = {"id": entry["id"], "name": entry["name"], "metadata": metadata}
                store.insert(shapes.product(context, **given))
            for price in entry["prices"]:
                if store.where("price", lookup_key=price["lookup_key"]):
                    continue
                recurring = {
                    "interval": price["interval"],
                    "interval_count": 1,
                    "meter": None,
                    "trial_period_days": None,
                    "usage_type": "licensed",
                }
                store.insert(
                    shapes.price(
                        context,
                        entry["id"],
                        "usd",
                        price["unit_amount"],
                        recurring=recurring,
                        lookup_key=price["lookup_key"],
                        metadata=metadata,
                    )
                )
