"""`llamasketch stripe`: what an operator does at Stripe from here."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated

import stripe
import typer

from ledger.plans import PACKS, PLANS
from rails.stripe.catalogue import Change, StripeCatalogue, wanted
from rails.stripe.plugin import sdk_of

stripe_app = typer.Typer(help="Stripe: the catalogue of plans, packs and passes.", rich_markup_mode=None)


def add_stripe(app: typer.Typer) -> None:
    """Entry point of `llamasketch.commands`."""
    app.add_typer(stripe_app, name="stripe")


@stripe_app.callback()
def _group() -> None:
    """Stripe: the catalogue of plans, packs and passes."""


@stripe_app.command()
def sync(
    apply: Annotated[bool, typer.Option("--apply", help="Do it, and do not only say it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
) -> None:
    """Say what differs between the catalogue here and the products and prices at Stripe; with --apply, mend it."""
    try:
        changes = asyncio.run(run_sync(os.environ, apply=apply))
    except (ValueError, stripe.StripeError) as error:
        typer.echo(f"Stripe: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"applied": apply, "changes": [change.says for change in changes]}))
        return
    for change in changes:
        typer.echo(("done: " if apply else "would ") + change.says)
    if not changes:
        typer.echo("Stripe has the catalogue as it is here.")
    elif not apply:
        typer.echo(f"{len(changes)} to do. Nothing was changed; --apply does it.")


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
