"""How an automatic top-up goes on. Pure: from how it stands and what is seen to how it stands then, and a letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ledger.domain.periods import months_after
from ledger.plans import Pack
from mail.domain.letters import AutoTopupOff, AutoTopupWaits
from rails.domain.topup import TopupState
from rails.saved import AUTHENTICATION, SavedMethod, SavingState

PAGE_LASTS = timedelta(hours=1)
LOOKED_AFTER = timedelta(seconds=60)
"""A balance that proved to be high enough is not looked at again before."""
VISITED = timedelta(hours=24)
"""How often the card of one that has nothing to do is looked at."""
ASKED = timedelta(seconds=10)
"""How often a page, or a charge whose outcome is not known, is asked about."""
WAITS = (timedelta(hours=1), timedelta(hours=12))
"""After the first decline in a row, and after the second. The third turns it off."""
HARD = frozenset({"expired_card", "lost_card", "stolen_card", "pickup_card", "fraudulent"})
"""Declines after which no try helps."""


class AutoState(StrEnum):
    """Stored."""

    SAVING = "saving"
    """The page to save a card on is open."""
    ON = "on"
    CHARGING = "charging"
    WAITING = "waiting"
    """The card was declined; it is tried again."""
    CONFIRMING = "confirming"
    """The bank wants its customer to confirm."""
    LIMITED = "limited"
    """The month's limit is reached."""
    OFF = "off"


class OffReason(StrEnum):
    """Why it is off. Stored."""

    PERSON = "person"
    NOT_SAVED = "not_saved"
    """The page was left."""
    CARD_REMOVED = "card_removed"
    CARD_EXPIRED = "card_expired"
    DECLINED = "declined"
    DISPUTED = "disputed"
    REFUNDED = "refunded"
    PRICE_CHANGED = "price_changed"
    """The pack is not sold as it was agreed to."""


class AutoTopup(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `auto_topups`."""

    account_id: str
    rail: str
    state: AutoState
    reason: str
    pack: Pack
    threshold: int
    limit_minor: int
    consent: str
    consented_at: datetime
    saving_id: str
    page_reference: str | None = None
    page_url: str | None = None
    page_expires_at: datetime | None = None
    method: str | None = None
    method_label: str = ""
    method_expires_at: datetime | None = None
    month: str
    charged_minor: int = 0
    charge_key: str = ""
    payment_id: str | None = None
    declines: int = 0
    not_before: datetime
    revision: int = 0
    due_at: datetime

    @property
    def is_off(self) -> bool:
        """Whether nothing is charged."""
        return self.state is AutoState.OFF

    def spent_in(self, month: str) -> int:
        """US cents charged, or being charged, in a UTC month."""
        return self.charged_minor if self.month == month else 0


class Step(NamedTuple):
    """What follows."""

    then: AutoTopup
    letter: AutoTopupWaits | AutoTopupOff | None = None


def month_of(now: datetime) -> str:
    """The UTC month, `2026-11`."""
    return f"{now.astimezone(UTC):%Y-%m}"


def off(record: AutoTopup, reason: OffReason) -> Step:
    """Nothing is charged from now on. Whoever turned it off themselves, or never turned it on, gets no letter."""
    then = msgspec.structs.replace(
        record, state=AutoState.OFF, reason=reason.value, page_url=None, charge_key=""
    )
    if reason in (OffReason.PERSON, OffReason.NOT_SAVED) or record.is_off:
        return Step(then)
    return Step(then, AutoTopupOff(reason=reason.value, label=record.pack.label))


def page_seen(record: AutoTopup, seen: SavedMethod, now: datetime) -> Step | None:
    """What came of the page to save a card on; None while it is open.

    Never of one that is charging: a charge under way that were forgotten for another card would be made twice.
    """
    match seen.state:
        case SavingState.SAVED:
            then = msgspec.structs.replace(
                record,
                state=AutoState.ON,
                reason="",
                method=seen.method,
                method_label=seen.label,
                method_expires_at=seen.expires_at,
                page_reference=None,
                page_url=None,
                page_expires_at=None,
                declines=0,
                not_before=now,
                due_at=now,
            )
            return Step(then)
        case SavingState.OPEN:
            return None
        case _ if record.state is AutoState.SAVING:
            return off(record, OffReason.NOT_SAVED)
        case _:
            # It went on as it was while another card was to be saved.
            return Step(
                msgspec.structs.replace(record, page_reference=None, page_url=None, page_expires_at=None)
            )


def method_seen(record: AutoTopup, seen: SavedMethod, now: datetime) -> Step | None:
    """Whether the card can still be charged; None if it can."""
    if seen.state is not SavingState.SAVED:
        return off(record, OffReason.CARD_REMOVED)
    if seen.expires_at is not None and seen.expires_at <= now:
        return off(record, OffReason.CARD_EXPIRED)
    return None


def looked(record: AutoTopup, available: int, sold: Pack | None, key: str, now: datetime) -> Step:
    """Whether a charge begins, now that so many credits are available. `key` stands for it for ever."""
    replace = msgspec.structs.replace
    month = month_of(now)
    if available >= record.threshold:
        idle = replace(record, not_before=now + LOOKED_AFTER, due_at=now + VISITED)
        # A card that was declined is forgiven by the time that the balance is high again.
        return Step(replace(idle, state=AutoState.ON, declines=0))
    if sold != record.pack:
        return off(record, OffReason.PRICE_CHANGED)
    spent = record.spent_in(month)
    if spent + record.pack.price_usd_minor > record.limit_minor:
        again = months_after(datetime.fromisoformat(f"{month}-01T00:00:00+00:00"), 1)
        then = replace(record, state=AutoState.LIMITED, due_at=again, not_before=again)
        if record.state is AutoState.LIMITED:
            return Step(then)
        return Step(then, _waits(record, "limit", again))
    return Step(
        replace(
            record,
            state=AutoState.CHARGING,
            month=month,
            charged_minor=spent + record.pack.price_usd_minor,
            charge_key=key,
            payment_id=None,
            due_at=now,
        )
    )


def again_at(record: AutoTopup, now: datetime) -> datetime:
    """When one is looked at again of which nothing new is known."""
    if record.state in (AutoState.WAITING, AutoState.CONFIRMING) and record.page_reference is None:
        return record.not_before if record.not_before > now else now + VISITED
    return now + ASKED


def charge_ended(
    record: AutoTopup, state: TopupState, decline_code: str | None, now: datetime
) -> Step | None:
    """How a charge ended; None while nobody knows."""
    step = _charge_ended(record, state, decline_code, now)
    if step is None or step.then.page_reference is None:
        return step
    # Another card may have been saved meanwhile: it is seen only now.
    return step._replace(then=msgspec.structs.replace(step.then, due_at=now))


def not_charged(record: AutoTopup) -> AutoTopup:
    """After a charge of which nothing came: the month's sum is without it again."""
    spent = max(0, record.charged_minor - record.pack.price_usd_minor)
    return msgspec.structs.replace(record, charge_key="", charged_minor=spent)


def _charge_ended(
    record: AutoTopup, state: TopupState, decline_code: str | None, now: datetime
) -> Step | None:
    replace = msgspec.structs.replace
    if state in (TopupState.PAID, TopupState.REVERSED, TopupState.DISPUTED):
        done = replace(record, state=AutoState.ON, charge_key="", declines=0, not_before=now, due_at=now)
        return Step(done)
    if state not in (TopupState.DECLINED, TopupState.EXPIRED):
        return None
    free = not_charged(record)
    if decline_code is None:
        # Nobody was asked for money: the provider was away for too long.
        return Step(
            replace(free, state=AutoState.ON, not_before=now + LOOKED_AFTER, due_at=now + LOOKED_AFTER)
        )
    if decline_code == AUTHENTICATION:
        then = replace(free, state=AutoState.CONFIRMING, due_at=now + VISITED)
        return Step(then, _waits(record, "confirm", None))
    declines = record.declines + 1
    if decline_code in HARD or declines > len(WAITS):
        return off(replace(free, declines=declines), OffReason.DECLINED)
    again = now + WAITS[declines - 1]
    then = replace(free, state=AutoState.WAITING, declines=declines, due_at=again, not_before=again)
    return Step(then, _waits(record, "declined", again))


def _waits(record: AutoTopup, reason: str, again: datetime | None) -> AutoTopupWaits:
    return AutoTopupWaits(
        reason=reason,
        label=record.pack.label,
        amount_minor=record.pack.price_usd_minor,
        limit_minor=record.limit_minor,
        method_label=record.method_label,
        next_attempt_at=again,
    )
