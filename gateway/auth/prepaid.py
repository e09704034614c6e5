"""Balances that are paid for by L402: which token names which account, and the one challenge that is open to whoever asks.

A row is made before its invoice is opened, and the invoice by a key of the row's own: whoever dies between the two, or asks
twice at once, finds the same one again. What was never paid is deleted a day after it could be.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.auth.authentication import unauthenticated
from gateway.auth.identity import Credential, Narrowed, Principal, Role
from gateway.auth.l402 import (
    CAPABILITIES,
    TOKEN_ID_BYTES,
    TOKEN_LIFETIME,
    NotOurs,
    TokenId,
    Tokens,
    challenge,
)
from gateway.database.tables import l402_tokens
from gateway.http.problems import Problem
from ledger.clock import Clock
from ledger.identifiers import AccountId, PaymentId
from ledger.ownership import Ownership
from rails.contract import RailUnavailable
from rails.domain.topup import TopupState, TopupView
from rails.payments.service import Payments
from rails.quotes.quoter import CreditPrice
from rails.store.tables import PAYMENT_ROWS

OPEN_ADDRESS, OPEN_SITE = 20, 60
"""Challenges that are open at once to one IPv4 address or IPv6 /64, and to one IPv6 /48."""
LEFT_TO_PAY = timedelta(minutes=1)
"""A challenge with less time left is not given again."""
OPENING = timedelta(minutes=1)
"""Until then a row waits for its invoice."""
KEPT_UNPAID = timedelta(days=1)
PRUNED_MAX = 50
_UNPAID = ("opening", "waiting", "expired", "declined")
_t = l402_tokens.c


class Asked(NamedTuple):
    """Who is asked to pay, and for how much."""

    holder: str
    """The account, or of nobody the network, the key and the digest of what was sent."""
    account_id: AccountId
    """Whose balance it becomes, if nobody was asked for the same before."""
    credits: int
    networks: Sequence[str]
    """Keyed digests of where it comes from, the narrow one first."""
    narrowed: Narrowed | None = None
    """The token that it came with, if with one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    token_id: bytes
    account_id: AccountId
    credits: int
    payment_id: str | None
    valid_until: datetime


class Prepaid:
    """Opens challenges, and knows the tokens that came of them."""

    def __init__(
        self,
        tokens: Tokens,
        secret: bytes,
        *,
        engine: AsyncEngine,
        payments: Payments,
        clock: Clock,
        randomness: Callable[[int], bytes],
        public_url: str,
    ) -> None:
        self._tokens = tokens
        self._secret = secret
        self._engine = engine
        self._payments = payments
        self._ownership = Ownership(engine)
        self._clock = clock
        self._randomness = randomness
        self._public_url = public_url

    # --- whoever has paid ----------------------------------------------------------------------

    async def principal(self, credential: str, method: str, path: str) -> Principal:
        """Whose balance a credential names. Raises `Problem` 401, or 403 for what its caveats do not allow."""
        try:
            grant = self._tokens.read(credential, self._clock())
        except NotOurs as error:
            raise not_valid(str(error)) from error
        query = sa.select(l402_tokens).where(_t.token_id == grant.token_id, _t.revoked_at.is_(None))
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise not_valid("the token was ended, or is not known here")
        if not grant.allows(method, path):
            raise Problem("l402_not_allowed")
        owner = await self._ownership.owner_of(AccountId(row.account_id))
        ends = Credential(hashlib.sha256(grant.token_id).digest()[:16], row.opened_at, grant.valid_until)
        shorter = int(grant.valid_until.timestamp()) < int(row.valid_until.timestamp())
        narrowed = Narrowed(grant.capabilities, grant.valid_until if shorter else None)
        return Principal(Role.VISITOR, owner, False, ends, token_id=grant.token_id, narrowed=narrowed)

    async def settle(self, token_id: bytes) -> bool:
        """Whether a token's payment is credited by now: the rail is asked, unless it is known.

        Its preimage may be here before the rail's notification is.
        """
        async with self._engine.connect() as connection:
            found = await connection.execute(sa.select(_t.payment_id).where(_t.token_id == token_id))
            payment_id = found.scalar_one_or_none()
        if payment_id is None:
            return False
        if (await self._payments.topup(payment_id)).credited:
            return True
        try:
            return bool((await self._payments.observe(payment_id)).credited)
        except RailUnavailable:
            return False

    async def revoke(self, token_id: bytes) -> None:
        """End a token. What is left of the balance stays with the account."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(l402_tokens)
                .where(_t.token_id == token_id, _t.revoked_at.is_(None))
                .values(revoked_at=self._clock(), is_open=False)
            )

    # --- whoever is to pay ---------------------------------------------------------------------

    async def challenge(self, asked: Asked) -> str:
        """The header to answer with: the one that is open, or a new one. Raises `Problem` 429 or 503, and the refusals of
        `Payments.open_topup`."""
        for _ in range(2):  # the one that is open may just have been paid, or closed
            row = await self._take(asked)
            view = await self._invoiced(row)
            instructions = view.instructions or {}
            if view.state is TopupState.WAITING and instructions.get("payment_hash"):
                token = TokenId(bytes.fromhex(instructions["payment_hash"]), row.token_id)
                return challenge(self._minted(token, row, asked.narrowed), str(instructions["text"]))
            if (
                view.state is TopupState.OPENING
            ):  # the rail is slow: the same one is given when it has answered
                break
            await self._drop(row.token_id)
        raise Problem("rail_unavailable")

    def _minted(self, token: TokenId, row: _Row, narrowed: Narrowed | None) -> str:
        """Whoever holds a narrowed token would pay a little and hold a wide one, of a balance that others fill."""
        capabilities, until = narrowed or (CAPABILITIES, None)
        return self._tokens.mint(
            token, valid_until=min(row.valid_until, until or row.valid_until), capabilities=capabilities
        )

    async def _take(self, asked: Asked) -> _Row:
        """The challenge that is open, or a row for a new one."""
        now, holder = self._clock(), self._keyed(asked.holder)
        async with self._engine.begin() as connection:
            # What comes from one network at once is counted one after another.
            lock = int.from_bytes(self._keyed(asked.networks[-1])[:8], "big", signed=True)
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            await self._tidy(connection, now)
            known = await self._known_open(connection, holder, asked.credits, now)
            if known is not None:
                return known
            await self._check(connection, asked.networks, now)
            new = _Row(
                token_id=self._randomness(TOKEN_ID_BYTES),
                account_id=asked.account_id,
                credits=asked.credits,
                payment_id=None,
                valid_until=now + TOKEN_LIFETIME,
            )
            row = {
                "token_id": new.token_id,
                "account_id": asked.account_id,
                "holder": holder,
                "credits": asked.credits,
                "networks": list(asked.networks),
                "opened_at": now,
                "open_until": now + OPENING,
                "valid_until": new.valid_until,
                "is_open": True,
            }
            added = insert(l402_tokens).values(**row).on_conflict_do_nothing().returning(_t.token_id)
            if (await connection.execute(added)).one_or_none() is not None:
                return new
            # The same account asked elsewhere at the same moment, and came first.
            known = await self._known_open(connection, holder, asked.credits, now)
        if known is None:
            raise Problem("rail_unavailable")
        return known

    async def _known_open(
        self, connection: AsyncConnection, holder: bytes, credits_: int, now: datetime
    ) -> _Row | None:
        mine = (_t.holder == holder, _t.credits == credits_, _t.is_open)
        late = sa.and_(_t.payment_id.is_not(None), _t.open_until < now + LEFT_TO_PAY)
        await connection.execute(sa.update(l402_tokens).where(*mine, late).values(is_open=False))
        found = (await connection.execute(sa.select(l402_tokens).where(*mine))).one_or_none()
        return None if found is None else _row(found)

    async def _check(self, connection: AsyncConnection, networks: Sequence[str], now: datetime) -> None:
        for network, most in zip(networks, (OPEN_ADDRESS, OPEN_SITE), strict=False):
            count = (
                sa.select(sa.func.count())
                .select_from(l402_tokens)
                .where(_t.is_open, _t.open_until > now, _t.networks.contains([network]))
            )
            if (await connection.execute(count)).scalar_one() >= most:
                raise Problem("too_many_challenges", limit=most)

    async def _tidy(self, connection: AsyncConnection, now: datetime) -> None:
        """Close what can be paid no more, and forget what never was. A few at a time, and none that others have in hand."""
        late = await self._some(connection, _t.is_open, _t.open_until < now)
        await connection.execute(sa.update(l402_tokens).where(_t.token_id.in_(late)).values(is_open=False))
        paid = sa.exists().where(
            PAYMENT_ROWS.c.payment_id == _t.payment_id, PAYMENT_ROWS.c.state.not_in(_UNPAID)
        )
        old = await self._some(connection, sa.not_(_t.is_open), _t.open_until < now - KEPT_UNPAID)
        # What was paid is looked at again when its time is over, and not each time that somebody asks.
        lasts = sa.and_(paid, _t.valid_until >= now)
        await connection.execute(
            sa.update(l402_tokens).where(_t.token_id.in_(old), lasts).values(open_until=_t.valid_until)
        )
        await connection.execute(
            sa.delete(l402_tokens).where(_t.token_id.in_(old), _t.open_until < now - KEPT_UNPAID)
        )

    async def _some(self, connection: AsyncConnection, *wanted: sa.ColumnElement[bool]) -> Sequence[bytes]:
        """The oldest such rows, locked."""
        found = sa.select(_t.token_id).where(*wanted).order_by(_t.open_until).limit(PRUNED_MAX)
        return (await connection.execute(found.with_for_update(skip_locked=True))).scalars().all()

    async def _invoiced(self, row: _Row) -> TopupView:
        """The payment of a row; opened now, if it is not yet."""
        if row.payment_id is not None:
            payment_id = PaymentId(row.payment_id)
            with contextlib.suppress(RailUnavailable):
                await self._payments.open_request(payment_id)
            return await self._payments.topup(payment_id)
        price = self._price(row.credits)
        if price is None:
            await self._payments.ask_rails_again()
            price = self._price(row.credits)
        try:
            if price is None:
                raise Problem("rail_closed", "No invoice can be opened now.")
            view = await self._payments.open_topup(
                row.account_id,
                price.rail,
                pay_asset=price.due.asset.code,
                wanted=row.credits,
                return_url=f"{self._public_url}/topups/{{payment_id}}",
                key=f"l402:{row.token_id.hex()}",
                description="Images by API" if row.credits > 1 else "One image by API",
            )
        except Exception:
            await self._drop(row.token_id)
            raise
        opened = {"payment_id": view.payment_id, "open_until": view.quote_expires_at}
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(l402_tokens).where(_t.token_id == row.token_id).values(**opened)
            )
        return view

    def _price(self, credits_: int) -> CreditPrice | None:
        """By the first open rail by which a payer learns a secret."""
        prices = self._payments.credit_prices(credits_)
        return next((price for price in prices if price.payer_learns_secret), None)

    async def _drop(self, token_id: bytes) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(l402_tokens).where(_t.token_id == token_id).values(is_open=False)
            )

    def _keyed(self, value: str) -> bytes:
        return hmac.new(self._secret, value.encode(), hashlib.sha256).digest()


def not_valid(why: str) -> Problem:
    """401 with the challenge that RFC 9110 asks for: there is nothing to pay here."""
    detail = f"This L402 credential is not valid: {why}."
    return unauthenticated(detail, code="l402_not_valid", scheme="L402")


def _row(found: Any) -> _Row:
    return _Row(
        token_id=bytes(found.token_id),
        account_id=AccountId(found.account_id),
        credits=found.credits,
        payment_id=found.payment_id,
        valid_until=found.valid_until,
    )
