"""The outbox: a row for each mail, written in the transaction of the event that causes it.

    put(uow, Receipt(…), account_id="acct_…", cause=f"{payment_id}:{version}")

is all that a cause does. Who is written to, and where, is asked when it is sent: no address stands in the row. The
same letter for the same cause is one row, so it is sent to a person once, however often its cause is worked on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from ledger.followups.rows import FollowUps
from ledger.log.model import SideTable, UnitOfWork
from mail.domain.letters import AnyLetter, name_of
from mail.tables import OUTBOX_ROWS

OUTBOX = SideTable(OUTBOX_ROWS)
MAILS = FollowUps(kind="mail", table=OUTBOX_ROWS)


def put(uow: UnitOfWork, letter: AnyLetter, *, account_id: str, cause: str) -> None:
    """Send this letter to the account's person after the transaction. `cause` names what happened, for ever."""
    uow.put(OUTBOX, mail_row(letter, account_id=account_id, cause=cause, now=uow.now))


def put_later(uow: UnitOfWork, letter: AnyLetter, *, account_id: str, cause: str, due_at: datetime) -> None:
    """Send this letter then, in place of what was put for the same cause before, sent or not."""
    row = mail_row(letter, account_id=account_id, cause=cause, now=uow.now)
    fresh = {"state": "waiting", "sent_at": None, "attempts": 0, "last_problem": None}
    uow.put(OUTBOX, {**row, **fresh, "due_at": due_at})


def drop(uow: UnitOfWork, letter: type[AnyLetter], *, cause: str) -> None:
    """What was put for this cause is not sent, if it has not been."""
    uow.delete(OUTBOX, f"{letter.__struct_config__.tag}:{cause}")


def mail_row(letter: AnyLetter, *, account_id: str, cause: str, now: datetime) -> dict[str, Any]:
    """The row of `mail_outbox`, for who writes it without a log's transaction."""
    return {
        "mail_id": f"{name_of(letter)}:{cause}",
        "account_id": account_id,
        "letter": msgspec.to_builtins(letter),
        "due_at": now,
        "caused_at": now,
    }


def letter_of(row: Any) -> AnyLetter:
    """The letter out of its row."""
    return msgspec.convert(row["letter"], AnyLetter)  # type: ignore[no-any-return]
