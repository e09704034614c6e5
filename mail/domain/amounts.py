"""Amounts as people read them, as the pages write them: "$5.00", "5,120 sats", "5.00 USDT"."""

from __future__ import annotations

from ledger.money import ASSETS, BTC, USD, format_decimal

MILLISATOSHI_PLACES = 3


def money(minor: int, asset: str) -> str:
    """An amount in minor units of an asset, exactly."""
    if asset == USD.code:
        return f"${_grouped(format_decimal(minor, USD.scale))}"
    if asset == BTC.code:
        return f"{_trimmed(format_decimal(minor, MILLISATOSHI_PLACES), 0)} sats"
    known = ASSETS.get(asset)
    if known is None:
        return f"{_grouped(str(minor))} minor units of {asset}"
    least = known.scale if asset == "L-BTC" else min(known.scale, 2)
    return f"{_trimmed(format_decimal(minor, known.scale), least)} {asset}"


def number(count: int) -> str:
    """`2,000`."""
    return f"{count:,}"


def plural(count: int, word: str) -> str:
    """`1 credit`, `2,000 credits`."""
    return f"{number(count)} {word}" if count == 1 else f"{number(count)} {word}s"


def _trimmed(plain: str, least: int) -> str:
    """Without zeros at the end, but with `least` places."""
    whole, _, part = plain.partition(".")
    part = part[:least] + part[least:].rstrip("0")
    return _grouped(f"{whole}.{part}" if part else whole)


def _grouped(plain: str) -> str:
    whole, dot, part = plain.partition(".")
    return f"{int(whole):,}{dot}{part}"
