"""What the command line needs to act on payments and accounts: the same services, without requests or background."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.auth.operators import Operators
from gateway.operators_view import Attention
from gateway.settings import Settings
from gateway.wiring.foundation import Foundation, open_foundation
from gateway.wiring.ledger import LedgerServices, build_ledger
from gateway.wiring.payments import PaymentServices, build_payments
from ledger.clock import system_clock
from processes.operating import Operations
from rails.contract import RailPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """Open for as long as the context that opened it."""

    base: Foundation
    ledger: LedgerServices
    payments: PaymentServices
    operations: Operations
    operators: Operators
    attention: Attention


@contextlib.asynccontextmanager
async def open_operating(
    settings: Settings, environ: Mapping[str, str], plugins: Sequence[RailPlugin]
) -> AsyncIterator[Operating]:
    """Any number of processes may write to one log, so the stack may run meanwhile. Nothing is sent from here: what is
    requested waits for the stack's own sweepers."""
    async with contextlib.AsyncExitStack() as stack:
        base = await open_foundation(settings, system_clock, stack)
        payments = build_payments(base, environ, plugins, stack)
        stack.push_async_callback(payments.supervision.close_rails)
        ledger = build_ledger(base)
        yield Operating(
            base=base,
            ledger=ledger,
            payments=payments,
            operations=Operations(
                payments=payments.payments,
                ledger=ledger.ledger,
                reader=base.reader,
                ownership=ledger.ownership,
            ),
            operators=Operators(base.engine, base.clock),
            attention=Attention(payments.overview, ledger.debts, base.reader),
        )
