"""What the stand-in feeds report: a price of bitcoin, a little different in each, one of USDT, and their faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from sandbox.common.control import whole
from sandbox.common.faults import Faults

DEFAULT_CENTS = 9_735_012
"""US cents for one bitcoin: 97,350.12 USD."""
OFFSETS_PERMILLE = {"coinbase": 0, "kraken": 1, "bitstamp": -1}
"""How far each feed is from the price."""


class FeedFaults(Faults):
    """What is wrong with one feed."""

    down: bool = False
    """It answers 503."""
    delay_ms: Annotated[int, Meta(ge=0)] = 0
    """It answers late."""
    spike_permille: Annotated[int, Meta(gt=-1000)] = 0
    """Its price is off by so much: 500 is half as much again."""
    garbage: bool = False
    """It answers 200 with something else."""
    stale_cents: Annotated[int, Meta(ge=1)] | None = None
    """It repeats an old price for ever."""


@dataclass
class Prices:
    """The state of all feeds."""

    now: Callable[[], float]
    """Unix seconds."""
    cents: int = DEFAULT_CENTS
    usdt_usd_millionths: int = 1_000_000
    """Millionths of a US dollar for one USDT."""
    faults: dict[str, FeedFaults] = field(
        default_factory=lambda: {name: FeedFaults() for name in OFFSETS_PERMILLE}
    )
    reads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OFFSETS_PERMILLE, 0))

    def price_of_usdt(self, feed: str) -> str:
        """What a feed reports now for one USDT, in dollars, as a decimal string."""
        millionths = self.usdt_usd_millionths * (1000 + self.faults[feed].spike_permille) // 1000
        return f"{millionths // 1_000_000}.{millionths % 1_000_000:06d}"

    def price(self, feed: str) -> str:
        """What a feed reports now, in dollars, as a decimal string."""
        faults = self.faults[feed]
        base = self.cents if faults.stale_cents is None else faults.stale_cents
        cents = base * (1000 + OFFSETS_PERMILLE[feed] + faults.spike_permille) // 1000
        return f"{cents // 100}.{cents % 100:02d}"

    def set_faults(self, values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """Set faults of one feed (`feed`) or of all, `stale` (it keeps its price), `btc_usd_cents`, or
        `usdt_usd_millionths`.

        What is not named stays; `{"reset": true}` clears first. Returns the prices. Raises `ValueError`.
        """
        others = ("feed", "btc_usd_cents", "usdt_usd_millionths", "stale")
        named = {name: value for name, value in values.items() if name not in others}
        if "stale" in values:
            named["stale_cents"] = self.cents if values["stale"] else None
        feed = values.get("feed")
        if feed is not None and feed not in self.faults:
            raise ValueError(f"there is no feed {feed!r}")
        for name in self.faults if feed is None else [feed]:
            self.faults[name].change(named)
        self.cents = whole(values, "btc_usd_cents", self.cents, least=1)
        self.usdt_usd_millionths = whole(values, "usdt_usd_millionths", self.usdt_usd_millionths, least=1)
        return {"prices": {name: self.price(name) for name in self.faults}}

    def as_coinbase(self, *, of_usdt: bool = False) -> dict[str, object]:
        """`GET /v2/prices/BTC-USD/spot`, or of USDT-USD."""
        price = self.price_of_usdt("coinbase") if of_usdt else self.price("coinbase")
        return {"data": {"amount": price, "base": "USDT" if of_usdt else "BTC", "currency": "USD"}}

    def as_kraken(self, *, of_usdt: bool = False) -> dict[str, object]:
        """`GET /0/public/Ticker?pair=XBTUSD`, or of USDTUSD."""
        price = self.price_of_usdt("kraken") if of_usdt else self.price("kraken") + "000"
        day = ["120.51300000", "1840.22750000"]
        ticker = {
            "a": [price, "1", "1.000"],
            "b": [price, "1", "1.000"],
            "c": [price, "0.00120000"],
            "v": day,
            "p": [price, price],
            "t": [12000, 51000],
            "l": [price, price],
            "h": [price, price],
            "o": price,
        }
        return {"error": [], "result": {"USDTZUSD" if of_usdt else "XXBTZUSD": ticker}}

    def as_bitstamp(self, *, of_usdt: bool = False) -> dict[str, object]:
        """`GET /api/v2/ticker/btcusd/`, or of usdtusd."""
        price = self.price_of_usdt("bitstamp") if of_usdt else self.price("bitstamp")
        return {
            "timestamp": str(int(self.now())),
            "open": price,
            "high": price,
            "low": price,
            "last": price,
            "volume": "1035.31260000",
            "vwap": price,
            "bid": price,
            "ask": price,
            "side": "0",
            "open_24": price,
            "percent_change_24": "0.00",
        }
