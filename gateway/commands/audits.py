"""What `verify` demands of payments and jobs, and of the events that one command records together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from generation.domain.events import JobCompleted, JobRequested
from generation.domain.job import Job
from ledger.domain.events import CreditsGranted, CreditsHeld, HoldCaptured, HoldMoved, RefundOpened
from ledger.log.model import Envelope
from rails.domain.events import PaymentReinstated, PaymentSettled, RefundRequested, RefundReturned
from rails.domain.state import Payment


class PaymentAudit:
    """Each funds receipt is credited once, whatever payment it was for."""

    def __init__(self) -> None:
        self._credited: set[int] = set()

    def begin(self, stream: str) -> None:
        """See `StreamAudit.begin`."""

    def step(self, before: Payment, envelope: Envelope, after: Payment) -> Iterable[tuple[Envelope, str]]:
        """See `StreamAudit.step`."""
        if envelope.version > 1 and before.opened is None:
            yield envelope, "the payment was never opened"
        if isinstance(envelope.event, PaymentSettled):
            known = hash(envelope.event.money_ref)  # 64 bits instead of the text: there may be millions
            if known in self._credited:
                yield envelope, f"the money {envelope.event.money_ref} was credited before"
            self._credited.add(known)

    def end(self, state: Payment) -> Iterable[str]:
        """See `StreamAudit.end`."""
        return ()


class JobAudit:
    """A job ends once. Keeps the jobs that have not ended."""

    def __init__(self) -> None:
        self.unfinished: set[str] = set()
        self._stream = ""

    def begin(self, stream: str) -> None:
        """See `StreamAudit.begin`."""
        self._stream = stream

    def step(self, before: Job, envelope: Envelope, after: Job) -> Iterable[tuple[Envelope, str]]:
        """See `StreamAudit.step`."""
        if before.state.final:
            yield envelope, f"the job had already ended as {before.state.value}"

    def end(self, state: Job) -> Iterable[str]:
        """See `StreamAudit.end`."""
        if not state.state.final:
            self.unfinished.add(self._stream)
        return ()


def returned_together(events: Sequence[Envelope]) -> Iterable[tuple[Envelope, str]]:
    """A settlement with its grant, a refund and a request with their holds, a delivery with its capture. See `CommandAudit`."""
    granted = {e.event.lot_id for e in events if isinstance(e.event, CreditsGranted)}
    refunds = {e.event.refund_id for e in events if isinstance(e.event, RefundOpened)}
    holds = {e.event.hold_id for e in events if isinstance(e.event, CreditsHeld)}
    holds |= {e.event.to_hold_id for e in events if isinstance(e.event, HoldMoved)}
    captured = {e.event.job_id: e.event.credits for e in events if isinstance(e.event, HoldCaptured)}
    for envelope in events:
        match envelope.event:
            case (
                PaymentSettled(credits=credits, lot_id=lot_id)
                | PaymentReinstated(credits=credits, lot_id=lot_id)
                | RefundReturned(credits=credits, lot_id=lot_id)
            ) if credits and lot_id not in granted:
                yield envelope, f"money was settled without granting its lot {lot_id}"
            case RefundRequested(refund_id=refund_id, credits=credits) if (
                credits and refund_id not in refunds
            ):
                yield envelope, f"the refund {refund_id} was requested without holding its credits"
            case JobRequested(hold_id=hold_id) if hold_id is not None and hold_id not in holds:
                yield envelope, f"the job was requested without its hold {hold_id}"
            case JobCompleted(captured_credits=credits) if credits != captured.get(envelope.stream, 0):
                taken = captured.get(envelope.stream, 0)
                yield envelope, f"the job says {credits} credits were captured, the account says {taken}"
