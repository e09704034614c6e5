"""What `verify` demands of credit accounts, beside the chain: the ledger's invariants, event by event."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.domain import holds as holds_
from ledger.domain.events import CreditsHeld, HoldCaptured, HoldExpired, HoldMoved, HoldReleased
from ledger.domain.invariants import check_step
from ledger.domain.movements import movement
from ledger.domain.state import Account
from ledger.log.model import Envelope

HOLDS_PER_CHECK = 32
"""An account with n open holds is checked in full every n / 32 events: the work stays linear."""

_Step = tuple[Account, Envelope, Account]


class AccountAudit:
    """See `StreamAudit`. Keeps the hold ids of one account, and all open holds at the end."""

    def __init__(self) -> None:
        self.open_holds: dict[str, str] = {}
        """Job ids of the holds that are open at the end of the log, each with its account."""
        self._stream = ""
        self._seen: set[int] = set()
        self._open: set[str] = set()
        self._unchecked: list[_Step] = []
        self._sums = (0, 0, 0)

    def begin(self, stream: str) -> None:
        """See `StreamAudit.begin`."""
        self._stream = stream
        self._seen, self._open, self._unchecked = set(), set(), []
        self._sums = (0, 0, 0)

    def step(self, before: Account, envelope: Envelope, after: Account) -> Iterable[tuple[Envelope, str]]:
        """See `StreamAudit.step`. One resolution per hold, for ever, and the invariants."""
        wrong = [(envelope, why) for why in self._resolutions(envelope)]
        change = movement(envelope.event)
        if change is not None:
            posted, held, debt = self._sums
            self._sums = (posted + change.posted, held + change.held, debt + change.debt)
        self._unchecked.append((before, envelope, after))
        if len(self._unchecked) * HOLDS_PER_CHECK >= len(self._open):
            wrong += self._check()
        return wrong

    def end(self, state: Account) -> Iterable[str]:
        """See `StreamAudit.end`. What the movements add up to is what the state says."""
        wrong = [why for _, why in self._check()] if self._unchecked else []
        booked = sum(lot.left + lot.held for lot in state.lots)
        if self._sums != (booked, state.held(), state.debt):
            wrong.append(
                f"the movements add up to (posted, held, debt) {self._sums}, "
                f"the account says {(booked, state.held(), state.debt)}"
            )
        for hold in holds_.each(state.holds):
            self.open_holds[hold.job_id] = self._stream
        return wrong

    def _check(self) -> list[tuple[Envelope, str]]:
        """Check the newest step; only if it is wrong, all since the last check, to name the first."""
        steps, self._unchecked = self._unchecked, []
        if not check_step(steps[-1][0], steps[-1][1].event, steps[-1][2]):
            return []
        for before, envelope, after in steps:
            wrong = check_step(before, envelope.event, after)
            if wrong:
                return [(envelope, why) for why in wrong]
        return []

    def _resolutions(self, envelope: Envelope) -> list[str]:
        match envelope.event:
            case CreditsHeld(hold_id=hold_id):
                return self._opened(hold_id)
            case HoldCaptured(hold_id=hold_id) | HoldReleased(hold_id=hold_id) | HoldExpired(hold_id=hold_id):
                return self._resolved(hold_id)
            case HoldMoved(hold_id=hold_id, to_hold_id=to_hold_id):
                if hold_id == to_hold_id:
                    return [] if hold_id in self._open else [f"hold {hold_id} was moved but was not open"]
                return self._resolved(hold_id) + self._opened(to_hold_id)
            case _:
                return []

    def _opened(self, hold_id: str) -> list[str]:
        wrong = [f"hold {hold_id} was opened before"] if hash(hold_id) in self._seen else []
        self._seen.add(hash(hold_id))  # 64 bits instead of the text: an account may have had millions
        self._open.add(hold_id)
        return wrong

    def _resolved(self, hold_id: str) -> list[str]:
        if hold_id not in self._open:
            return [f"hold {hold_id} was resolved again, or was never open"]
        self._open.discard(hold_id)
        return []
