"""Working off the outbox: whom a mail is for, whether it is wanted, and how its sending ended."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.clock import Clock
from ledger.followups.backoff import Backoff
from ledger.followups.rows import problem_of
from ledger.followups.sweeper import Sweeper, SweepRules
from mail.choices import Choices
from mail.domain.letters import AnyLetter, PaymentFailed, SignInLink
from mail.domain.message import Sender, compose
from mail.domain.writing import Writer
from mail.errors import MailError, NotAnAddress, Postponed, Refused, TooLarge
from mail.outbox import MAILS, letter_of
from mail.ports import Links, Recipient, Recipients, Transport
from mail.tables import OUTBOX_ROWS

WAITING, SENT, DROPPED, PARKED = "waiting", "sent", "dropped", "parked"
"""States of a row: to be sent; sent; not wanted or for nobody; given up, until an operator sends it again."""
KEPT = timedelta(days=30)
"""How long a row stays after its end: to count, to look up, to be sent again."""
PER_DAY_MAX = 40
"""Mails to one person within 24 hours; what comes beyond waits."""
DAY = timedelta(hours=24)
ATTEMPTS_MAX = 80
"""Before a mail that the server never took is parked: about three days."""
RULES = SweepRules(at_once=8, backoff=Backoff(first_milliseconds=5_000, longest_milliseconds=3_600_000))


class Delivery:
    """Sends what is due. Any number of processes may; each row is sent by one of them at a time."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        clock: Clock,
        transport: Transport,
        recipients: Recipients,
        links: Links,
        sender: Sender,
        public_url: str,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._transport = transport
        self._recipients = recipients
        self._links = links
        self._sender = sender
        self._writer = Writer(public_url)
        self._choices = Choices(engine, clock)
        self._log = structlog.get_logger("mail")

    def sweeper(self, randomness: random.Random) -> Sweeper:
        """What works off the outbox."""
        return Sweeper(
            MAILS, self.work, engine=self._engine, clock=self._clock, randomness=randomness, rules=RULES
        )

    async def work(self, row: Mapping[str, Any]) -> datetime | None:
        """The work of one row; when it is due again. Raises `Postponed`, and the row is tried again.

        Whether a message was taken cannot be known if the server falls silent or we die: then the same message is sent
        again, with the same Message-ID.
        """
        if row["state"] != WAITING:
            return None  # it has been kept for as long as it is
        letter = letter_of(row)
        if isinstance(letter, SignInLink) and letter.expires_at <= self._clock():
            return await self._end(row, DROPPED, "too late")
        recipient = await self._recipients.find(row["account_id"])
        if recipient is None:
            return await self._end(row, DROPPED, "nobody with an address")
        if letter.optional and not await self._choices.wants_optional(recipient.account_id):
            return await self._end(row, DROPPED, "turned off", recipient)
        action_url = await self._links.action(letter)
        if action_url is None and isinstance(letter, PaymentFailed):
            return await self._end(row, DROPPED, "put right", recipient)
        place_at = await self._place_at(recipient.account_id)
        if place_at is not None:
            return place_at
        try:
            await self._send(row, letter, recipient, action_url)
        except (Refused, NotAnAddress, TooLarge) as error:
            return await self._park(row, error)
        except Postponed as error:
            if row["attempts"] + 1 < ATTEMPTS_MAX:
                raise
            return await self._park(row, error)
        return await self._end(row, SENT, None, recipient)

    async def _send(
        self, row: Mapping[str, Any], letter: AnyLetter, recipient: Recipient, action_url: str | None
    ) -> None:
        page = off = None
        if letter.optional:
            page, off = self._links.page(recipient.account_id), self._links.turn_off(recipient.account_id)
        message = compose(
            self._writer.write(letter, page, action_url),
            mail_id=row["mail_id"],
            sender=self._sender,
            to=recipient.address,
            written_at=self._clock(),
            turn_off_url=off,
        )
        await self._transport.send(message)

    async def _place_at(self, account_id: str) -> datetime | None:
        """When this person may get another mail; None: now."""
        now, sent_at = self._clock(), OUTBOX_ROWS.c.sent_at
        query = (
            sa.select(sent_at)
            .where(OUTBOX_ROWS.c.account_id == account_id, sent_at > now - DAY)
            .order_by(sent_at.desc())
            .offset(PER_DAY_MAX - 1)
            .limit(1)
        )
        async with self._engine.connect() as connection:
            oldest = (await connection.execute(query)).scalar_one_or_none()
        return None if oldest is None else oldest + DAY

    async def _park(self, row: Mapping[str, Any], error: MailError) -> datetime:
        self._log.warning("mail_parked", mail_id=row["mail_id"], problem=problem_of(error))
        return await self._end(row, PARKED, problem_of(error))

    async def _end(
        self, row: Mapping[str, Any], state: str, problem: str | None, recipient: Recipient | None = None
    ) -> datetime:
        """Write down how it ended. The row goes after `KEPT`; until then what is parked counts as failing."""
        now = self._clock()
        values = {
            "state": state,
            "due_at": now + KEPT,
            "sent_at": now if state == SENT else None,
            "attempts": row["attempts"] + 1 if state == PARKED else 0,
            "last_problem": problem,
            # Under the account that it was sent to it counts for the person's day, and is found by an erasure.
            "account_id": row["account_id"] if recipient is None else recipient.account_id,
        }
        # What was put anew while this was sent waits for its own time.
        mine = (OUTBOX_ROWS.c.mail_id == row["mail_id"], OUTBOX_ROWS.c.caused_at == row["caused_at"])
        ended = sa.update(OUTBOX_ROWS).where(*mine).values(**values)
        async with self._engine.begin() as connection:
            await connection.execute(ended)
        return now + KEPT
