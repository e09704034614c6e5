"""Brings Stripe's catalogue up to date, by the settings of the card rail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.plans import PACKS, PLANS
from rails.stripe.catalogue import Change, StripeCatalogue, wanted
from rails.stripe.plugin import sdk_of


async def run_sync(environ: Mapping[str, str], *, apply: bool) -> Sequence[Change]:
    """The differences, which have been mended if so asked. Raises `ValueError`, `stripe.StripeError`."""
    client, transport = sdk_of(environ)
    catalogue = StripeCatalogue(client)
    try:
        changes = await catalogue.changes(list(wanted(PLANS.values(), PACKS.values())))
        for change in changes if apply else ():
            await catalogue.apply(change)
    finally:
        await transport.close_async()
    return changes
