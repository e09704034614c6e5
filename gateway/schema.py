"""The database's tables: every package's metadata in one place, and their creation by Alembic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import gateway.tables
import generation.tables
import ledger.log.tables
import projections.tables
import rails.tables

METADATA: Sequence[sa.MetaData] = (
    ledger.log.tables.metadata,
    rails.tables.METADATA,
    generation.tables.metadata,
    projections.tables.metadata,
    gateway.tables.metadata,
)
MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(sqlalchemy_url: str) -> None:
    """Bring a database to the newest schema. Safe to run from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = sqlalchemy_url
    command.upgrade(config, "head")


async def migrate_async(sqlalchemy_url: str) -> None:
    """The same, off the event loop."""
    await asyncio.to_thread(migrate, sqlalchemy_url)
