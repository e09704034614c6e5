"""Visitors' tokens, and digests to count addresses by."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from gateway.auth.identity import VISITOR_LIFETIME, NetworkKeys, Principal, Role, VisitorTokens, _signed
from ledger.clock import ManualClock
from ledger.identifiers import AccountId, Identifiers

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = b"a secret of these tests"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def account(clock: ManualClock) -> str:
    return Identifiers(clock).account()


def test_a_token_speaks_for_its_account(clock: ManualClock, account: str) -> None:
    tokens = VisitorTokens(SECRET, clock)
    token = tokens.issue(account)
    assert tokens.read(token) == account
    assert re.fullmatch(rf"lsv1\.{account}\.{int(NOW.timestamp())}\.[A-Za-z0-9_-]{{43}}", token)


def test_a_token_stays_readable_for_ever_in_its_present_form(clock: ManualClock) -> None:
    """Browsers keep them for a year: what was given out must be read by the next release."""
    token = VisitorTokens(SECRET, clock).issue("acct_01kamwz00000000000000000az")
    assert (
        token == "lsv1.acct_01kamwz00000000000000000az.1795348800.aBoETlGpUVqMTdqVOVMQ7gvZekr1hwhAQ_21z8OkB4s"
    )


def test_a_token_of_another_secret_is_nobodys(clock: ManualClock, account: str) -> None:
    assert VisitorTokens(b"another secret", clock).read(VisitorTokens(SECRET, clock).issue(account)) is None


def test_a_token_counts_as_long_as_the_secret_that_signed_it_is_named(clock: ManualClock) -> None:
    account = Identifiers(clock).account()
    old = VisitorTokens(b"old", clock).issue(account)
    changed = VisitorTokens(b"new", clock, older=[b"old", b"ancient"])
    assert changed.read(old) == account
    assert VisitorTokens(b"new", clock).read(changed.issue(account)) == account, (
        "new tokens need the new secret alone"
    )
    assert VisitorTokens(b"new", clock, older=[b"ancient"]).read(old) is None
    assert changed.read(f"{old[:-4]}AAAA") is None


def test_a_token_is_valid_to_the_second_for_its_lifetime(clock: ManualClock, account: str) -> None:
    tokens = VisitorTokens(SECRET, clock)
    token = tokens.issue(account)
    clock.set(NOW + VISITOR_LIFETIME)
    assert tokens.read(token) == account
    clock.advance(timedelta(seconds=1))
    assert tokens.read(token) is None


def test_a_token_may_come_from_a_process_whose_clock_is_a_little_ahead(
    clock: ManualClock, account: str
) -> None:
    tokens = VisitorTokens(SECRET, clock)
    token = tokens.issue(account)
    clock.set(NOW - timedelta(seconds=300))
    assert tokens.read(token) == account
    clock.set(NOW - timedelta(seconds=301))
    assert tokens.read(token) is None


def test_a_token_that_was_changed_anywhere_is_nobodys(clock: ManualClock, account: str) -> None:
    tokens = VisitorTokens(SECRET, clock)
    prefix, owner, issued, signature = tokens.issue(account).split(".")
    other = Identifiers(clock).account()
    changed = [
        ("lsv2", owner, issued, signature),
        (prefix, other, issued, signature),
        (prefix, owner.replace("acct_", "hold_"), issued, signature),
        (prefix, owner, str(int(issued) + 1), signature),
        (prefix, owner, f"{issued}x", signature),
        (prefix, owner, f"-{issued}", signature),
        (prefix, owner, "", signature),
        (prefix, owner, "٣", signature),
        (prefix, owner, "²", signature),
        (prefix, owner, issued, signature[:-1]),
        (prefix, owner, issued, signature + "A"),
        (prefix, owner, issued, "é"),
        (prefix, owner, issued),
        (prefix, owner, issued, signature, "more"),
    ]
    assert [parts for parts in changed if tokens.read(".".join(parts)) is not None] == []


def test_a_number_too_long_for_a_time_is_not_even_read(clock: ManualClock, account: str) -> None:
    tokens = VisitorTokens(SECRET, clock)
    for digits, genuine in ((12, True), (13, False)):
        issued = str(int(NOW.timestamp())).rjust(digits, "0")
        # Signed as it stands, so that nothing but its length can be at fault.
        signature = _signed(SECRET, AccountId(account), int(issued))
        assert (tokens.read(f"lsv1.{account}.{issued}.{signature}") == account) is genuine


def test_an_address_is_counted_by_a_digest_that_differs_by_prefix_day_and_secret() -> None:
    keys = NetworkKeys(SECRET)
    key = keys.key("192.0.2.1/32", NOW)
    assert re.fullmatch(r"2026-11-22:[0-9a-f]{32}", key)
    assert keys.key("192.0.2.1/32", NOW) == key
    assert keys.key("192.0.2.2/32", NOW) != key
    assert keys.key("192.0.2.1/32", NOW + timedelta(days=1)) != key
    assert NetworkKeys(b"another secret").key("192.0.2.1/32", NOW) != key


def test_a_caller_acts_in_the_logs_words_as_their_account(account: str) -> None:
    assert Principal(Role.VISITOR, account, by_cookie=True).actor == account
