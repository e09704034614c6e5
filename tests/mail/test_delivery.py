"""From an event to a message that somebody has: once, whatever fails and wherever a process dies on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import pytest
import sqlalchemy as sa

from ledger.domain.commands import OpenRefund, ResolveRefund
from ledger.domain.refusals import RefundNotOpen
from ledger.followups.figures import Figures, figures_of, figures_query
from ledger.identifiers import AccountId
from ledger.money import BTC, Money
from mail.delivery import ATTEMPTS_MAX, DAY, KEPT, PER_DAY_MAX, RULES
from mail.outbox import MAILS, mail_row
from mail.ports import Transport
from mail.tables import OUTBOX_ROWS
from tests.ledger.world import paid
from tests.mail.conftest import Office
from tests.mail.letters import CARD
from tests.rails.core.platform import opened, settled


async def paid_topup(office: Office, account: str, **asked: Any) -> str:
    """A payment that has settled; nothing is mailed yet."""
    topup = await opened(office.platform, account, **asked)
    await office.platform.pay(topup.payment_id)
    await settled(office.platform, topup)
    return topup.payment_id


async def refunded(office: Office, account: str, outcome: str) -> None:
    lot = await office.ledger.grant(AccountId(account), 100, consideration=paid(1_000))
    await office.ledger.act(AccountId(account), OpenRefund(refund_id="re_1", lot_id=lot, credits=40))
    await office.ledger.act(AccountId(account), ResolveRefund(refund_id="re_1", outcome=outcome))


async def put(office: Office, account: str, cause: str = "x:1") -> None:
    """A receipt in the outbox, without what causes it."""
    row = mail_row(CARD, account_id=account, cause=cause, now=office.clock())
    async with office.engine.begin() as connection:
        await connection.execute(sa.insert(OUTBOX_ROWS).values(**row))


async def figures(office: Office) -> Figures:
    async with office.engine.connect() as connection:
        found = await connection.execute(figures_query([MAILS], office.clock()))
        (row,) = figures_of(found.mappings().all())
    return row


def subjects(office: Office) -> list[str]:
    return [str(came["message"]["Subject"]) for came in office.post.came]


# --- what causes mail ---


async def test_a_settled_payment_is_receipted_once_with_what_was_paid(office: Office) -> None:
    account = office.person()
    payment = await paid_topup(office, account, wanted=500)
    assert (await office.row())["mail_id"].startswith(f"receipt:{payment}:"), "in the payment's transaction"
    assert await office.sweeper.sweep() == 0, "the row stays for its time"
    for _ in range(3):
        office.clock.advance(timedelta(hours=1))
        await office.sweeper.sweep()
    (came,) = office.post.came
    assert came["to"] == ["ada@llamas.art"]
    assert came["message"]["Subject"] == "Receipt: $5.00 for 500 credits"
    assert f"https://llamas.art/topups/{payment}" in came["message"].get_body(("plain",)).get_content()
    assert (await office.row())["state"] == "sent"


async def test_asking_the_rail_again_writes_no_second_receipt(office: Office) -> None:
    account = office.person()
    topup = await opened(office.platform, account)
    await office.platform.pay(topup.payment_id)
    await settled(office.platform, topup)
    await asyncio.gather(*(office.platform.payments.observe(topup.payment_id) for _ in range(5)))
    assert len(await office.rows()) == 1


async def test_money_that_comes_twice_is_receipted_twice(office: Office) -> None:
    account = office.person()
    topup = await opened(office.platform, account, amount=Money(2_000_000, BTC), pay_asset="BTC")
    for _ in range(2):
        await office.platform.pay(topup.payment_id)
        await settled(office.platform, topup)
    await office.sweeper.sweep()
    assert subjects(office) == ["Receipt: 2,000 sats for 200 credits"] * 2


@pytest.mark.parametrize(
    ("outcome", "subject"),
    [("sent", "Your refund of $4.00 is on its way"), ("failed", "Your refund could not be sent")],
)
async def test_the_end_of_a_refund_is_mailed(office: Office, outcome: str, subject: str) -> None:
    account = office.person()
    await refunded(office, account, outcome)
    await office.sweeper.sweep()
    assert subjects(office) == [subject]
    assert "List-Unsubscribe" not in office.post.came[0]["message"], "what became of money is not optional"


async def test_a_refund_of_which_nobody_knows_is_not_mailed(office: Office) -> None:
    await refunded(office, office.person(), "unknown")
    assert await office.rows() == []


async def test_what_is_refused_mails_nothing(office: Office) -> None:
    account = AccountId(office.person())
    with pytest.raises(RefundNotOpen):
        await office.ledger.act(account, ResolveRefund(refund_id="re_9", outcome="sent"))
    assert await office.rows() == []


async def test_the_rows_hold_no_address_and_no_name(office: Office) -> None:
    await paid_topup(office, office.person())
    await office.sweeper.sweep()
    assert "llamas.art" not in repr(await office.rows())


# --- whom it is for ---


async def test_nobody_without_an_address_gets_mail_and_nothing_waits_for_one(office: Office) -> None:
    await paid_topup(office, office.ledger.open())
    await office.sweeper.sweep()
    row = await office.row()
    assert (row["state"], row["last_problem"], row["attempts"]) == ("dropped", "nobody with an address", 0)
    assert (await figures(office)).waiting == 0


async def test_a_guests_receipt_goes_to_the_person_that_the_guest_became(office: Office) -> None:
    guest, person = office.ledger.open(), office.person()
    await paid_topup(office, guest)
    office.directory.merged[guest] = person
    await office.sweeper.sweep()
    assert len(office.post.came) == 1
    assert (await office.row())["account_id"] == person


async def test_what_was_turned_off_is_not_sent_and_what_is_necessary_is(office: Office) -> None:
    account = office.person()
    await office.choices.choose(account, optional=False)
    await paid_topup(office, account)
    await refunded(office, account, "failed")
    await office.sweeper.sweep()
    assert subjects(office) == ["Your refund could not be sent"]
    await office.choices.choose(account, optional=True)
    await paid_topup(office, account)
    await office.sweeper.sweep()
    assert len(office.post.came) == 2


async def test_an_optional_letter_offers_to_be_turned_off_by_one_click(office: Office) -> None:
    account = office.person()
    await paid_topup(office, account)
    await office.sweeper.sweep()
    message = office.post.came[0]["message"]
    assert message["List-Unsubscribe"] == f"<https://llamas.art/v1/mail/{account}>"
    assert f"https://llamas.art/mail/{account}" in message.get_body(("html",)).get_content()


async def test_what_is_no_address_is_parked_and_shown(office: Office) -> None:
    await put(office, office.person("not an address"))
    await office.sweeper.sweep()
    row = await office.row()
    assert row["state"] == "parked"
    assert (await figures(office))[1:] == (1, 1, None, 1, row["last_problem"])
    assert row["last_problem"].startswith("mail_not_an_address: ")
    assert "not an address" not in row["last_problem"].removeprefix("mail_not_an_address")[:14]


async def test_a_person_gets_so_many_mails_a_day_and_the_rest_later(office: Office) -> None:
    account = office.person()
    for n in range(PER_DAY_MAX + 3):
        await put(office, account, cause=f"x:{n:03}")
        await office.sweeper.sweep()
        office.clock.advance(timedelta(minutes=1))
    assert len(office.post.came) == PER_DAY_MAX
    waiting = [row for row in await office.rows() if row["state"] == "waiting"]
    assert len(waiting) == 3
    assert all(row["attempts"] == 0 for row in waiting)
    await put(office, office.person("eve@llamas.art"))
    await office.sweeper.sweep()
    assert len(office.post.came) == PER_DAY_MAX + 1, "another person waits for nobody"
    office.clock.advance(DAY)
    await office.sweeper.sweep()
    assert len(office.post.came) == PER_DAY_MAX + 4


# --- what a server does ---


@pytest.mark.parametrize("fault", ["busy_recipients", "busy_content", "dropped_at_recipient"])
async def test_a_server_that_is_busy_gets_the_mail_later_with_growing_waits(
    office: Office, fault: str
) -> None:
    await put(office, office.person())
    office.post.fail(**{fault: 3})
    waits = []
    for attempts in (1, 2, 3):
        await office.sweeper.sweep()
        row = await office.row()
        assert (row["state"], row["attempts"]) == ("waiting", attempts)
        assert row["last_problem"].startswith("mail_postponed: ")
        assert (await figures(office)).failing == 1
        waits.append(row["due_at"] - office.clock())
        office.clock.advance(row["due_at"] - office.clock())
    assert waits[0] < waits[2], waits
    await office.sweeper.sweep()
    row = await office.row()
    assert (row["state"], row["attempts"], row["last_problem"]) == ("sent", 0, None)
    assert len(office.post.came) == 1


@pytest.mark.parametrize("fault", ["unknown_recipients", "refused_content"])
async def test_what_a_server_refuses_for_good_is_parked_and_never_sent_again_by_itself(
    office: Office, fault: str
) -> None:
    await put(office, office.person())
    office.post.fail(**{fault: 1})
    await office.sweeper.sweep()
    row = await office.row()
    assert (row["state"], row["attempts"], row["sent_at"]) == ("parked", 1, None)
    office.clock.advance(KEPT - timedelta(minutes=1))
    await office.sweeper.sweep()
    assert office.post.came == []
    assert (await figures(office)).failing == 1, "until then operators see it"
    office.clock.advance(timedelta(minutes=1))
    await office.sweeper.sweep()
    assert await office.rows() == []


async def test_what_no_server_ever_takes_is_parked_in_the_end(office: Office) -> None:
    await put(office, office.person())
    office.post.fail(down=True)
    async with office.engine.begin() as connection:
        await connection.execute(sa.update(OUTBOX_ROWS).values(attempts=ATTEMPTS_MAX - 2))
    await office.sweeper.sweep()
    row = await office.row()
    assert (row["state"], row["attempts"]) == ("waiting", ATTEMPTS_MAX - 1)
    office.clock.advance(timedelta(hours=1))
    await office.sweeper.sweep()
    row = await office.row()
    assert (row["state"], row["attempts"]) == ("parked", ATTEMPTS_MAX)


async def test_one_mail_that_is_not_taken_holds_up_no_other(office: Office) -> None:
    await put(office, office.person(), cause="x:1")
    office.post.fail(unknown_recipients=1)
    await office.sweeper.sweep()
    await put(office, office.person("eve@llamas.art"), cause="x:2")
    await office.sweeper.sweep()
    assert [came["to"] for came in office.post.came] == [["eve@llamas.art"]]


@pytest.mark.parametrize("fault", ["silent_after_content", "dropped_after_content"])
async def test_a_mail_that_is_repeated_after_silence_is_recognisable_as_the_same(
    office: Office, fault: str
) -> None:
    await put(office, office.person())
    office.post.fail(**{fault: 1})
    await office.sweeper_with(office.post.impatient).sweep()
    assert (await office.row())["state"] == "waiting"
    office.clock.advance(timedelta(minutes=1))
    await office.sweeper.sweep()
    first, second = (came["message"] for came in office.post.came)
    assert first["Message-ID"] == second["Message-ID"]
    assert (await office.row())["state"] == "sent"


# --- crashes ---


class DyingTransport:
    """Before or behind what it does, the process dies."""

    def __init__(self, transport: Transport, *, sends: bool) -> None:
        self._transport = transport
        self._sends = sends

    async def send(self, message: EmailMessage) -> None:
        if self._sends:
            await self._transport.send(message)
        raise asyncio.CancelledError


@pytest.mark.parametrize("sends", [False, True], ids=["before it is sent", "before it is written down"])
async def test_a_process_that_dies_leaves_its_mail_to_another_when_its_lease_ends(
    office: Office, sends: bool
) -> None:
    await put(office, office.person())
    dying = office.sweeper_with(DyingTransport(office.post.transport, sends=sends))
    await dying.sweep()
    assert (await office.row())["state"] == "waiting"
    await office.sweeper.sweep()
    assert len(office.post.came) == int(sends), "the lease still stands"
    office.clock.advance(RULES.lease)
    await office.sweeper.sweep()
    assert (await office.row())["state"] == "sent"
    assert len(office.post.came) == 1 + int(sends)
    assert len({came["message"]["Message-ID"] for came in office.post.came}) == 1


async def test_several_processes_send_each_mail_once(office: Office) -> None:
    account = office.person()
    for n in range(20):
        await put(office, account, cause=f"x:{n}")
    sweepers = [office.sweeper_with(office.post.transport) for _ in range(3)]
    for _ in range(3):
        await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
    assert len(office.post.came) == 20
    assert len({came["message"]["Message-ID"] for came in office.post.came}) == 20


async def test_an_erased_row_is_not_written_anew_by_who_was_sending_it(office: Office) -> None:
    await put(office, office.person())

    class Erasing:
        async def send(self, message: EmailMessage) -> None:
            async with office.engine.begin() as connection:
                await connection.execute(sa.delete(OUTBOX_ROWS))

    await office.sweeper_with(Erasing()).sweep()
    assert await office.rows() == []
