"""`llamasketch erase`: what a person left beside the log is deleted; the log names nobody and stays whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import sqlalchemy as sa
import typer
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.auth.sessions import ending_all
from gateway.commands import stack
from gateway.database.tables import guests, idempotency_keys, l402_tokens, operators, people, sign_in_links
from gateway.wiring.generation import object_store
from generation.images.executors import ThreadExecutor
from generation.images.object_store import LinkSigner, ObjectStore
from generation.jobs.orphaned_uploads import upload_key
from generation.store.tables import job_inputs, job_results, live_sessions
from ledger.clock import system_clock
from ledger.identifiers import JobId, is_identifier
from ledger.log.tables import stored_events
from ledger.ownership import accounts_of as accounts_of_merges
from mail.tables import CHOICE_ROWS, OUTBOX_ROWS
from processes.auto_topups.tables import AUTO_TOPUP_ROWS, FORGET_ROWS
from rails.store.tables import INSTRUCTION_ROWS, PAYMENT_ROWS, SUBSCRIPTION_ROWS

JOB_STARTED = "generation.job_started.v1"
SPARE_LEASES = 3
"""Leases that ended before the job was told of them, at most."""


async def erase_person(sqlalchemy_url: str, store: ObjectStore, account_id: str) -> Mapping[str, int]:
    """Delete everything about an account that is not in the log. Returns how much of each.

    Objects go first: were this to stop in between, what still names them is still there, and it
    can be run again. A job that waits ends by itself as failed and costs nothing. What the log
    and the payments' own references hold are ids, amounts and digests; they stay.
    """
    engine = create_async_engine(sqlalchemy_url)
    try:
        async with engine.connect() as connection:
            keys = await _object_keys(connection, account_id)
        for key in keys:
            await store.delete(key)
        async with engine.begin() as connection:
            counts = await _delete_rows(connection, account_id)
    finally:
        await engine.dispose()
    return {"objects": len(keys), **counts}


async def _object_keys(connection: AsyncConnection, account_id: str) -> list[str]:
    sketches = sa.select(job_inputs.c.sketch_key).where(
        job_inputs.c.account_id == account_id, job_inputs.c.sketch_key != ""
    )
    results = sa.select(job_results.c.image_key, job_results.c.thumbnail_key).where(
        job_results.c.account_id == account_id
    )
    keys = [row.sketch_key for row in await connection.execute(sketches)]
    keys += await _uploads(connection, account_id)
    for row in await connection.execute(results):
        keys += [row.image_key, row.thumbnail_key]
    return keys


async def _uploads(connection: AsyncConnection, account_id: str) -> list[str]:
    """Where workers may have left a picture that they never reported: one place for each lease."""
    jobs = sa.select(job_inputs.c.job_id).where(job_inputs.c.account_id == account_id)
    started = (
        sa.select(stored_events.c.originator_id, sa.func.count())
        .where(stored_events.c.originator_id.in_(jobs), stored_events.c.topic == JOB_STARTED)
        .group_by(stored_events.c.originator_id)
    )
    rows = (await connection.execute(started)).all()
    return [
        upload_key(JobId(job_id), epoch)
        for job_id, times in rows
        for epoch in range(1, times + SPARE_LEASES + 1)
    ]


async def _delete_rows(connection: AsyncConnection, account_id: str) -> dict[str, int]:
    payments = sa.select(PAYMENT_ROWS.c.payment_id).where(PAYMENT_ROWS.c.account_id == account_id)
    statements = {
        "prompts": sa.delete(job_inputs).where(job_inputs.c.account_id == account_id),
        "images": sa.delete(job_results).where(job_results.c.account_id == account_id),
        "sessions": sa.delete(live_sessions).where(
            live_sessions.c.session_id.startswith(f"{account_id}/", autoescape=True)
        ),
        "payment_instructions": sa.delete(INSTRUCTION_ROWS).where(
            INSTRUCTION_ROWS.c.payment_id.in_(payments)
        ),
        "sign_in_letters": sa.delete(OUTBOX_ROWS).where(OUTBOX_ROWS.c.account_id.in_(_links_of(account_id))),
        "sign_in_links": sa.delete(sign_in_links).where(sign_in_links.c.link_id.in_(_links_of(account_id))),
        "subscription_links": sa.update(SUBSCRIPTION_ROWS)
        .where(SUBSCRIPTION_ROWS.c.account_id == account_id)
        .values(page_url=None, pay_url=None),
        "saved_cards": _forgetting(account_id),
        "automatic_topups": sa.delete(AUTO_TOPUP_ROWS).where(AUTO_TOPUP_ROWS.c.account_id == account_id),
        "l402_tokens": sa.delete(l402_tokens).where(l402_tokens.c.account_id == account_id),
        "rights_of_operators": sa.delete(operators).where(operators.c.account_id == account_id),
        "sessions_ended": ending_all(account_id, sa.func.clock_timestamp()),
        "sign_ins": sa.delete(people).where(people.c.account_id == account_id),
        "recovery_codes": sa.delete(guests).where(guests.c.account_id == account_id),
        "mail": sa.delete(OUTBOX_ROWS).where(OUTBOX_ROWS.c.account_id == account_id),
        "mail_choices": sa.delete(CHOICE_ROWS).where(CHOICE_ROWS.c.account_id == account_id),
        "idempotency_keys": sa.delete(idempotency_keys).where(idempotency_keys.c.principal == account_id),
    }
    return {name: (await connection.execute(statement)).rowcount for name, statement in statements.items()}


def _forgetting(account_id: str) -> sa.Executable:
    """The provider is to forget their card: whoever sweeps asks it, until it has."""
    kept = AUTO_TOPUP_ROWS.c
    saved = sa.select(kept.method, kept.rail, sa.func.clock_timestamp()).where(
        kept.account_id == account_id, kept.method.is_not(None)
    )
    forgetting = insert(FORGET_ROWS).from_select(["method", "rail", "due_at"], saved)
    return forgetting.on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def _links_of(account_id: str) -> sa.Select[tuple[str]]:
    """Links to sign in that were mailed to the account's person."""
    theirs = sa.select(sa.func.lower(people.c.email)).where(people.c.account_id == account_id)
    return sa.select(sign_in_links.c.link_id).where(sign_in_links.c.email.in_(theirs))


async def accounts_of(sqlalchemy_url: str, who: str) -> list[str]:
    """The accounts of an e-mail address, or the account itself; with each the guests merged into it."""
    engine = create_async_engine(sqlalchemy_url)
    query = sa.select(people.c.account_id).where(sa.func.lower(people.c.email) == who.lower())
    try:
        async with engine.connect() as connection:
            if is_identifier(who, "acct"):
                return list(await accounts_of_merges(connection, who))
            known = (await connection.execute(query)).scalars().all()
            return [
                account for found in known for account in await accounts_of_merges(connection, str(found))
            ]
    finally:
        await engine.dispose()


def run_erase(who: str, *, sure: bool, as_json: bool) -> int:
    """Find whom it is about, ask, erase."""
    settings = stack.settings()
    store = object_store(
        settings, LinkSigner(settings.secret_for("object-links"), system_clock), ThreadExecutor()
    )
    with stack.answering():
        accounts = asyncio.run(accounts_of(settings.sqlalchemy_url, who))
    if not accounts:
        stack.fail("Nobody is known by this address.", code=1)
    if not sure:
        typer.confirm(f"Erase everything about {', '.join(accounts)} for good?", abort=True)
    done = {
        account: asyncio.run(erase_person(settings.sqlalchemy_url, store, account)) for account in accounts
    }
    if as_json:
        stack.print_json(done)
    else:
        for account, counts in done.items():
            returned = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
            typer.echo(f"{account}: {returned} erased.")
    return 0
