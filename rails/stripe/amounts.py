"""Amounts and names in what Stripe says. Pure; what is neither raises `ValueError`."""

from __future__ import annotations

from typing import Any

AMOUNT_MAX = 10**15
"""Minor units: more than anybody has."""


def signed(value: Any) -> int:
    """Minor units, also below zero. Raises `ValueError`."""
    if type(value) is not int or abs(value) > AMOUNT_MAX:
        raise ValueError("not an amount")
    return value


def amount_of(value: Any, *, may_be_negative: bool = False) -> int:
    """Minor units. Raises `ValueError`."""
    if signed(value) < 0 and not may_be_negative:
        raise ValueError("a negative amount")
    return int(value)


def name_of(value: Any) -> str:
    """A name that ends in our tables. Raises `ValueError`."""
    if not isinstance(value, str) or not 0 < len(value) <= 300 or not value.isprintable():
        raise ValueError("not a name")
    return value
