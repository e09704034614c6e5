"""What operators do with money: each with an actor and a reason, once per key.

Who acts is the actor of the transaction, and why is in the event. A refusal leaves the key open: the same request
may be sent again when what was in its way is gone.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from ledger.domain.commands import AdjustCredits, Command, ForgiveDebt
from ledger.domain.refusals import ReasonMissing
from ledger.errors import Refusal
from ledger.identifiers import AccountId, CommandKey, encode_crockford
from ledger.log.model import Receipt
from ledger.log.reader import LogReader
from ledger.ownership import Ownership
from ledger.service import Ledger
from rails.contract import Refund
from rails.domain.refunding import ResolveRefund
from rails.domain.topup import TopupView
from rails.payments.refunds import RefundAsked
from rails.payments.service import Payments

REASON_CHARACTERS_MAX = 300


class AccountNotFound(Refusal):
    """Details: `account_id`."""

    code = "account_not_found"
    message = "Nothing ever happened to such an account."


class Operations:
    """The operators' commands. `key` is whose command it is, for ever; `actor` is `operator:<who>`."""

    def __init__(
        self, *, payments: Payments, ledger: Ledger, reader: LogReader, ownership: Ownership
    ) -> None:
        self._payments = payments
        self._ledger = ledger
        self._reader = reader
        self._ownership = ownership

    async def refund(self, asked: RefundAsked, *, actor: str, key: CommandKey) -> TopupView:
        """Send back what is unspent of a payment, or money in suspense. Raises as `RefundService.request`."""
        _require(asked.reason)
        view = await self._payments.topup(asked.payment_id)
        owner = await self._ownership.owner_of(AccountId(view.account_id))
        await self._payments.refunds.request(owner, asked, actor=actor, key=key)
        return await self._payments.topup(asked.payment_id)

    async def end_refund(
        self,
        payment_id: str,
        refund_id: str,
        *,
        sent: bool,
        reference: str | None,
        reason: str,
        actor: str,
        key: CommandKey,
    ) -> TopupView:
        """Say that a refund by hand was sent, and where it can be found; or that it cannot be sent."""
        _require(reason)
        command = ResolveRefund(
            refund_id=refund_id,
            outcome=Refund.SENT if sent else Refund.FAILED,
            external_ref=reference,
            reason=reason,
        )
        await self._payments.refunds.end_by_hand(payment_id, command, actor=actor, key=key)
        return await self._payments.topup(payment_id)

    async def accept(
        self,
        payment_id: str,
        money_ref: str,
        *,
        credits_: int | None = None,
        reason: str,
        actor: str,
        key: CommandKey,
    ) -> TopupView:
        """Credit money that waits in suspense: at today's rate, or with so many credits."""
        _require(reason)
        return await self._payments.accept_funds(
            payment_id, money_ref, actor, credits_=credits_, reason=reason, key=key
        )

    async def adjust(
        self,
        account_id: str,
        credits_: int,
        *,
        expires_at: datetime | None = None,
        reason: str,
        actor: str,
        key: CommandKey,
    ) -> Receipt:
        """Grant credits, or take some away (negative)."""
        tail = _tail(key)
        command = AdjustCredits(
            adjustment_id=f"adj_{tail}",
            lot_id=f"lot_{tail}",
            credits=credits_,
            actor=actor,
            reason=reason,
            expires_at=expires_at,
        )
        return await self._act(account_id, command, actor, key)

    async def forgive(
        self, account_id: str, credits_: int, *, reason: str, actor: str, key: CommandKey
    ) -> Receipt:
        """Let a debt, or a part of it, go."""
        command = ForgiveDebt(credits=credits_, actor=actor, reason=reason)
        return await self._act(account_id, command, actor, key)

    async def _act(self, account_id: str, command: Command, actor: str, key: CommandKey) -> Receipt:
        _require(getattr(command, "reason", ""))
        owner = await self._ownership.owner_of(AccountId(account_id))
        if not (await self._reader.state(owner)).version:
            raise AccountNotFound(account_id=account_id)
        return await self._ledger.act(owner, command, key=key, actor=actor, keeps_refusals=False)


def _require(reason: str) -> None:
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX or not reason.isprintable():
        raise ReasonMissing


def _tail(key: CommandKey) -> str:
    """Letters of ids that are always the same for a key."""
    return encode_crockford(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16]))
