"""Automatic top-ups: what the API calls, and the work of their sweepers.

    topups = AutoTopups(store=…, payments=…, rails=…, reader=…, ledger=…, ownership=…, ids=…, clock=…, packs=…)
    record = await topups.turn_on("acct_…", Agreement(pack="pack_500", threshold=50, limit_minor=2_000), return_url="https://…")

A row says how each stands; it is changed as a whole or not at all (`AutoTopupStore.change`). That a charge begins is
such a change, and has the key under which its payment is opened: whoever dies goes on with the same one. What came of it
is asked of the payment, which asks the rail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers
from ledger.money import USD
from ledger.ownership import Ownership
from ledger.plans import Pack
from ledger.service import Ledger
from processes.auto_topups.deciding import (
    ASKED,
    PAGE_LASTS,
    AutoState,
    AutoTopup,
    OffReason,
    Step,
    again_at,
    charge_ended,
    looked,
    method_seen,
    month_of,
    not_charged,
    off,
    page_seen,
)
from processes.auto_topups.refusals import (
    AutoTopupNotOn,
    AutoTopupUnavailable,
    AutoTopupUnclear,
    AutoTopupWasChanged,
)
from processes.auto_topups.store import AutoTopupStore, record_of
from rails.contract import Rail
from rails.domain.purchases import PackSold
from rails.domain.topup import TopupState
from rails.payments.service import Payments, in_time
from rails.saved import ChargeLapsed, MethodUnusable, SavedMethods, SaveOrder

RETRIED = timedelta(seconds=5)
"""When a charge whose payment is open is gone on with, if whoever opened it does not."""
OPENED_WITHIN = timedelta(minutes=5)
"""So long after somebody asked for it a page to save a card on is there, or is not waited for."""
TRIES = 5
"""To turn it off, while something else changes it."""
THRESHOLD_MAX = 100_000
"""Credits."""
LIMIT_MINOR_MAX = 1_000_000
"""US cents in a month."""
_KEEPS_CARD = (AutoState.ON, AutoState.WAITING, AutoState.LIMITED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What a person agrees to."""

    pack: str
    threshold: int
    """Credits: fewer than these, and the pack is bought."""
    limit_minor: int
    """US cents: no more in a UTC month."""
    consent: str
    """The words of the page."""


class AutoTopups:
    """Tops up accounts with saved payment methods. Safe to run in many processes."""

    def __init__(
        self,
        *,
        store: AutoTopupStore,
        payments: Payments,
        rails: Mapping[str, Rail],
        ledger: Ledger,
        ownership: Ownership,
        ids: Identifiers,
        clock: Clock,
        packs: Mapping[str, Pack],
        public_url: str,
        rail_timeout_seconds: int = 30,
    ) -> None:
        self._store = store
        self._payments = payments
        self._rails = rails
        self._ledger = ledger
        self._ownership = ownership
        self._ids = ids
        self._clock = clock
        self._packs = packs
        self._public_url = public_url
        self._timeout_seconds = rail_timeout_seconds

    # --- what people do ------------------------------------------------------------------------

    async def find(self, account_id: str) -> AutoTopup | None:
        """How it stands, if it was ever turned on."""
        return await self._store.find(account_id)

    def rail(self) -> str | None:
        """The rail whose methods can be saved."""
        return next((name for name, rail in self._rails.items() if isinstance(rail, SavedMethods)), None)

    def charged_now(self, record: AutoTopup) -> int:
        """US cents charged in the present UTC month, or being charged."""
        return record.spent_in(month_of(self._clock()))

    async def turn_on(self, account_id: str, agreement: Agreement) -> AutoTopup:
        """Agree to charges, or to others than before. Opens a page to save a card on, unless one is saved.

        Raises `AutoTopupUnclear`, `AutoTopupUnavailable`, `AutoTopupWasChanged` or `RailUnavailable`.
        """
        pack, rail = self._packs.get(agreement.pack), self.rail()
        if rail is None:
            raise AutoTopupUnavailable
        if pack is None or pack.kind != "pack" or not 0 < agreement.threshold < pack.credits:
            raise AutoTopupUnclear
        if not pack.price_usd_minor <= agreement.limit_minor <= LIMIT_MINOR_MAX:
            raise AutoTopupUnclear
        now, known = self._clock(), await self._store.find(account_id)
        agreed: dict[str, Any] = {
            "pack": pack,
            "threshold": agreement.threshold,
            "limit_minor": agreement.limit_minor,
            "consent": agreement.consent,
            "consented_at": now,
            "not_before": now,
        }
        # Until its page is there, or for as long as whoever opens it may take.
        opening = {**agreed, "due_at": now + OPENED_WITHIN}
        if known is None:
            fresh = AutoTopup(
                account_id=account_id,
                rail=rail,
                state=AutoState.SAVING,
                reason="",
                saving_id=self._ids.new("saving"),
                month=month_of(now),
                **opening,
            )
            if not await self._store.begin(fresh):
                raise AutoTopupWasChanged
            return await self._opened(fresh)
        if known.state is AutoState.CHARGING:
            # What is under way is for what was agreed to before.
            raise AutoTopupWasChanged
        if known.state in _KEEPS_CARD:
            kept = msgspec.structs.replace(known, state=AutoState.ON, **agreed, due_at=now)
            return await self._changed(Step(kept))
        anew = msgspec.structs.replace(known, rail=rail, state=AutoState.SAVING, reason="", **opening)
        return await self._opened(await self._changed(Step(_with_page(anew, self._ids.new("saving")))))

    async def save_card(self, account_id: str) -> AutoTopup:
        """A page to confirm the card with its bank, or to save another one. Nothing else changes meanwhile."""
        known = await self._known(account_id)
        if known.page_url is not None and (known.page_expires_at or self._clock()) > self._clock():
            return known
        later = msgspec.structs.replace(known, due_at=max(known.due_at, self._clock() + OPENED_WITHIN))
        return await self._opened(await self._changed(Step(_with_page(later, self._ids.new("saving")))))

    async def turn_off(self, account_id: str) -> AutoTopup:
        """Nothing is charged from now on, and the card is forgotten."""
        for _ in range(TRIES):
            known = await self._known(account_id)
            gone = msgspec.structs.replace(off(known, OffReason.PERSON).then, method=None, method_label="")
            if await self._store.change(Step(gone), self._clock(), forgets=known.method):
                return gone
        raise AutoTopupWasChanged

    async def _known(self, account_id: str) -> AutoTopup:
        known = await self._store.find(account_id)
        if known is None or known.is_off:
            raise AutoTopupNotOn
        return known

    async def _changed(self, step: Step) -> AutoTopup:
        if not await self._store.change(step, self._clock()):
            raise AutoTopupWasChanged
        return msgspec.structs.replace(step.then, revision=step.then.revision + 1)

    async def _opened(self, record: AutoTopup) -> AutoTopup:
        """With its page open. Whoever asks again for the same page gets the same."""
        expires_at = self._clock() + PAGE_LASTS
        order = SaveOrder(
            saving_id=record.saving_id,
            account_id=AccountId(record.account_id),
            expires_at=expires_at,
            return_url=f"{self._public_url}/account#auto-topup",
        )
        async with in_time(self._timeout_seconds):
            page = await self._rail(record.rail).save_method(order)
        then = msgspec.structs.replace(
            record,
            page_reference=page.reference,
            page_url=page.url,
            page_expires_at=expires_at,
            due_at=self._clock() + ASKED,
        )
        return await self._changed(Step(then))

    # --- what the sweeper does -----------------------------------------------------------------

    async def wake(self) -> int:
        """Make due whose balance is below its threshold."""
        return await self._store.wake(self._clock())

    async def visit(self, row: Mapping[str, Any]) -> datetime | None:
        """The work on one row; returns when it is due again. What it changes says so itself."""
        record = record_of(row)
        step = await self._next(record)
        if step is not None:
            await self._follow(record, step)
            return step.then.due_at
        return again_at(record, self._clock())

    async def stop(self, row: Mapping[str, Any]) -> None:
        """The work on one row of those whose money went back: turn it off."""
        # What a guest paid may be disputed after they signed in: it is whoever has the credits that is charged.
        known = await self._store.find(await self._ownership.owner_of(AccountId(row["account_id"])))
        if known is None or known.is_off:
            return
        if not await self._store.change(off(known, OffReason(row["reason"])), self._clock()):
            raise AutoTopupWasChanged

    async def forget(self, row: Mapping[str, Any]) -> None:
        """The work on one row of saved methods that nobody charges any more."""
        async with in_time(self._timeout_seconds):
            await self._rail(row["rail"]).forget_method(row["method"])

    async def look(self, account_id: str) -> AutoTopup | None:
        """How it stands once the page to save a card on was asked about: for who comes back from there."""
        known = await self._store.find(account_id)
        if known is None or known.is_off or known.page_reference is None:
            return known
        if known.state is AutoState.CHARGING:
            return known  # with the card that it began with; the page is seen when that has ended
        step = await self._page(known)
        if step is not None:
            await self._follow(known, step)
        return await self._store.find(account_id)

    async def _follow(self, record: AutoTopup, step: Step) -> None:
        """Write what follows; a card that another one takes the place of is forgotten."""
        replaced = record.method if step.then.method != record.method else None
        await self._store.change(step, self._clock(), forgets=replaced)

    async def _next(self, record: AutoTopup) -> Step | None:
        if record.state is AutoState.CHARGING:
            return await self._charge(record)
        if record.page_reference is not None:
            step = await self._page(record)
            if step is not None or record.state is AutoState.SAVING:
                return step
        if record.state is AutoState.SAVING:
            # Nobody was given its page.
            return off(record, OffReason.NOT_SAVED)
        if record.state is AutoState.CONFIRMING:
            return None
        if record.state is AutoState.WAITING and self._clock() < record.not_before:
            # It is only looked at because of its page: the declined card has its own time.
            return None
        return await self._balance(record)

    async def _page(self, record: AutoTopup) -> Step | None:
        async with in_time(self._timeout_seconds):
            seen = await self._rail(record.rail).observe_saving(record.page_reference or "")
        return page_seen(record, seen, self._clock())

    async def _balance(self, record: AutoTopup) -> Step | None:
        """The card and the balance, as they are now; whether they make a charge begin."""
        async with in_time(self._timeout_seconds):
            seen = await self._rail(record.rail).observe_method(record.method or "")
        broken = method_seen(record, seen, self._clock())
        if broken is not None:
            return broken
        if not await self._is_over(record):
            return None
        view = await self._ledger.account(AccountId(record.account_id))
        # Who owes is charged nothing: what was bought would be gone at once.
        available = record.threshold if view.debt else view.available
        sold = self._packs.get(record.pack.name)
        return looked(record, available, sold, self._ids.command(), self._clock())

    async def _is_over(self, record: AutoTopup) -> bool:
        """Whether the newest charge is: one under way when this was turned off may still go through."""
        if record.payment_id is None:
            return True
        view = await self._payments.topup(record.payment_id)
        return charge_ended(record, view.state, view.decline_code, self._clock()) is not None

    async def _charge(self, record: AutoTopup) -> Step | None:
        """Open the charge's payment, or find it; see how it ended."""
        if record.payment_id is None:
            opened = await self._payments.open_topup(
                record.account_id,
                record.rail,
                return_url=f"{self._public_url}/topups/{{payment_id}}",
                pay_asset=USD.code,
                purchase=PackSold(pack=record.pack),
                key=record.charge_key,
                method=record.method,
            )
            # Before it is charged: whoever turned it off meanwhile is charged nothing.
            soon = self._clock() + RETRIED
            known = msgspec.structs.replace(record, payment_id=opened.payment_id, due_at=soon)
            if not await self._store.change(Step(known), self._clock()):
                await self._given_up(record, opened.payment_id)
                return None
            record = msgspec.structs.replace(known, revision=known.revision + 1)
        payment_id = str(record.payment_id)
        try:
            await self._payments.open_request(payment_id)
        except MethodUnusable:
            await self._payments.abandon(payment_id)
            return off(not_charged(record), OffReason.CARD_REMOVED)
        except ChargeLapsed:
            await self._payments.abandon(payment_id)
        view = await self._payments.observe(payment_id)
        ended = charge_ended(record, view.state, view.decline_code, self._clock())
        if ended is not None and view.state is TopupState.DECLINED:
            # Nobody else is to pay it: the next try is a payment of its own.
            await self._payments.cancel(payment_id)
        return ended

    async def _given_up(self, record: AutoTopup, payment_id: str) -> None:
        """Give up a charge that has not begun, unless somebody else goes on with the same one."""
        now = await self._store.find(record.account_id)
        if now is None or now.charge_key != record.charge_key:
            await self._payments.abandon(payment_id)

    # -------------------------------------------------------------------------------------------

    def _rail(self, name: str) -> SavedMethods:
        rail = self._rails.get(name)
        if not isinstance(rail, SavedMethods):
            raise AutoTopupUnavailable
        return rail


def _with_page(record: AutoTopup, saving_id: str) -> AutoTopup:
    return msgspec.structs.replace(
        record, saving_id=saving_id, page_reference=None, page_url=None, page_expires_at=None
    )
