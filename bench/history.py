"""Years of history in a minute: a sound log, chain and all, written in bulk for `deep_history`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec

from ledger.clock import system_clock
from ledger.domain.account import ACCOUNTS
from ledger.domain.consideration import Consideration, Worth
from ledger.identifiers import AccountId, Identifiers, JobId, encode_crockford
from ledger.log.columns import batch_hash, columns
from ledger.log.encoding import EventRow, OutcomeRow, Prefixes, Sealed, encode_detail
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.money import USD
from ledger.service import Ledger
from ledger.testing.memory_log import MemoryLog

BATCH_ACCOUNTS = 100
_BODY = "7zzzzzzzzzzzzzzzzzzzzzzzzz"
"""Stands in the model history for the part of all ids that differs between accounts."""


class _Model(NamedTuple):
    name: str
    data: bytes
    """The event's JSON, with `_BODY` wherever an account's own id goes."""


def write_deep_history(url: str, events: int, accounts: int) -> list[AccountId]:
    """Append `events` events over `accounts` accounts, each with the same past; returns the accounts."""
    each = max(3, events // accounts)
    model = asyncio.run(_model_history(each))
    now = system_clock() - timedelta(minutes=5)
    base = int(now.timestamp() * 1000) << 80
    made: list[AccountId] = []
    with open_datastore(url) as datastore, LogRecorder(datastore).writing() as connection:
        for first in range(0, accounts, BATCH_ACCOUNTS):
            newest = connection.begin()
            bodies = [encode_crockford(base + n) for n in range(first, min(first + BATCH_ACCOUNTS, accounts))]
            position, batch = newest.last_position, newest.batch + 1
            prefixes = Prefixes(now, batch)
            rows: list[EventRow] = []
            outcomes: list[OutcomeRow] = []
            for body in bodies:
                stream = f"acct_{body}"
                made.append(AccountId(stream))
                for version, event in enumerate(model, 1):
                    position += 1
                    key: Any = f"cmd_{body}{version:03d}"
                    prefix = prefixes.of(key, "system:bench", now)
                    state = prefix + event.data.replace(_BODY.encode(), body.encode()) + b"}"
                    rows.append(EventRow(stream, version, event.name, state, position))
                    outcomes.append(
                        OutcomeRow(key, batch, len(outcomes), b"\0" * 16, position, None, encode_detail(None))
                    )
            recorded = max(now, newest.recorded_at)
            columns_ = columns(rows, outcomes)
            first_position = newest.last_position + 1
            sealed = batch_hash(newest.hash, batch, first_position, recorded, columns_)
            connection.send(
                columns_,
                Sealed(batch, first_position, position, len(outcomes), recorded, newest.hash, sealed),
            )
            connection.sent()
    return made


async def _model_history(events: int) -> list[_Model]:
    """One account's past, decided by the real domain: a paid lot, then holds and captures."""
    log = MemoryLog([ACCOUNTS], system_clock)
    ledger = Ledger(log, log, clock=system_clock, identifiers=Identifiers(system_clock))
    account = AccountId(f"acct_{_BODY}")
    worth = Worth(10_000_000, 0, 300_000, 10_300_000, 0)
    paid = Consideration(asset=USD, worth=worth, rail="card", payment_id="pay_deep")
    await ledger.grant(account, 10_000_000, consideration=paid)
    while len(log.log) < events:
        hold = await ledger.hold(
            account, 1, job_id=JobId(f"job_{_BODY}"), deadline=system_clock() + timedelta(minutes=10)
        )
        await ledger.capture(account, hold)
    return [_Model(e.name, msgspec.json.encode(e.event)) for e in log.log[:events]]
