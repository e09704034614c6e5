"""Double entry: every event of an account as balanced postings. Pure.

Debits are positive, credits negative; per asset each event's postings add up to zero, and so
do their dollar values at receipt. Money and credits are kept apart: credits are a commodity of
their own (`CREDIT`) under `Equity:Credits`.

The counterpart of money is `Liabilities:Clearing:<rail>`: payments credit it when money
settles, an account debits it when that money becomes credits. Deferred revenue is what was
paid for credits not used yet, without tax; the rail's fee is an expense of the payment, so
that using credits earns net and fee.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ledger.domain import events as e
from ledger.domain.consideration import Consideration, Slice, Worth, total
from ledger.log.model import Event
from ledger.money import ASSETS, Asset

CREDIT = Asset("CREDIT", 0)


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One line of a journal entry."""

    account: str
    asset: Asset
    amount_minor: int
    """Minor units of the asset; a debit is positive."""
    usd_minor: int = 0
    """The money's value when it was received, in US cents; 0 for credits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalContext:
    """What postings need beyond the event."""

    assets: Mapping[str, Asset] = field(default_factory=lambda: ASSETS)


def postings(event: Event, context: JournalContext | None = None) -> Sequence[Posting]:
    """The balanced postings of one event; none if it moves nothing."""
    rule = _RULES.get(type(event))
    if rule is None:
        return ()
    entry = _Entry((context or JournalContext()).assets)
    rule(entry, event)
    return entry.lines()


class _Entry:
    """Collects amounts by account and asset, so that a posting appears once."""

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        self._assets = assets
        self._sums: dict[tuple[str, Asset], tuple[int, int]] = {}

    def add(self, account: str, asset: Asset, amount_minor: int, usd_minor: int = 0) -> None:
        minor, usd = self._sums.get((account, asset), (0, 0))
        self._sums[account, asset] = (minor + amount_minor, usd + usd_minor)

    def credits(self, source: str, target: str, amount: int) -> None:
        """Credits leave one account for another."""
        self.add(f"Equity:Credits:{source}", CREDIT, -amount)
        self.add(f"Equity:Credits:{target}", CREDIT, amount)

    def asset(self, code: str) -> Asset:
        return self._assets.get(code) or Asset(code, 0)

    def plug(self, gain: str, loss: str) -> None:
        """Balance each asset: what is left over is a gain, what is missing a loss."""
        totals: dict[Asset, tuple[int, int]] = {}
        for (_, asset), (minor, usd) in self._sums.items():
            before = totals.get(asset, (0, 0))
            totals[asset] = (before[0] + minor, before[1] + usd)
        for asset, (minor, usd) in totals.items():
            self.add(gain if minor > 0 or (minor == 0 and usd > 0) else loss, asset, -minor, -usd)

    def lines(self) -> tuple[Posting, ...]:
        return tuple(
            Posting(account, asset, minor, usd)
            for (account, asset), (minor, usd) in self._sums.items()
            if minor or usd
        )


def _name(kind: str, part: str) -> str:
    return f"{kind}:{part[:1].upper()}{part[1:]}" if part else kind


def _received(entry: _Entry, paid: Consideration | None) -> None:
    """Money that had settled becomes deferred revenue and tax."""
    if paid is None:
        return
    worth = paid.worth
    usd = worth.usd_minor + worth.tax_usd_minor
    entry.add(_name("Liabilities:Clearing", paid.rail), paid.asset, worth.gross_minor, usd)
    entry.add(_name("Liabilities:Deferred", paid.rail), paid.asset, -worth.earned_minor, -worth.usd_minor)
    entry.add(_name("Liabilities:Tax", paid.rail), paid.asset, -worth.tax_minor, -worth.tax_usd_minor)


def _from_deferred(entry: _Entry, slices: Iterable[Slice], to: str) -> None:
    """Deferred revenue behind slices goes to another account."""
    for portion in slices:
        worth = portion.worth
        if worth is not None:
            asset = entry.asset(portion.asset)
            deferred = _name("Liabilities:Deferred", portion.rail)
            entry.add(deferred, asset, worth.earned_minor, worth.usd_minor)
            entry.add(_name(to, portion.rail), asset, -worth.earned_minor, -worth.usd_minor)


def _granted(entry: _Entry, event: e.CreditsGranted) -> None:
    entry.credits(_name("Issued", event.source), "Available", event.credits)
    _received(entry, event.consideration)


def _held(entry: _Entry, event: e.CreditsHeld) -> None:
    entry.credits("Available", "Held", event.credits)


def _captured(entry: _Entry, event: e.HoldCaptured) -> None:
    entry.credits("Held", "Spent", total(event.slices))
    entry.credits("Available", "Spent", total(event.overage))
    _returned(entry, event)
    _from_deferred(entry, (*event.slices, *event.overage), "Income:Images")


def _returned(entry: _Entry, event: e.HoldCaptured | e.HoldReleased | e.HoldExpired | e.RefundFailed) -> None:
    entry.credits("Held", "Available", total(event.returned))
    entry.credits("Held", "Reversed", total(event.revoked))


def _lapsed(entry: _Entry, event: e.LotExpired) -> None:
    entry.credits("Available", "Expired", event.expired.credits)
    _from_deferred(entry, (event.expired,), "Income:Breakage")


def _debt_incurred(entry: _Entry, event: e.DebtIncurred) -> None:
    entry.credits("Owed", "Debt", event.credits)


def _debt_repaid(entry: _Entry, event: e.DebtRepaid) -> None:
    entry.credits("Debt", "Owed", event.credits)
    entry.credits("Available", "Spent", event.credits)
    _from_deferred(entry, event.slices, "Income:Recovered")


def _debt_forgiven(entry: _Entry, event: e.DebtForgiven) -> None:
    entry.credits("Debt", "Owed", event.credits)


def _paid_back(entry: _Entry, asset: Asset, rail: str, worth: Worth) -> None:
    usd = worth.usd_minor + worth.tax_usd_minor
    entry.add(_name("Liabilities:Clearing", rail), asset, -worth.gross_minor, -usd)
    entry.add(_name("Liabilities:Tax", rail), asset, worth.tax_minor, worth.tax_usd_minor)


def _reversed(entry: _Entry, event: e.CreditsReversed) -> None:
    """What had not been earned comes out of deferred revenue; the rest is our loss."""
    _paid_back(entry, entry.asset(event.asset), event.rail, event.worth)
    for portion in (event.left, event.held):
        if portion is not None and portion.worth is not None:
            worth = portion.worth
            deferred = _name("Liabilities:Deferred", portion.rail)
            entry.add(deferred, entry.asset(portion.asset), worth.earned_minor, worth.usd_minor)
    loss = _name("Expenses:Reversals", event.rail)
    entry.plug(loss, loss)
    if event.left is not None:
        entry.credits("Available", "Reversed", event.left.credits)


def _refund_opened(entry: _Entry, event: e.RefundOpened) -> None:
    entry.credits("Available", "Held", event.held.credits)


def _refund_sent(entry: _Entry, event: e.RefundSent) -> None:
    """What was paid for the credits and not sent back is kept; what was sent beyond it is lost."""
    earned = sum(p.worth.earned_minor for p in event.slices if p.worth is not None)
    tax = sum(p.worth.tax_minor for p in event.slices if p.worth is not None)
    usd = sum(p.worth.usd_minor for p in event.slices if p.worth is not None)
    tax_usd = sum(p.worth.tax_usd_minor for p in event.slices if p.worth is not None)
    asset = entry.asset(event.asset)
    whole = earned + tax
    sent_usd = (usd + tax_usd) * event.amount_minor // whole if whole else 0
    entry.add(_name("Liabilities:Clearing", event.rail), asset, -event.amount_minor, -sent_usd)
    entry.add(_name("Liabilities:Deferred", event.rail), asset, earned, usd)
    entry.add(_name("Liabilities:Tax", event.rail), asset, tax, tax_usd)
    entry.plug(_name("Income:Retained", event.rail), _name("Expenses:Reversals", event.rail))
    entry.credits("Held", "Refunded", total(event.slices))


def _withdrawn(entry: _Entry, event: e.CreditsWithdrawn) -> None:
    entry.credits("Available", "Withdrawn", event.credits)
    _from_deferred(entry, event.slices, "Income:Adjustments")


def _moved_out(entry: _Entry, event: e.CreditsMovedOut) -> None:
    entry.credits("Available", "Transit", event.credits)
    _from_deferred(entry, event.slices, "Liabilities:Transit")


def _moved_in(entry: _Entry, event: e.CreditsMovedIn) -> None:
    entry.credits("Transit", "Available", event.credits)
    for terms in event.lots:
        paid = terms.consideration
        if paid is not None:
            worth = paid.worth
            transit = _name("Liabilities:Transit", paid.rail)
            entry.add(transit, paid.asset, worth.earned_minor, worth.usd_minor)
            deferred = _name("Liabilities:Deferred", paid.rail)
            entry.add(deferred, paid.asset, -worth.earned_minor, -worth.usd_minor)


def _scheduled(entry: _Entry, event: e.EarningScheduled) -> None:
    _received(entry, event.consideration)


def _earned(entry: _Entry, event: e.RevenueEarned) -> None:
    worth, asset = event.worth, entry.asset(event.asset)
    deferred = _name("Liabilities:Deferred", event.rail)
    entry.add(deferred, asset, worth.earned_minor, worth.usd_minor)
    income = _name("Income:Subscriptions", event.rail)
    entry.add(income, asset, -worth.earned_minor, -worth.usd_minor)


def _stopped(entry: _Entry, event: e.EarningStopped) -> None:
    asset = entry.asset(event.asset)
    _paid_back(entry, asset, event.rail, event.worth)
    unearned, deferred = event.unearned, _name("Liabilities:Deferred", event.rail)
    entry.add(deferred, asset, unearned.earned_minor, unearned.usd_minor)
    entry.plug(_name("Income:Retained", event.rail), _name("Expenses:Reversals", event.rail))


def _billed(entry: _Entry, event: e.OverageBilled) -> None:
    _received(entry, event.consideration)
    paid = event.consideration
    portion = Slice("", event.credits, "overage", paid.asset.code, paid.rail, paid.worth)
    _from_deferred(entry, (portion,), "Income:Overage")


_RULES: dict[type[Event], Callable[[_Entry, Any], None]] = {
    e.CreditsGranted: _granted,
    e.CreditsHeld: _held,
    e.HoldCaptured: _captured,
    e.HoldReleased: _returned,
    e.HoldExpired: _returned,
    e.LotExpired: _lapsed,
    e.DebtIncurred: _debt_incurred,
    e.DebtRepaid: _debt_repaid,
    e.DebtForgiven: _debt_forgiven,
    e.CreditsReversed: _reversed,
    e.RefundOpened: _refund_opened,
    e.RefundSent: _refund_sent,
    e.RefundFailed: _returned,
    e.CreditsWithdrawn: _withdrawn,
    e.CreditsMovedOut: _moved_out,
    e.CreditsMovedIn: _moved_in,
    e.EarningScheduled: _scheduled,
    e.RevenueEarned: _earned,
    e.EarningStopped: _stopped,
    e.OverageBilled: _billed,
}
"""How each event is booked."""

MOVES_NOTHING: frozenset[type[Event]] = frozenset(
    {
        e.HoldMoved,
        e.ReversalRestored,
        e.DisputeLost,
        e.RefundLeftUnknown,
        e.SubscriptionStarted,
        e.SubscriptionRenewed,
        e.PeriodRevoked,
        e.PeriodRestored,
        e.PlanUpgraded,
        e.DowngradeScheduled,
        e.CancellationScheduled,
        e.SubscriptionResumed,
        e.SubscriptionEnded,
        e.UsageWarned,
    }
)
"""Events without postings. Every kind of event is either booked or named here: a test sees to it."""
