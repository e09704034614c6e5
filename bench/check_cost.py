"""`python -m bench.check_cost`: what the run-time check of the invariants adds to deciding a cycle.

No database and no event loop: batches of holds and captures are decided in memory, with and without the
check in turn, many times in short rounds. The quickest round of each side counts, so that busy neighbours
do not matter. A cycle is one hold and one capture.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.cycles import LOT
from bench.surroundings import machine
from ledger.clock import system_clock
from ledger.domain import commands as c
from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.applying import capture_in, hold_in
from ledger.domain.consideration import Consideration, Worth
from ledger.domain.lots import Source
from ledger.domain.state import Account, AccountStatus, with_status
from ledger.identifiers import Identifiers
from ledger.log.categories import Categories
from ledger.log.deciding import decide_batch
from ledger.log.model import Transaction, UnitOfWork
from ledger.log.unit_of_work import BatchUnitOfWork
from ledger.money import USD

ROUNDS = 800
ACCOUNTS_EACH = 64
IDS = Identifiers(system_clock)


def _account(now: datetime, paid_first: bool) -> Account:
    """Four lots, of which the first is used: bought, or a gift."""
    account = with_status(
        Account(), AccountStatus(allowance_day=now.date().isoformat(), allowance_granted=20)
    )
    worth = Worth(LOT - LOT // 30, 0, LOT // 30, LOT, 0)
    money = Consideration(asset=USD, worth=worth, rail="card", payment_id="pay_1")
    gifts = 0 if paid_first else 2
    for number in range(4):
        gift = number < gifts
        command = c.GrantCredits(
            lot_id=f"lot_{number}",
            credits=LOT,
            source=Source.PROMOTION if gift else Source.PAYMENT,
            consideration=None if gift else money,
        )
        for event in decide(account, command, now):
            account = evolve(account, event)
    return account


def _transaction(stream: str, command: Any, run: Callable[[UnitOfWork, str, Any], Any]) -> Transaction:
    def decided(uow: UnitOfWork) -> int:
        return int(run(uow, stream, command).credits)

    return Transaction(
        key=IDS.command(), actor="system:bench", body=[stream, command], streams=(stream,), decide=decided
    )


def _round(categories: Categories, account: Account, now: datetime) -> float:
    """Microseconds of this process for each cycle."""
    holds, captures = [], []
    for number in range(ACCOUNTS_EACH):
        stream, hold_id, deadline = f"acct_{number}", IDS.hold(), now + timedelta(hours=1)
        hold = c.HoldCredits(hold_id=hold_id, job_id="job_1", credits=1, deadline=deadline)
        holds.append(_transaction(stream, hold, hold_in))
        captures.append(_transaction(stream, c.CaptureHold(hold_id=hold_id), capture_in))
    states: dict[str, tuple[Any, int]] = {f"acct_{number}": (account, 4) for number in range(ACCOUNTS_EACH)}
    began = time.process_time()
    for batch, transactions in enumerate((holds, captures)):
        uow = BatchUnitOfWork(categories, states, {}, now)
        decision = decide_batch(transactions, {}, uow, batch=batch, position=0)
        states = dict(uow.changed_states)
    taken = time.process_time() - began
    assert len(decision.events) == ACCOUNTS_EACH, "a capture was refused"
    return taken * 1_000_000 / ACCOUNTS_EACH


def _compare(account: Account, now: datetime) -> dict[str, float]:
    sides = Categories([replace(ACCOUNTS, check=None)]), Categories([ACCOUNTS])
    rounds: tuple[list[float], list[float]] = [], []
    for number in range(ROUNDS):
        for side in (0, 1) if number % 2 else (1, 0):
            rounds[side].append(_round(sides[side], account, now))
    without, with_ = (min(side) for side in rounds)
    return {
        "without_us": round(without, 2),
        "with_us": round(with_, 2),
        "check_us": round(with_ - without, 2),
    }


def main() -> None:
    """Print the figures as JSON."""
    now = datetime.now(UTC)
    gc.disable()
    found: dict[str, Any] = {"machine": machine()}
    for name, paid_first in (("gift_first", False), ("paid_first", True)):
        found[name] = _compare(_account(now, paid_first), now)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
