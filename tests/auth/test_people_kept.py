"""What is kept of people and guests: one account each, an address that can be erased, one recovery code."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.auth.identity import Credential, Principal, Role, token_digest
from gateway.auth.people import FRESH, SESSION_LIFETIME, People, _credential
from gateway.database.tables import guests, metadata
from gateway.database.tables import people as people_table
from gateway.http.problems import Problem
from ledger.clock import ManualClock, system_clock
from ledger.identifiers import AccountId, Identifiers
from tests.gateway.stack import settings_for

NOW = system_clock()
ISSUER = "https://llamasketch.example"


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    async with AsyncConnectionPool(database_url, min_size=1, open=False, kwargs={"autocommit": True}) as pool:
        yield pool


def people(engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path, **settings: Any) -> People:
    settings = {"public_url": ISSUER, **settings}
    return People(
        settings=settings_for("postgresql://nowhere/", "redis://nowhere/", tmp_path, **settings),
        clock=ManualClock(NOW),
        identifiers=Identifiers(system_clock),
        engine=engine,
        pool=pool,
        http=httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(500))),
    )


@pytest.fixture
def known(engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path) -> People:
    return people(engine, pool, tmp_path)


async def sign_in(people: People, email: str) -> AccountId:
    assert people.issuer is not None
    found = await people.principal(people.issuer.token(email))
    assert found is not None
    assert found == Principal(Role.PERSON, found.account_id, by_cookie=False)
    return found.account_id


async def test_a_person_has_one_account_whenever_they_come(known: People) -> None:
    ada, bob = await sign_in(known, "ada@example.com"), await sign_in(known, "bob@example.com")
    assert ada.startswith("acct_")
    assert ada != bob
    assert await sign_in(known, "ada@example.com") == ada


async def test_a_token_can_be_ended_by_what_is_kept_of_it(known: People) -> None:
    assert known.issuer is not None
    token = known.issuer.token("ada@example.com")
    found = await known.principal(token)
    assert found is not None
    assert found.credential == Credential(
        token_digest(token), NOW, NOW.replace(microsecond=0) + SESSION_LIFETIME
    )


def test_a_token_that_does_not_say_when_it_was_issued_counts_as_the_oldest() -> None:
    kept = _credential("a.b.c", {"exp": 1e300})
    assert kept.issued_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert kept.expires_at.tzinfo is UTC
    assert kept.expires_at > NOW


async def test_a_person_who_comes_twice_at_once_has_one_account(known: People) -> None:
    came = await asyncio.gather(*(sign_in(known, "eve@example.com") for _ in range(4)))
    assert len(set(came)) == 1


async def test_the_same_subject_of_another_issuer_is_somebody_else(
    known: People, engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    elsewhere = people(engine, pool, tmp_path, public_url="https://other.example")
    assert await sign_in(known, "ada@example.com") != await sign_in(elsewhere, "ada@example.com")


async def test_what_is_kept_of_a_person(known: People, engine: AsyncEngine) -> None:
    account_id = await sign_in(known, "ada@example.com")
    async with engine.connect() as connection:
        [row] = (await connection.execute(sa.select(people_table))).all()
    assert row._asdict() == {
        "issuer": ISSUER,
        "subject": "b5fc85e55755f9e0d030a10ab4429b6b",
        "account_id": account_id,
        "email": "ada@example.com",
        "created_at": NOW,
    }


@pytest.mark.parametrize("email", ["a", "a" * 500])
async def test_an_address_is_kept_from_one_sign_to_five_hundred(known: People, email: str) -> None:
    account_id = await known._account_of(claims_of("somebody", email))
    assert await known.profile(account_id) == {"kind": "person", "email": email}


@pytest.mark.parametrize("email", [None, 7, ["a@b"], "a\x00b", "", "a" * 501])
async def test_an_address_that_cannot_be_one_is_not_kept(known: People, email: object) -> None:
    account_id = await known._account_of(claims_of("somebody", email))
    assert await known.profile(account_id) == {"kind": "person", "email": None}


async def test_a_profile_says_who_it_is(known: People) -> None:
    account_id = await sign_in(known, "ada@example.com")
    guest, visitor = AccountId("acct_guest"), AccountId("acct_visitor")
    assert await known.recovery_code(guest) is not None
    assert await known.profile(account_id) == {"kind": "person", "email": "ada@example.com"}
    assert await known.profile(guest) == {"kind": "guest", "email": None}
    assert await known.profile(visitor) == {"kind": "visitor", "email": None}


# --- recovery codes ---


async def test_a_guest_is_given_one_code_that_opens_their_account(known: People, engine: AsyncEngine) -> None:
    guest, other = AccountId("acct_guest"), AccountId("acct_other")
    code, others = await known.recovery_code(guest), await known.recovery_code(other)
    assert code is not None
    assert others is not None
    assert re.fullmatch(r"LLAMA(-[0-9A-HJKMNP-TV-Z]{4}){4}", code)
    assert code != others
    assert await known.recovery_code(guest) == code, "whoever lost the answer asks again"
    assert (await known.recover(code), await known.recover(others)) == (guest, other)
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(guests).order_by("account_id"))).all()
    assert [(row.account_id, row.created_at) for row in rows] == [(guest, NOW), (other, NOW)]
    assert all(len(row.code_digest) == 32 and code.encode() not in row.code_digest for row in rows)


async def test_a_code_cannot_be_guessed_to_its_last_sign(known: People) -> None:
    codes = [await known.recovery_code(AccountId(f"acct_{number}")) for number in range(40)]
    signs = [code.replace("-", "")[5:] for code in codes if code is not None]
    assert len(signs) == 40
    assert any(text[1:4] != text[4:7] for text in signs), "one part is another, moved on"
    for place in range(16):
        # Forty throws of 32 signs give fewer than nine different ones once in 10^17.
        assert len({text[place] for text in signs}) > 8, place


async def test_a_guest_whose_code_was_made_otherwise_keeps_it_and_is_shown_no_other(
    known: People, engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    guest = AccountId("acct_guest")
    before = people(engine, pool, tmp_path, secret_key="another secret, of 32 signs or more")
    code = await before.recovery_code(guest)
    assert code is not None
    assert await known.recovery_code(guest) is None
    assert await before.recover(code) == guest


async def test_a_code_may_be_typed_as_people_type(known: People) -> None:
    guest = AccountId("acct_guest")
    code = await known.recovery_code(guest)
    assert code is not None
    signs = code.removeprefix("LLAMA-")
    for typed in (
        code.lower(),
        code.replace("-", ""),
        f"  {code} ",
        code.replace("-", " "),
        signs,
        "LLAMA-" + signs.replace("0", "O").replace("1", "I"),
        "LLAMA-" + signs.replace("0", "o").replace("1", "l"),
    ):
        assert await known.recover(typed) == guest, typed


def test_what_looks_alike_is_the_same_sign(known: People) -> None:
    written = known._digests("LLAMA-0000-1111-0000-1111")
    assert written == known._digests("OOOO-IIII-oooo-llll")
    assert written == known._digests("LLAMAOOOO LLLL 0000 iiii")
    assert written != known._digests("LLAMA-0000-1111-0000-1110")


@pytest.mark.parametrize("code", ["", "LLAMA", "LLAMA-0000-0000-0000-0000", "\x00", "x" * 500])
async def test_a_code_that_nobody_was_given_opens_nothing(known: People, code: str) -> None:
    await known.recovery_code(AccountId("acct_guest"))
    with pytest.raises(Problem) as problem:
        await known.recover(code)
    assert problem.value.code == "recovery_code_unknown"


async def test_the_table_alone_opens_nothing_without_our_secret(
    known: People, engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    code = await known.recovery_code(AccountId("acct_guest"))
    assert code is not None
    with pytest.raises(Problem):
        await people(engine, pool, tmp_path, secret_key="another secret, of 32 signs or more").recover(code)


async def test_a_session_ends_after_thirty_days(
    engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    known = people(engine, pool, tmp_path)
    assert known.issuer is not None
    known.issuer._clock = ManualClock(NOW - timedelta(days=30, seconds=60))
    with pytest.raises(Problem):
        await known.principal(known.issuer.token("ada@example.com"))


# --- the address that mail goes to ---


def claims_of(subject: str, email: object, *, age: timedelta = timedelta(0), **more: Any) -> dict[str, Any]:
    issued = (NOW - age).timestamp()
    return {"sub": subject, "email": email, "iat": issued, "exp": issued + 3_600, **more}


async def address_of(people: People, claims: dict[str, Any]) -> str | None:
    return (await people.profile(await people._account_of(claims)))["email"]


async def test_an_address_that_nobody_has_shown_to_be_theirs_is_not_kept(known: People) -> None:
    assert await address_of(known, claims_of("a", "a@llamas.art", email_verified=False)) is None
    assert await address_of(known, claims_of("a", "a@llamas.art", email_verified=True)) == "a@llamas.art"
    assert await address_of(known, claims_of("b", "b@llamas.art")) == "b@llamas.art", "not every issuer says"


async def test_a_new_address_comes_with_a_fresh_token_and_an_old_token_brings_none_back(
    known: People,
) -> None:
    old = claims_of("a", "old@llamas.art", age=FRESH)
    account = await known._account_of(old)
    assert await address_of(known, claims_of("a", "new@llamas.art")) == "new@llamas.art"
    assert await address_of(known, old) == "new@llamas.art"
    for nothing in (None, "", 5, "x" * 501):
        assert await address_of(known, claims_of("a", nothing)) == "new@llamas.art"
    refused = claims_of("a", "else@llamas.art", email_verified=False)
    assert await address_of(known, refused) == "new@llamas.art"
    assert await known._account_of(refused) == account


OLD, NEW = "kX9vTq2LmZ7bRw4cNf8YpHs3JdGe6Ua-old", "t9ZpK4wQx7mLb2VcRf8YnHs3JdGe6Ua-new"


async def test_whoever_signed_in_before_the_secret_key_changed_stays_signed_in(
    engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    before = people(engine, pool, tmp_path, secret_key=OLD)
    after = people(engine, pool, tmp_path, secret_key=NEW, older_secret_keys=f" {OLD} ,")
    assert before.issuer is not None
    token = before.issuer.token("ada@example.com")
    found = await after.principal(token)
    assert found is not None
    assert (
        found.account_id
        == await sign_in(after, "ada@example.com")
        == await sign_in(before, "ada@example.com")
    )
    forgotten = people(engine, pool, tmp_path, secret_key=NEW)
    with pytest.raises(Problem):
        await forgotten.principal(token)
    assert after.issuer is not None
    assert await forgotten.principal(after.issuer.token("ada@example.com")) is not None


async def test_an_ended_token_of_an_older_key_is_refused_like_any_other(
    engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    before = people(engine, pool, tmp_path, secret_key=OLD)
    assert before.issuer is not None
    before.issuer._clock = lambda: NOW - timedelta(days=400)
    after = people(engine, pool, tmp_path, secret_key=NEW, older_secret_keys=OLD)
    with pytest.raises(Problem, match="not valid, or has expired"):
        await after.principal(before.issuer.token("ada@example.com"))


async def test_a_recovery_code_that_is_shown_or_used_while_its_key_is_named_outlives_the_key(
    engine: AsyncEngine, pool: AsyncConnectionPool[Any], tmp_path: Path
) -> None:
    shown, used, absent = (Identifiers(system_clock).account() for _ in range(3))
    before = people(engine, pool, tmp_path, secret_key=OLD)
    codes = {guest: await before.recovery_code(guest) for guest in (shown, used, absent)}
    both = people(engine, pool, tmp_path, secret_key=NEW, older_secret_keys=OLD)
    assert await both.recovery_code(shown) == codes[shown]
    assert await both.recovery_code(shown) == codes[shown], "also now that it is kept with the new key"
    assert await both.recover(str(codes[used])) == used
    assert await both.recover(str(codes[used])) == used
    after = people(engine, pool, tmp_path, secret_key=NEW)
    assert [await after.recover(str(codes[guest])) for guest in (shown, used)] == [shown, used]
    assert await after.recovery_code(shown) is None, "it cannot be made anew, and none other is given"
    with pytest.raises(Problem, match="not known"):
        await after.recover(str(codes[absent]))
