"""`llamasketch objects`: what is stored and what of it nothing refers to."""

from __future__ import annotations

import asyncio

import msgspec
import typer
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.commands import stack
from gateway.wiring.generation import object_store
from generation.images.executors import ThreadExecutor
from generation.images.object_store import LinkSigner
from generation.jobs.unreferenced_objects import Unreferenced, UnreferencedObjects
from ledger.clock import system_clock


def show_objects(*, delete: bool, as_json: bool) -> int:
    """Count; delete what nothing refers to if asked."""
    settings = stack.settings()
    signer = LinkSigner(settings.secret_for("object-links"), system_clock)
    store = object_store(settings, signer, ThreadExecutor())

    async def sweep() -> Unreferenced:
        engine = create_async_engine(settings.sqlalchemy_url)
        try:
            unreferenced = UnreferencedObjects(engine=engine, store=store, clock=system_clock)
            return await unreferenced.sweep(delete=delete)
        finally:
            await engine.dispose()

    with stack.answering():
        found = asyncio.run(sweep())
    if as_json:
        stack.print_json({**msgspec.structs.asdict(found), "deleted": delete})
    else:
        done = "deleted" if delete else "referred to by nothing; --delete deletes them"
        typer.echo(f"{found.seen} objects; {found.unreferenced} older than a day {done}.")
    return 0
