"""Deciding a batch: transactions in, rows to write and answers out. Pure; the lock is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ledger.errors import IdempotencyConflict, InvariantViolated, Refusal
from ledger.log.digest import body_digest
from ledger.log.encoding import EventRow, OutcomeRow, Prefixes, encode_detail
from ledger.log.model import Receipt, Transaction
from ledger.log.unit_of_work import BatchUnitOfWork, TransactionUnitOfWork

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode
_PLAIN = (str, int, bool)
"""Results that are the same after a trip through JSON."""

Answer = Receipt | BaseException


@dataclass(slots=True)
class Decision:
    """What one batch decided. `answers` are given out only after COMMIT."""

    uow: BatchUnitOfWork
    batch: int
    position: int
    """The position of the newest event, counting those decided here."""
    answers: list[Answer] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    """Keys of commands of which nothing is kept now (refused without keeping it, faulty, or breaking an invariant):
    that they were done before would not show."""
    violations: list[tuple[Transaction, InvariantViolated]] = field(default_factory=list)
    """Transactions that were undone because they broke an invariant; nothing is recorded of them."""
    _first: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    _prefixes: Prefixes = field(init=False)

    def __post_init__(self) -> None:
        self._prefixes = Prefixes(self.uow.now, self.batch)

    def decide(self, transaction: Transaction, known: OutcomeRow | None) -> None:
        """Decide one transaction after all earlier ones, or answer it from what is recorded."""
        try:
            digest = body_digest(transaction.body)
            if known is not None:
                self.answers.append(replay(known, digest))
                return
            earlier = self._first.get(transaction.key)
            if earlier is not None:
                self._answer_twin(*earlier, digest)
                return
            self._decide_new(transaction, digest)
        except InvariantViolated as violated:
            self.violations.append((transaction, violated))
            self._answer_unrecorded(transaction, violated, known)
        except BaseException as fault:  # noqa: BLE001 - a bug in one command must not fail its neighbours
            self._answer_unrecorded(transaction, _carryable(fault), known)

    def _answer_unrecorded(
        self, transaction: Transaction, answer: Exception, known: OutcomeRow | None = None
    ) -> None:
        self.answers.append(answer)
        if known is None:
            self.unrecorded.append(transaction.key)

    def _answer_twin(self, index: int, first_digest: bytes, digest: bytes) -> None:
        answer: Answer = self.answers[index]
        if first_digest != digest:
            answer = IdempotencyConflict()
        elif isinstance(answer, Receipt):
            answer = Receipt(answer.position, answer.result, replayed=True)
        self.answers.append(answer)

    def _decide_new(self, transaction: Transaction, digest: bytes) -> None:
        uow = self.uow.begin(transaction)
        answer: Answer
        refusal: str | None = None
        try:
            result = transaction.decide(uow)
            detail = encode_detail(result)
            rows = self._rows(transaction, uow)
        except Refusal as refused:
            if not transaction.keeps_refusals:
                self._answer_unrecorded(transaction, refused)
                return
            detail = encode_detail(refused.details)
            refusal = refused.code
            answer = refused
        else:
            plain = result is None or type(result) in _PLAIN
            position = self.position + len(rows)
            answer = Receipt(position, result if plain else _decode(detail), replayed=False)
            # From here on nothing fails.
            self.events.extend(rows)
            self.position = position
            uow.keep()
        self._first[transaction.key] = (len(self.answers), digest)
        self.outcomes.append(
            OutcomeRow(
                transaction.key, self.batch, len(self.outcomes), digest, self.position, refusal, detail
            )
        )
        self.answers.append(answer)

    def _rows(self, transaction: Transaction, uow: TransactionUnitOfWork) -> list[EventRow]:
        prefix = self._prefixes.of(transaction.key, transaction.actor, uow.occurred_at)
        name_of = self.uow.categories.name_of
        position = self.position
        rows = []
        for stream, version, event in uow.events:
            position += 1
            rows.append(EventRow(stream, version, name_of(event), prefix + _encode(event) + b"}", position))
        return rows


def _carryable(fault: BaseException) -> Exception:
    """As an exception that a future can carry."""
    if isinstance(fault, Exception) and not isinstance(fault, StopIteration):
        return fault
    returned = RuntimeError(f"the command raised {fault!r}")
    returned.__cause__ = fault
    return returned


def decide_batch(
    transactions: Sequence[Transaction],
    known: Mapping[str, OutcomeRow],
    uow: BatchUnitOfWork,
    *,
    batch: int,
    position: int,
) -> Decision:
    """Decide all transactions in order. `known` are outcomes recorded earlier for their keys."""
    decision = Decision(uow, batch, position)
    for transaction in transactions:
        decision.decide(transaction, known.get(transaction.key))
    return decision


def replay(known: OutcomeRow, digest: bytes) -> Receipt:
    """The first answer to a command, given again. Raises what it raised."""
    if bytes(known.body_digest) != digest:
        raise IdempotencyConflict
    detail: Any = _decode(known.detail)
    if known.refusal is not None:
        raise Refusal.restore(known.refusal, detail)
    return Receipt(known.position, detail, replayed=True)
