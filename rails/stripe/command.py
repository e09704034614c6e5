"""`llamasketch stripe`: what an operator does at Stripe from here. An entry point of `llamasketch.commands`."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated

import typer


def add_stripe(app: typer.Typer) -> None:
    """Add `llamasketch stripe`."""
    group = typer.Typer(
        help="Stripe: the catalogue of plans, packs, passes and promotion codes.", rich_markup_mode=None
    )
    app.add_typer(group, name="stripe")

    @group.callback()
    def _group() -> None:
        """Stripe: the catalogue of plans, packs, passes and promotion codes."""

    @group.command()
    def sync(
        apply: Annotated[bool, typer.Option("--apply", help="Do it, and do not only say it.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
    ) -> None:
        """Say what differs between the catalogue here and products, prices and codes at Stripe; --apply mends it."""
        raise typer.Exit(_sync(apply=apply, as_json=as_json))


def _sync(*, apply: bool, as_json: bool) -> int:
    # Every other command would wait for Stripe's package, too.
    import stripe

    from rails.stripe.syncing import run_sync

    try:
        changes = asyncio.run(run_sync(os.environ, apply=apply))
    except (ValueError, OSError, stripe.StripeError) as error:
        typer.echo(f"Stripe: {error}", err=True)
        return 1
    if as_json:
        typer.echo(json.dumps({"applied": apply, "changes": list(changes)}))
        return 0
    for change in changes:
        typer.echo(("done: " if apply else "would ") + change)
    if not changes:
        typer.echo("Stripe has the catalogue as it is here.")
    elif not apply:
        typer.echo(f"{len(changes)} to do. Nothing was changed; --apply does it.")
    return 0
