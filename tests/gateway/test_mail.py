"""Mail through the whole gateway: a payment is receipted, links choose, an erasure forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from gateway.commands.erase import erase_person
from ledger.plans import PLANS
from mail.tables import CHOICE_ROWS, OUTBOX_ROWS
from processes.renewals import Renewals
from rails.contract import ReceiptState
from rails.store.tables import SUBSCRIPTION_ROWS
from rails.testing.fake_subscriptions import FakeSubscriptions
from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway
from tests.gateway.test_purchases import bought
from tests.gateway.test_subscriptions import PRICES, reference, subscribed
from tests.waiting import eventually, until

ADA = "ada@llamas.art"


class World:
    """A gateway that mails, and the server that it mails by."""

    def __init__(self, gateway: Gateway, stand: Stand) -> None:
        self.gateway = gateway
        self.stand = stand

    def mail_to(self, address: str) -> list[str]:
        return [
            str(kept.parsed()["Subject"]) for kept in self.stand.mailbox.all() if address in kept.recipients
        ]

    async def receipted(self, address: str, count: int = 1) -> None:
        await eventually(lambda: len(self.mail_to(address)) == count, f"{count} receipts to {address}")

    async def choice_url(self, client: httpx.AsyncClient) -> str:
        page = (await client.get("/v1/mail")).json()["url"]
        assert page.startswith(f"{self.gateway.url}/mail/lsm1.acct_")
        return str(page.replace("/mail/", "/v1/mail/"))


@pytest.fixture(scope="module")
async def world(open_gateway: Open, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    stand = Stand(tmp_path_factory.mktemp("mail"), product_url="", now=lambda: datetime.now(UTC))
    port = free_port()
    settings = {
        "smtp_url": f"smtp+plain://127.0.0.1:{port}",
        "mail_from": "LlamaSketch <mail@llamas.art>",
    }
    async with stand.receiving(port, Door()), open_gateway(**settings) as gateway:
        yield World(gateway, stand)


async def test_a_person_who_pays_gets_a_receipt_and_a_guest_who_pays_gets_none(world: World) -> None:
    ada, guest = await world.gateway.person(ADA), await world.gateway.visitor()
    await world.gateway.top_up(guest)
    topup = await world.gateway.top_up(ada)
    await world.receipted(ADA)
    (kept,) = world.stand.mailbox.all()
    assert topup["id"] in kept.parsed().get_body(("plain",)).get_content()  # type: ignore[union-attr]


async def test_whoever_is_asked_by_session_is_told_where_mail_goes_and_where_to_change_it(
    world: World,
) -> None:
    eve, guest = await world.gateway.person("eve@llamas.art"), await world.gateway.visitor()
    shown = (await eve.get("/v1/mail")).json()
    assert (shown["sends"], shown["address"], shown["optional"]) == (True, "eve@llamas.art", True)
    assert (await guest.get("/v1/mail")).json()["address"] is None


async def test_one_click_turns_receipts_off_as_mail_programs_click(world: World) -> None:
    bob = await world.gateway.person("bob@llamas.art")
    await world.gateway.top_up(bob)
    await world.receipted("bob@llamas.art")
    letter = next(kept for kept in world.stand.mailbox.all() if "bob@llamas.art" in kept.recipients).parsed()
    url = str(letter["List-Unsubscribe"]).strip("<>")
    program = world.gateway.client()
    clicked = await program.post(url, data={"List-Unsubscribe": "One-Click"})
    assert (clicked.status_code, clicked.json()) == (200, {"optional": False})
    await world.gateway.top_up(bob)

    async def states() -> list[str]:
        query = sa.select(OUTBOX_ROWS.c.state).where(OUTBOX_ROWS.c.account_id == account)
        async with world.gateway.services.base.engine.connect() as connection:
            return sorted((await connection.execute(query)).scalars())

    account = (await bob.get("/v1/account")).json()["id"]
    await until(states, lambda found: found == ["dropped", "sent"], "the second receipt is not wanted")
    assert len(world.mail_to("bob@llamas.art")) == 1
    assert (await bob.get("/v1/mail")).json()["optional"] is False


async def test_a_link_turns_off_and_on_and_only_reading_changes_nothing(world: World) -> None:
    url = await world.choice_url(await world.gateway.person("cid@llamas.art"))
    stranger = world.gateway.client()
    for body, found in (
        (None, True),
        ({"optional": False}, False),
        (None, False),
        ({"optional": True}, True),
    ):
        answer = await (stranger.get(url) if body is None else stranger.put(url, json=body))
        assert answer.json() == {"optional": found}


@pytest.mark.parametrize("body", [{}, {"optional": "no"}, {"optional": None}, {"optional": 0}, [], "x"])
async def test_what_is_no_choice_changes_nothing(world: World, body: object) -> None:
    url = await world.choice_url(await world.gateway.person("dan@llamas.art"))
    stranger = world.gateway.client()
    assert (await stranger.put(url, json=body)).status_code == 422
    assert (await stranger.get(url)).json() == {"optional": True}


async def test_a_changed_link_and_a_link_of_another_account_choose_nothing(world: World) -> None:
    urls = [
        await world.choice_url(await world.gateway.person(f"{name}@llamas.art")) for name in ("dora", "emil")
    ]
    own, other = (url.rpartition("/")[2].split(".") for url in urls)
    stranger = world.gateway.client()
    for token in (
        ".".join([own[0], own[1], other[2]]),
        ".".join([own[0], own[1], own[2][:-1]]),
        own[1],
        "x" * 3_000,
        "lsm1..",
    ):
        for ask in (stranger.get, stranger.post):
            answer = await ask(f"/v1/mail/{token}")
            assert (answer.status_code, answer.json()["code"]) == (403, "mail_link_not_valid")


async def test_an_erasure_takes_queued_mail_and_choices_and_nothing_is_sent_afterwards(
    world: World, tmp_path: Path
) -> None:
    world.stand.faults.change({"down": True})
    fred = await world.gateway.person("fred@llamas.art")
    await world.gateway.top_up(fred)
    url = await world.choice_url(fred)
    await world.gateway.client().put(url, json={"optional": True})
    account = (await fred.get("/v1/account")).json()["id"]
    counts = await erase_person(
        world.gateway.settings.sqlalchemy_url, world.gateway.services.generation.store, account
    )
    world.stand.faults.change({"reset": True})
    assert (counts["mail"], counts["mail_choices"], counts["sign_ins"]) == (1, 1, 1)
    async with world.gateway.services.base.engine.connect() as connection:
        for table in (OUTBOX_ROWS, CHOICE_ROWS):
            query = sa.select(sa.func.count()).where(table.c.account_id == account)
            assert (await connection.execute(query)).scalar_one() == 0
    gina = await world.gateway.person("gina@llamas.art")
    await world.gateway.top_up(gina)
    await world.receipted("gina@llamas.art")
    assert world.mail_to("fred@llamas.art") == []


async def test_without_a_mail_server_nothing_is_queued_and_the_page_is_told(gateway: Gateway) -> None:
    hans = await gateway.person("hans@llamas.art")
    await gateway.top_up(hans)
    assert (await hans.get("/v1/mail")).json()["sends"] is False
    async with gateway.services.base.engine.connect() as connection:
        count = await connection.execute(sa.select(sa.func.count()).select_from(OUTBOX_ROWS))
        assert count.scalar_one() == 0


# --- plans ---


async def subscribed_to(world: World, address: str, plan: str) -> tuple[FakeSubscriptions, str, str]:
    """A person with a plan that is charged again by itself: the provider, its name for it, and ours."""
    outside = world.gateway.fake.network.subscriptions
    outside.prices = PRICES
    opened = await subscribed(world.gateway, outside, await world.gateway.person(address), plan)
    return outside, reference(opened), str(opened["id"])


async def state_of(world: World, mail: str) -> tuple[str, str | None]:
    query = sa.select(OUTBOX_ROWS.c.state, OUTBOX_ROWS.c.last_problem).where(
        OUTBOX_ROWS.c.mail_id.startswith(mail)
    )
    async with world.gateway.services.base.engine.connect() as connection:
        found = (await connection.execute(query)).all()
    return tuple(found[0]) if found else ("", None)


@pytest.mark.parametrize(
    ("plan", "subject"),
    [("starter", "Receipt: $8.00 for Starter"), ("unlimited", "Receipt: $40.00 for Unlimited")],
)
async def test_a_period_of_a_plan_is_receipted_by_its_name(world: World, plan: str, subject: str) -> None:
    address = f"{plan}@llamas.art"
    await subscribed_to(world, address, plan)
    await world.receipted(address)
    assert world.mail_to(address) == [subject]


async def test_a_renewal_that_is_not_paid_is_mailed_once_with_the_page_that_puts_it_right(
    world: World,
) -> None:
    outside, theirs, _ = await subscribed_to(world, "kay@llamas.art", "pro")
    outside.set_card(theirs, works=False)
    await outside.renew(theirs)
    failed = "Your payment for Pro did not go through"
    await eventually(lambda: failed in world.mail_to("kay@llamas.art"), "the letter")
    await outside.try_again(theirs)
    await world.gateway.top_up(await world.gateway.person("kay@llamas.art"))
    await eventually(lambda: len(world.mail_to("kay@llamas.art")) >= 3, "a later receipt")
    assert world.mail_to("kay@llamas.art").count(failed) == 1
    letter = next(kept.parsed() for kept in world.stand.mailbox.all() if kept.parsed()["Subject"] == failed)
    assert "https://fake.test/invoices/" in letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "List-Unsubscribe" not in letter


async def test_what_was_put_right_before_it_could_be_mailed_is_not_mailed(world: World) -> None:
    outside, theirs, ours = await subscribed_to(world, "lou@llamas.art", "pro")
    await world.receipted("lou@llamas.art")
    world.stand.faults.change({"down": True})
    outside.set_card(theirs, works=False)
    await outside.renew(theirs)
    mail = f"payment_failed:{ours}"
    await until(lambda: state_of(world, mail), lambda found: found[0] == "waiting", "the letter waits")
    outside.set_card(theirs, works=True)
    await outside.try_again(theirs)
    engine = world.gateway.services.base.engine
    query = sa.select(SUBSCRIPTION_ROWS.c.status).where(SUBSCRIPTION_ROWS.c.subscription_id == ours)

    async def status() -> str:
        async with engine.connect() as connection:
            return str((await connection.execute(query)).scalar_one())

    await until(status, lambda found: found == "active", "it is paid")
    world.stand.faults.change({"reset": True})
    async with engine.begin() as connection:
        await connection.execute(
            sa.update(OUTBOX_ROWS).where(OUTBOX_ROWS.c.mail_id.startswith(mail)).values(due_at=sa.func.now())
        )
    await until(
        lambda: state_of(world, mail), lambda found: found == ("dropped", "put right"), "it is dropped"
    )


async def test_who_is_charged_again_soon_is_told_once_and_who_has_cancelled_is_not(world: World) -> None:
    _, _, ours = await subscribed_to(world, "may@llamas.art", "starter")
    _, _, other = await subscribed_to(world, "ned@llamas.art", "starter")
    await (await world.gateway.person("ned@llamas.art")).post(f"/v1/subscriptions/{other}/cancel")
    base = world.gateway.services.base
    query = sa.select(SUBSCRIPTION_ROWS.c.period_end).where(SUBSCRIPTION_ROWS.c.subscription_id == ours)
    async with base.engine.connect() as connection:
        ends = (await connection.execute(query)).scalar_one()
    early = Renewals(base.engine, lambda: ends - timedelta(days=3, seconds=1), PLANS)
    await early.sweep()
    assert await state_of(world, f"renewal_ahead:{ours}") == ("", None)
    looks = [Renewals(base.engine, lambda: ends - timedelta(days=2), PLANS) for _ in range(2)]
    await asyncio.gather(*(look.sweep() for look in looks))
    assert await looks[0].sweep() == 0
    async with base.engine.begin() as connection:
        ahead = OUTBOX_ROWS.c.mail_id.startswith("renewal_ahead:")
        found = (await connection.execute(sa.select(OUTBOX_ROWS.c.mail_id).where(ahead))).scalars().all()
        await connection.execute(sa.update(OUTBOX_ROWS).where(ahead).values(due_at=sa.func.now()))
    assert sum(ours in mail for mail in found) == 1
    assert not [mail for mail in found if other in mail]
    subject = f"Starter renews on {ends.astimezone(UTC).day} {ends.astimezone(UTC):%B %Y}"
    await eventually(lambda: subject in world.mail_to("may@llamas.art"), "the letter")


async def reminder(world: World, account_id: str) -> dict[str, Any] | None:
    """The row that waits to remind somebody that their plan ends."""
    query = sa.select(OUTBOX_ROWS).where(OUTBOX_ROWS.c.mail_id == f"plan_ends:{account_id}")
    async with world.gateway.services.base.engine.connect() as connection:
        row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else dict(row)


async def test_whoever_paid_a_plan_ahead_is_reminded_once_before_its_end_which_paying_again_moves(
    world: World,
) -> None:
    zoe = await world.gateway.person("zoe@llamas.art")
    account = (await zoe.get("/v1/account")).json()["id"]
    dues = []
    for count in (1, 2):
        await bought(world.gateway, zoe, plan="unlimited")
        shown = (await zoe.get("/v1/account")).json()["subscription"]
        row = await reminder(world, account)
        assert row is not None
        until = datetime.fromisoformat(shown["lasts_until"])
        assert (row["state"], row["due_at"]) == ("waiting", until - timedelta(days=3))
        assert row["letter"]["label"] == "Unlimited"
        dues.append(row["due_at"])
        await world.receipted("zoe@llamas.art", count)
    assert dues[0] < dues[1]
    assert world.mail_to("zoe@llamas.art") == ["Receipt: $40.00 for Unlimited"] * 2
    async with world.gateway.services.base.engine.begin() as connection:
        mine = OUTBOX_ROWS.c.mail_id == f"plan_ends:{account}"
        await connection.execute(sa.update(OUTBOX_ROWS).where(mine).values(due_at=sa.func.now()))
    await world.receipted("zoe@llamas.art", 3)
    assert "Unlimited ends soon" in world.mail_to("zoe@llamas.art")
    await bought(world.gateway, zoe, plan="unlimited")
    row = await reminder(world, account)
    assert row is not None
    assert (row["state"], row["sent_at"], row["due_at"] > dues[1]) == ("waiting", None, True)


async def test_a_plan_whose_money_went_back_reminds_nobody(world: World) -> None:
    max_ = await world.gateway.person("max@llamas.art")
    account = (await max_.get("/v1/account")).json()["id"]
    topup = await bought(world.gateway, max_, plan="starter")
    assert await reminder(world, account) is not None
    network = world.gateway.fake.network
    payments = world.gateway.services.payments.payments
    reference = await payments.store.reference(topup["id"])
    assert reference is not None
    await network.change(str(reference.reference), topup["received"][0]["reference"], ReceiptState.REVERSED)

    async def nobody() -> bool:
        return await reminder(world, account) is None

    await until(nobody, bool, "the reminder is gone")
