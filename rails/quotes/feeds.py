"""Public price feeds, read exactly: decimal strings become integers, never floats.

Sources of the formats: Coinbase "Get spot price" (`/v2/prices/BTC-USD/spot`), Kraken "Get Ticker
Information" (`/0/public/Ticker`), Bitstamp "Get ticker" (`/api/v2/ticker/btcusd/`); USDT is named
`USDT-USD`, `USDTUSD` and `usdtusd` there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from rails.reading import MISREAD

BITCOIN, TETHER = "bitcoin", "tether"
"""What feeds have a price of."""
_DECIMAL = re.compile(r"(\d{1,12})(?:\.(\d{1,12}))?")
_BYTES_MAX = 64 * 1024


class FeedFailed(Exception):
    """The price feed gave no usable price."""


class Feed(Protocol):
    """One public source of a price in USD."""

    name: str

    async def read(self) -> Fraction:
        """US dollars for one whole unit, exactly. Raises `FeedFailed`."""


def exact_decimal(text: object) -> Fraction:
    """`"97123.45"` as 9712345 over 100. Only plain positive decimal strings pass."""
    found = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise FeedFailed("the price is not a plain decimal string")
    part = found[2] or ""
    value = Fraction(int(found[1] + part), 10 ** len(part))
    if value <= 0:
        raise FeedFailed("the price is not positive")
    return value


def _coinbase(body: Any) -> object:
    return body["data"]["amount"]


def _kraken(body: Any) -> object:
    if body["error"]:
        raise FeedFailed("the feed reported an error")
    (ticker,) = body["result"].values()
    return ticker["c"][0]


def _bitstamp(body: Any) -> object:
    return body["last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedKind:
    """A shape of answer, and where a feed of this kind publishes each price."""

    find_price: Callable[[Any], object]
    origin: str
    paths: Mapping[str, str]


KINDS: Mapping[str, FeedKind] = {
    "coinbase": FeedKind(
        find_price=_coinbase,
        origin="https://api.coinbase.com",
        paths={BITCOIN: "/v2/prices/BTC-USD/spot", TETHER: "/v2/prices/USDT-USD/spot"},
    ),
    "kraken": FeedKind(
        find_price=_kraken,
        origin="https://api.kraken.com",
        paths={BITCOIN: "/0/public/Ticker?pair=XBTUSD", TETHER: "/0/public/Ticker?pair=USDTUSD"},
    ),
    "bitstamp": FeedKind(
        find_price=_bitstamp,
        origin="https://www.bitstamp.net",
        paths={BITCOIN: "/api/v2/ticker/btcusd/", TETHER: "/api/v2/ticker/usdtusd/"},
    ),
}


class HttpFeed:
    """A feed over HTTP(S)."""

    def __init__(self, name: str, url: str, client: httpx.AsyncClient, *, timeout_seconds: int = 5) -> None:
        self.name = name
        self._url = url
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._find_price = KINDS[name].find_price

    async def read(self) -> Fraction:
        """See `Feed.read`."""
        try:
            response = await self._client.get(self._url, timeout=self._timeout_seconds)
        except httpx.HTTPError as error:
            raise FeedFailed(f"{self.name}: {type(error).__name__}") from error
        if response.status_code != 200 or len(response.content) > _BYTES_MAX:
            raise FeedFailed(f"{self.name} answered {response.status_code}")
        try:
            return exact_decimal(self._find_price(msgspec.json.decode(response.content)))
        except MISREAD as error:
            raise FeedFailed(f"{self.name} answered in an unknown shape") from error


def configured_feeds(setting: str, client: httpx.AsyncClient, market: str = BITCOIN) -> Sequence[Feed]:
    """Feeds from `kind=url,kind=url`; without a path in the URL the kind's own for `market` is meant.

    An empty setting means the public feeds of all kinds. Raises `ValueError` with one sentence.
    """
    if not setting.strip():
        return [HttpFeed(name, kind.origin + kind.paths[market], client) for name, kind in KINDS.items()]
    feeds: list[Feed] = []
    for entry in setting.split(","):
        name, separator, url = entry.strip().partition("=")
        if not separator or name not in KINDS or urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(
                f"a rate feed is written kind=url with one of {', '.join(KINDS)}, not {entry.strip()!r}"
            )
        bare = urlsplit(url).path in ("", "/") and not urlsplit(url).query
        feeds.append(HttpFeed(name, url.rstrip("/") + KINDS[name].paths[market] if bare else url, client))
    return feeds
