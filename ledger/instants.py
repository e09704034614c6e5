"""Columns that hold a moment."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def instant(name: str, *, nullable: bool = False, **more: Any) -> sa.Column[Any]:
    """A moment, with its time zone: aware UTC when read. `more` is of `sa.Column`."""
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, **more)
