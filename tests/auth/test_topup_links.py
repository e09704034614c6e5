"""A link to top up an account says what it says for as long as it is ours, and nothing else can be made of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from gateway.auth.identity import VisitorTokens
from gateway.auth.topup_links import LINK_LIFETIME, TopupLinks
from ledger.clock import ManualClock
from ledger.identifiers import Identifiers

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes ..."
URL = "https://sketch.test"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def account(clock: ManualClock) -> str:
    return Identifiers(clock).account()


@pytest.fixture
def links(clock: ManualClock) -> TopupLinks:
    return TopupLinks(SECRET, URL, clock)


def token_of(address: str) -> str:
    page, _, token = address.partition("#")
    assert page == f"{URL}/topup"
    return token


def test_a_link_says_which_account_how_much_and_until_when(
    links: TopupLinks, clock: ManualClock, account: str
) -> None:
    link = links.read(token_of(links.issue(account, 4)))
    assert link is not None
    assert (link.account_id, link.needed_credits) == (account, 4)
    assert link.expires_at == NOW + LINK_LIFETIME


def test_a_link_that_has_ended_still_says_so_itself(
    links: TopupLinks, clock: ManualClock, account: str
) -> None:
    token = token_of(links.issue(account, 4))
    clock.advance(LINK_LIFETIME * 2)
    link = links.read(token)
    assert link is not None
    assert link.expires_at < clock()


def test_every_sign_of_a_link_counts(links: TopupLinks, account: str) -> None:
    token = token_of(links.issue(account, 4))
    for at, sign in enumerate(token):
        other = "1" if sign != "1" else "2"
        changed = links.read(token[:at] + other + token[at + 1 :])
        assert changed is None, f"{sign} at {at} became {other}"
    assert links.read(token[:-1]) is None
    assert links.read(token + "A") is None


def test_nobody_raises_the_amount_the_end_or_the_account(
    links: TopupLinks, clock: ManualClock, account: str
) -> None:
    prefix, _, needed, end, signature = token_of(links.issue(account, 4)).split(".")
    other = Identifiers(clock).account()
    for claims in (
        f"{prefix}.{account}.{needed}.{int(end) + 86_400}",
        f"{prefix}.{account}.1.{end}",
        f"{prefix}.{other}.{needed}.{end}",
        f"{prefix}.{account}.{needed}.{'9' * 30}",
        f"{prefix}.{account}.{needed}.٣",
        f"{prefix}.{account}.-1.{end}",
    ):
        assert links.read(f"{claims}.{signature}") is None


@pytest.mark.parametrize(
    "text", ["", ".", "....", "lst1....", "lst1.acct_x.1.1.x", "é.é.é.é.é", "lsv1", "\x00", "lst1" * 5_000]
)
def test_what_is_no_link_is_none(links: TopupLinks, text: str) -> None:
    assert links.read(text) is None


def test_a_link_of_another_secret_or_another_address_is_none(
    links: TopupLinks, clock: ManualClock, account: str
) -> None:
    token = token_of(links.issue(account, 4))
    assert TopupLinks(b"another secret", URL, clock).read(token) is None
    assert TopupLinks(SECRET, "https://staging.sketch.test", clock).read(token) is None
    assert TopupLinks(SECRET, f"{URL}/", clock).read(token) is not None, "the same address"


def test_a_link_is_no_visitors_token_and_a_visitors_token_no_link(clock: ManualClock, account: str) -> None:
    """Also where both would be signed with one secret."""
    visitors, links = VisitorTokens(SECRET, clock), TopupLinks(SECRET, URL, clock)
    assert visitors.read(token_of(links.issue(account, 4))) is None
    assert links.read(visitors.issue(account)) is None


def test_two_links_have_two_names_which_are_of_no_use_to_come_with(
    links: TopupLinks, clock: ManualClock, account: str
) -> None:
    tokens = [token_of(links.issue(account, needed)) for needed in (1, 2)]
    names = [link.digest for token in tokens if (link := links.read(token))]
    assert len(set(names)) == 2
    for name, token in zip(names, tokens, strict=True):
        assert re.fullmatch(r"[0-9a-f]{32}", name)
        assert token.rpartition(".")[2] not in name
