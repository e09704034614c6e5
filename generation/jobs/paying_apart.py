"""Counting jobs that are paid apart, in the transactions in which they come and go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from generation.domain.paid_apart import EVERYBODY, PaidApart
from generation.store.tables import PAID_APART
from ledger.log.model import SideTable, UnitOfWork


def rows_of_account(account_id: str) -> tuple[tuple[SideTable, str], ...]:
    """The rows that a transaction declares in which such a job may come or go."""
    return (PAID_APART, account_id), (PAID_APART, EVERYBODY)


def rows_of_networks(keys: Iterable[str]) -> Iterator[tuple[SideTable, str]]:
    """The rows that a transaction declares in which such a job is asked for from these networks."""
    return ((PAID_APART, key) for key in keys)


def of_account(uow: UnitOfWork, account_id: str) -> int:
    """How many of this account there are. The transaction declares the account's row."""
    return _read(uow, account_id).jobs


def of_network(uow: UnitOfWork, key: str) -> int:
    """How many were asked for from a network whose time has not passed. The transaction declares the network's row."""
    return _read(uow, key).jobs


def enter_network(uow: UnitOfWork, key: str, deadline: datetime) -> None:
    """Count one more of a network: until its deadline, whatever becomes of it. The transaction declares its row."""
    uow.put(PAID_APART, _read(uow, key).changed_by(1, deadline).to_row())


def of_everybody(uow: UnitOfWork) -> int:
    """How many there are in all. The transaction declares that row."""
    return _read(uow, EVERYBODY).jobs


def enter(uow: UnitOfWork, account_id: str, deadline: datetime) -> None:
    """Count one more. The transaction declares `rows_of_account`."""
    _change(uow, account_id, 1, deadline)


def leave(uow: UnitOfWork, account_id: str, deadline: datetime) -> None:
    """One has ended, or credits are held for it now. The transaction declares `rows_of_account`."""
    _change(uow, account_id, -1, deadline)


def _read(uow: UnitOfWork, counted_for: str) -> PaidApart:
    return PaidApart.of(counted_for, uow.get(PAID_APART, counted_for), uow.now)


def _change(uow: UnitOfWork, account_id: str, jobs: int, deadline: datetime) -> None:
    for counted_for in (account_id, EVERYBODY):
        counted = _read(uow, counted_for).changed_by(jobs, deadline)
        if counted.by_minute:
            uow.put(PAID_APART, counted.to_row())
        else:
            uow.delete(PAID_APART, counted_for)
