"""One migrated database for all tests here, emptied before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.generation.core.world import World, create_schema, forget_everything, open_world


@pytest.fixture(scope="session")
def generation_database(make_database: Callable[..., str]) -> str:
    url = make_database()
    create_schema(url)
    return url


@pytest.fixture
def empty_database(generation_database: str) -> str:
    forget_everything(generation_database)
    return generation_database


@pytest.fixture
async def world(empty_database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(empty_database, tmp_path) as opened:
        yield opened
