"""Brings Stripe's catalogue up to date, by the settings of the card rail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.catalogue import load_catalogue
from ledger.clock import system_clock
from rails.configuration import require
from rails.stripe.catalogue import StripeCatalogue, wanted
from rails.stripe.plugin import TERMS, sdk_of
from rails.stripe.promotions import StripePromotions
from rails.stripe.terms import terms_of


async def run_sync(environ: Mapping[str, str], *, apply: bool) -> Sequence[str]:
    """The differences in words, which have been mended if so asked. Raises `ValueError`, `OSError`, `stripe.StripeError`."""
    require(TERMS, environ, production=False)
    sold = load_catalogue(environ.get("LLAMASKETCH_CATALOGUE", "").strip())
    client, transport = sdk_of(environ)
    catalogue, promotions = StripeCatalogue(client), StripePromotions(client)
    try:
        products = list(wanted(sold.plans.values(), sold.packs.values(), terms_of(environ)))
        changes = await catalogue.changes(products)
        for change in changes if apply else ():
            await catalogue.apply(change)
        # A code may be for a product that has just been made.
        codes = await promotions.changes(list(sold.promotions.values()), system_clock())
        for code in codes if apply else ():
            await promotions.apply(code)
    finally:
        await transport.close_async()
    return [change.says for change in changes] + [code.says for code in codes]
