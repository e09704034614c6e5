"""A payment core over fakes for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rails.core.platform import Platform, make_platform, on_postgres
from tests.rails.core.subscribing import Town, new_town


@pytest.fixture
def platform() -> Platform:
    return make_platform()


@pytest.fixture
def account_id(platform: Platform) -> str:
    return platform.ids.account()


@pytest.fixture
def town() -> Town:
    """A platform with one subscriber."""
    return new_town()


@pytest.fixture(params=["memory", "postgres"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    """A payment core in memory, and one on PostgreSQL."""
    if request.param == "memory":
        yield make_platform()
        return
    make_database = request.getfixturevalue("make_database")
    async with on_postgres(make_database(request.getfixturevalue("rails_template"))) as made:
        yield made
