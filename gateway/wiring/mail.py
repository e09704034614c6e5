"""Mail: whom it is for, what they chose, and the sweeper that sends it, if there is a mail server."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.mail_links import MailLinks
from gateway.auth.sign_in_links import PREFIX, SignInLinks
from gateway.database.tables import people, sign_in_links
from gateway.settings import Settings
from gateway.wiring.foundation import Foundation
from ledger.followups.sweeper import Sweeper
from ledger.identifiers import AccountId, is_identifier
from ledger.ownership import Ownership
from mail.choices import Choices
from mail.delivery import Delivery
from mail.domain.letters import AnyLetter, PaymentFailed, SignInLink
from mail.domain.message import Sender
from mail.ports import Recipient, Transport
from mail.server import Server
from rails.recurring import SubscriptionStatus
from rails.store.tables import SUBSCRIPTION_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServices:
    """What people chose, and what sends."""

    links: MailLinks
    choices: Choices
    sweepers: tuple[Sweeper, ...]
    """One, or none without a mail server."""


class PeopleRecipients:
    """The addresses of those who have signed in, or want to. Implements `mail.ports.Recipients`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._ownership = Ownership(engine)

    async def find(self, account_id: str) -> Recipient | None:
        """See `Recipients.find`."""
        if is_identifier(account_id, PREFIX):
            return await self._asked(
                account_id, sa.select(sign_in_links.c.email).where(sign_in_links.c.link_id == account_id)
            )
        owner = await self._ownership.owner_of(AccountId(account_id))
        return await self._asked(owner, sa.select(people.c.email).where(people.c.account_id == owner))

    async def _asked(self, who: str, query: sa.Select[Any]) -> Recipient | None:
        async with self._engine.connect() as connection:
            address = (await connection.execute(query)).scalar_one_or_none()
        return Recipient(who, str(address)) if address else None


_DUE = (SubscriptionStatus.PAST_DUE.value, SubscriptionStatus.UNPAID.value)


@dataclass(frozen=True, slots=True)
class Links:
    """Where letters lead. Implements `mail.ports.Links`."""

    choosing: MailLinks
    signing_in: SignInLinks
    engine: AsyncEngine
    public_url: str

    def page(self, account_id: str) -> str:
        """See `mail.ports.Links.page`."""
        return self.choosing.page(account_id)

    def turn_off(self, account_id: str) -> str:
        """See `mail.ports.Links.turn_off`."""
        return self.choosing.turn_off(account_id)

    async def action(self, letter: AnyLetter) -> str | None:
        """See `mail.ports.Links.action`."""
        match letter:
            case SignInLink(link_id=link_id):
                return self.signing_in.url(link_id)
            case PaymentFailed(subscription_id=subscription_id):
                return await self._pay(subscription_id)
            case _:
                return None

    async def _pay(self, subscription_id: str) -> str | None:
        """Where what is due is paid by hand, or the account if the rail has no page; None if nothing is due any more."""
        rows = SUBSCRIPTION_ROWS.c
        query = sa.select(rows.status, rows.pay_url).where(rows.subscription_id == subscription_id)
        async with self.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None or row.status not in _DUE:
            return None
        return str(row.pay_url) if row.pay_url else f"{self.public_url}/account"


def transport_to(settings: Settings) -> Transport:
    """The way to the mail server of the settings."""
    # Loaded only where mail is sent (`gateway.imports`).
    from mail.smtp import SmtpTransport

    server, sender = Server.parse(settings.smtp_url.get_secret_value()), Sender.parse(settings.mail_from)
    return SmtpTransport(server, hello=sender.domain)


def build_mail(base: Foundation, signing_in: SignInLinks) -> MailServices:
    """Mail; without a mail server nothing is sent, and the log says so."""
    settings = base.settings
    links = MailLinks(settings.secret_for("mail-links"), settings.public_url)
    choices = Choices(base.engine, base.clock)
    if not settings.sends_mail:
        structlog.get_logger("mail").info("mail_is_off", why="LLAMASKETCH_SMTP_URL is not given")
        return MailServices(links=links, choices=choices, sweepers=())
    delivery = Delivery(
        engine=base.engine,
        clock=base.clock,
        transport=transport_to(settings),
        recipients=PeopleRecipients(base.engine),
        links=Links(links, signing_in, base.engine, settings.public_url.rstrip("/")),
        sender=Sender.parse(settings.mail_from),
        public_url=settings.public_url,
    )
    return MailServices(links=links, choices=choices, sweepers=(delivery.sweeper(random.SystemRandom()),))
