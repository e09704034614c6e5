"""Rates: exact, median, fresh, sane; against the stand-in feeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.clock import ManualClock
from ledger.money import BTC, LBTC, USD, USDT, Asset, Rate
from rails.quotes.feeds import BITCOIN, TETHER, FeedFailed, HttpFeed, configured_feeds, exact_decimal
from rails.quotes.rates import RateBook, median, rate_to_usd
from sandbox.rates.app import build
from sandbox.rates.prices import Prices

ORIGIN = "http://feeds.test"
SETTING = f"coinbase={ORIGIN},kraken={ORIGIN},bitstamp={ORIGIN}/api/v2/ticker/btcusd/"


BARE = f"coinbase={ORIGIN},kraken={ORIGIN},bitstamp={ORIGIN}"


class Feeds:
    """The stand-in feeds and a rate book that reads them in the same process."""

    def __init__(self, client: httpx.AsyncClient, prices: Prices) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.prices = prices
        self.book = RateBook({BITCOIN: configured_feeds(SETTING, client)}, self.clock)
        self.with_usdt = RateBook({TETHER: configured_feeds(BARE, client, TETHER)}, self.clock)


@pytest.fixture
async def feeds() -> AsyncIterator[Feeds]:
    prices = Prices(now=time.time, cents=10_000_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build(prices))) as client:
        yield Feeds(client, prices)


def dollars(book: RateBook, asset: Asset = BTC) -> Fraction | None:
    spot = book.spot(asset)
    if spot is None:
        return None
    return Fraction(spot.rate.numerator * 10**asset.scale, spot.rate.denominator * 100)


async def test_the_rate_is_the_median_of_all_feeds(feeds: Feeds) -> None:
    assert feeds.book.spot(BTC) is None
    assert feeds.book.why_not(BTC)
    await feeds.book.refresh()
    assert dollars(feeds.book) == 100_000
    spot = feeds.book.spot(BTC)
    assert spot is not None
    assert spot.source == "median(bitstamp, coinbase, kraken)"
    assert spot.rate == Rate(1, 10_000, BTC, USD)
    assert feeds.book.why_not(BTC) is None


async def test_bitcoin_has_one_price_whatever_it_is_counted_in(feeds: Feeds) -> None:
    await feeds.book.refresh()
    assert dollars(feeds.book, LBTC) == dollars(feeds.book, BTC)


async def test_dollars_are_always_worth_a_dollar_and_usdt_where_no_feed_says_otherwise(feeds: Feeds) -> None:
    assert dollars(feeds.book, USD) == 1
    assert dollars(feeds.book, USDT) == 1
    assert feeds.book.spot(Asset("DOGE", 8)) is None
    assert feeds.book.why_not(Asset("DOGE", 8)) == "There is no price for DOGE."


@pytest.mark.parametrize(
    ("millionths", "worth"),
    [
        (1_000_000, Fraction(1)),
        (990_000, Fraction(1)),
        (1_010_000, Fraction(1)),
        (989_999, Fraction(989_999, 1_000_000)),
        (1_010_001, Fraction(1_010_001, 1_000_000)),
        (900_000, Fraction(9, 10)),
        (1_100_000, Fraction(11, 10)),
        (899_999, None),
        (1_100_001, None),
    ],
)
async def test_usdt_is_a_dollar_within_one_per_cent_and_nothing_beyond_ten(
    feeds: Feeds, millionths: int, worth: Fraction | None
) -> None:
    feeds.prices.set_faults({"usdt_usd_millionths": millionths})
    await feeds.with_usdt.refresh()
    assert dollars(feeds.with_usdt, USDT) == worth
    refused = "USDT is far from a dollar at the moment and is not taken. Please pay another way."
    assert feeds.with_usdt.why_not(USDT) == (None if worth else refused)


async def test_usdt_with_feeds_has_no_rate_while_they_say_nothing(feeds: Feeds) -> None:
    assert feeds.with_usdt.spot(USDT) is None
    assert feeds.with_usdt.why_not(USDT) == (
        "There is no fresh exchange rate at the moment. Please try again shortly."
    )
    await feeds.with_usdt.refresh()
    feeds.clock.advance(timedelta(seconds=121))
    assert feeds.with_usdt.spot(USDT) is None


async def test_a_rate_that_is_too_old_is_no_rate(feeds: Feeds) -> None:
    await feeds.book.refresh()
    feeds.clock.advance(timedelta(seconds=120))
    assert dollars(feeds.book) == 100_000
    feeds.clock.advance(timedelta(seconds=1))
    assert feeds.book.spot(BTC) is None


async def test_one_feed_may_be_down_or_mad(feeds: Feeds) -> None:
    for fault in ({"down": True}, {"garbage": True}, {"spike_permille": 500}, {"spike_permille": -900}):
        feeds.prices.set_faults({"feed": "coinbase", "reset": True, **fault})
        feeds.clock.advance(timedelta(minutes=10))
        await feeds.book.refresh()
        spot = feeds.book.spot(BTC)
        assert spot is not None, fault
        assert spot.source == "median(bitstamp, kraken)" or "spike_permille" in fault
        assert abs((dollars(feeds.book) or 0) - 100_000) <= 100


async def test_when_the_feeds_disagree_there_is_no_rate(feeds: Feeds) -> None:
    feeds.prices.set_faults({"feed": "coinbase", "spike_permille": 500})
    feeds.prices.set_faults({"feed": "kraken", "spike_permille": -500})
    await feeds.book.refresh()
    assert feeds.book.spot(BTC) is None


async def test_one_feed_alone_is_not_enough_of_three(feeds: Feeds) -> None:
    for name in ("coinbase", "kraken"):
        feeds.prices.set_faults({"feed": name, "down": True})
    await feeds.book.refresh()
    assert feeds.book.spot(BTC) is None


async def test_callers_at_the_same_time_share_one_round(feeds: Feeds) -> None:
    await asyncio.gather(*(feeds.book.refresh() for _ in range(50)))
    assert feeds.prices.reads == {"coinbase": 1, "kraken": 1, "bitstamp": 1}
    await feeds.book.refresh()
    assert feeds.prices.reads["kraken"] == 2
    await feeds.book.close()


async def test_an_answer_in_another_shape_is_a_failure() -> None:
    for body in (
        b"",
        b"{}",
        b"[]",
        b'{"data": {"amount": 97123.45}}',
        b'{"data": {"amount": "-1"}}',
        b'{"data": {"amount": "1e5"}}',
        b'{"data": {"amount": "0"}}',
        b'{"data": "1"}',
        b'{"data": {"amount": "' + b"9" * 40 + b'"}}',
        b" " * 100_000,
    ):
        transport = httpx.MockTransport(lambda _, body=body: httpx.Response(200, content=body))  # type: ignore[misc]
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(FeedFailed):
                await HttpFeed("coinbase", ORIGIN, client).read()


def test_a_setting_in_another_form_is_one_clear_sentence() -> None:
    client = httpx.AsyncClient()
    assert [feed.name for feed in configured_feeds("", client)] == ["coinbase", "kraken", "bitstamp"]
    for setting in ("coinbase", "bourse=http://x", "kraken=ftp://x", "kraken"):
        with pytest.raises(ValueError, match="kind=url"):
            configured_feeds(setting, client)


def test_faults_that_do_not_exist_are_refused() -> None:
    for asked in (
        {"feed": "moon"},
        {"explode": True},
        {"delay_ms": -1},
        {"btc_usd_cents": 0},
        {"delay_ms": "1"},
    ):
        with pytest.raises(ValueError, match=r"fault|feed|whole number"):
            Prices(now=time.time).set_faults(asked)


@given(st.integers(1, 10**11), st.integers(0, 8))
def test_decimal_strings_are_read_exactly(minor: int, scale: int) -> None:
    whole, part = divmod(minor, 10**scale)
    text = f"{whole}.{part:0{scale}d}" if scale else str(whole)
    assert exact_decimal(text) == Fraction(minor, 10**scale)


@given(st.lists(st.fractions(1, 10**6), min_size=1, max_size=9))
def test_the_median_lies_in_the_middle(prices: list[Fraction]) -> None:
    middle = median(prices)
    assert sum(price <= middle for price in prices) * 2 >= len(prices)
    assert sum(price >= middle for price in prices) * 2 >= len(prices)


@given(st.fractions(Fraction(1, 100), 10**7), st.sampled_from([BTC, LBTC, USDT, USD]))
def test_a_rate_is_exactly_its_price(price: Fraction, asset: Asset) -> None:
    rate = rate_to_usd(price, asset)
    assert Fraction(rate.numerator, rate.denominator) == price * Fraction(100, 10**asset.scale)
