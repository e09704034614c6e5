"""What the stand-in feeds say: one price, told a little differently by each, and their faults."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_CENTS = 9_735_012
"""US cents for one bitcoin: 97,350.12 USD."""
OFFSETS_PERMILLE = {"coinbase": 0, "kraken": 1, "bitstamp": -1}
"""How far each feed is from the price."""


class UnknownFault(ValueError):
    """The control API was asked for a fault that the feeds do not have."""


@dataclass
class FeedFaults:
    """What is wrong with one feed."""

    down: bool = False
    """It answers 503."""
    delay_ms: int = 0
    """It answers late."""
    spike_permille: int = 0
    """Its price is off by so much: 500 is half as much again."""
    garbage: bool = False
    """It answers 200 with something else."""
    stale_cents: int | None = None
    """It repeats an old price for ever."""


@dataclass
class Prices:
    """The state of all feeds."""

    cents: int = DEFAULT_CENTS
    faults: dict[str, FeedFaults] = field(
        default_factory=lambda: {name: FeedFaults() for name in OFFSETS_PERMILLE}
    )
    reads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OFFSETS_PERMILLE, 0))

    def price(self, feed: str) -> str:
        """What a feed says now, in dollars, as a decimal string."""
        faults = self.faults[feed]
        base = self.cents if faults.stale_cents is None else faults.stale_cents
        cents = base * (1000 + OFFSETS_PERMILLE[feed] + faults.spike_permille) // 1000
        return f"{cents // 100}.{cents % 100:02d}"

    def set_faults(self, asked: Mapping[str, object]) -> None:
        """`{"feed": "kraken" or absent for all, "down": bool, "delay_ms": n, "spike_permille": n,
        "garbage": bool, "stale": bool, "btc_usd_cents": n, "reset": bool}`; the rest stays as it is."""
        feed = asked.get("feed")
        if feed is not None and feed not in self.faults:
            raise UnknownFault(f"there is no feed {feed!r}")
        unknown = set(asked) - {"feed", "reset", "btc_usd_cents", "stale", *FeedFaults.__annotations__}
        if unknown:
            raise UnknownFault(f"there is no fault {min(unknown)!r}")
        for name in [str(feed)] if feed is not None else list(self.faults):
            self._set(name, asked)
        cents = asked.get("btc_usd_cents")
        if cents is not None:
            self.cents = _number(cents, least=1)

    def _set(self, name: str, asked: Mapping[str, object]) -> None:
        if asked.get("reset"):
            self.faults[name] = FeedFaults()
        faults = self.faults[name]
        faults.down = bool(asked.get("down", faults.down))
        faults.garbage = bool(asked.get("garbage", faults.garbage))
        faults.delay_ms = _number(asked.get("delay_ms", faults.delay_ms), least=0)
        faults.spike_permille = _number(asked.get("spike_permille", faults.spike_permille), least=-999)
        if "stale" in asked:
            faults.stale_cents = self.cents if asked["stale"] else None

    def as_coinbase(self) -> dict[str, object]:
        """`GET /v2/prices/BTC-USD/spot`."""
        return {"data": {"amount": self.price("coinbase"), "base": "BTC", "currency": "USD"}}

    def as_kraken(self) -> dict[str, object]:
        """`GET /0/public/Ticker?pair=XBTUSD`."""
        price = self.price("kraken") + "000"
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
        return {"error": [], "result": {"XXBTZUSD": ticker}}

    def as_bitstamp(self) -> dict[str, object]:
        """`GET /api/v2/ticker/btcusd/`."""
        price = self.price("bitstamp")
        return {
            "timestamp": str(int(time.time())),
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


def _number(value: object, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UnknownFault(f"{value!r} is not a whole number of at least {least}")
    return value
