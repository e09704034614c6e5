"""Brings Stripe's catalogue up to date, by the settings of the card rail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.catalogue import load_catalogue
from rails.stripe.catalogue import Change, StripeCatalogue, wanted
from rails.stripe.plugin import sdk_of


async def run_sync(environ: Mapping[str, str], *, apply: bool) -> Sequence[Change]:
    """The differences, which have been mended if so asked. Raises `ValueError`, `OSError`, `stripe.StripeError`."""
    sold = load_catalogue(environ.get("LLAMASKETCH_CATALOGUE", "").strip())
    client, transport = sdk_of(environ)
    catalogue = StripeCatalogue(client)
    try:
        changes = await catalogue.changes(list(wanted(sold.plans.values(), sold.packs.values())))
        for change in changes if apply else ():
            await catalogue.apply(change)
    finally:
        await transport.close_async()
    return changes
