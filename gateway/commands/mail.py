"""`llamasketch mail`: what was parked, sending it again, and a test message to see that mail arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
import typer

from gateway.commands import stack
from gateway.commands.operators import show_table
from gateway.wiring.mail import transport_to
from ledger.clock import system_clock
from mail.delivery import PARKED, WAITING
from mail.domain.message import Sender, compose
from mail.domain.writing import Written
from mail.errors import MailError
from mail.tables import OUTBOX_ROWS

COLUMNS = ("mail_id", "account_id", "caused_at", "attempts", "last_problem")
SHOWN_MAX = 500


def _parked() -> sa.Select[Any]:
    rows = [OUTBOX_ROWS.c[name] for name in COLUMNS]
    return (
        sa.select(*rows)
        .where(OUTBOX_ROWS.c.state == PARKED)
        .order_by(OUTBOX_ROWS.c.caused_at)
        .limit(SHOWN_MAX)
    )


def show_parked(*, as_json: bool) -> int:
    """Mail that was refused for good, or that no server took for three days. It is kept for 30 days."""
    engine = sa.create_engine(stack.sqlalchemy_url(stack.database_url()))
    try:
        with stack.answering(), engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(_parked()).mappings()]
    finally:
        engine.dispose()
    if as_json:
        stack.print_json({"parked": rows})
    else:
        show_table(rows, COLUMNS, "No mail is parked.")
    return 0


def send_again(mail_id: str | None) -> int:
    """Let parked mail be sent anew: one, or all of it. Ends with 1 if there is none."""
    values = {"state": WAITING, "due_at": system_clock(), "attempts": 0, "last_problem": None}
    again = sa.update(OUTBOX_ROWS).where(OUTBOX_ROWS.c.state == PARKED).values(**values)
    if mail_id is not None:
        again = again.where(OUTBOX_ROWS.c.mail_id == mail_id)
    engine = sa.create_engine(stack.sqlalchemy_url(stack.database_url()))
    try:
        with stack.answering(), engine.begin() as connection:
            count = connection.execute(again).rowcount
    finally:
        engine.dispose()
    if not count:
        stack.fail("No such mail is parked." if mail_id else "No mail is parked.", code=1)
    typer.echo(f"{count} will be sent again, within seconds if the API runs.")
    return 0


def send_test(address: str) -> int:
    """Send one message now and say what the server answered; past the outbox. Ends with 1 if it was not taken."""
    settings = stack.settings()
    if not settings.sends_mail:
        stack.fail("Mail is off: LLAMASKETCH_SMTP_URL is not given.")
    now = system_clock()
    try:
        message = compose(
            Written(
                "LlamaSketch can send mail",
                f"This is the test message of {settings.public_url}, sent at {now:%Y-%m-%d %H:%M:%S} UTC.\n",
                f"<html><head></head><body><p>This is the test message of {settings.public_url}.</p></body></html>",
            ),
            mail_id=f"test:{now.timestamp()}",
            sender=Sender.parse(settings.mail_from),
            to=address,
            written_at=now,
            turn_off_url=None,
        )
        asyncio.run(transport_to(settings).send(message))
    except MailError as error:
        stack.fail(error.message, code=1)
    typer.echo(f"The mail server took the message, which is {message['Message-ID']}.")
    return 0
