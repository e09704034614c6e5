"""A payment core over fakes for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import sqlalchemy as sa

from ledger.log.recorder import LogRecorder, open_datastore
from rails.store.tables import METADATA
from tests.rails.core.platform import Platform, make_platform, on_postgres


@pytest.fixture
def platform() -> Platform:
    return make_platform()


@pytest.fixture
def account_id(platform: Platform) -> str:
    return platform.ids.account()


@pytest.fixture(scope="session")
def rails_template(make_database: Callable[..., str]) -> str:
    """A database with the tables of the log and of the rails, to be copied."""
    url = make_database()
    with open_datastore(url) as datastore:
        LogRecorder(datastore).create_schema(url)
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    METADATA.create_all(engine)
    engine.dispose()
    return url.rpartition("/")[2]


@pytest.fixture(params=["memory", "postgres"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    """A payment core in memory, and one on PostgreSQL."""
    if request.param == "memory":
        yield make_platform()
        return
    make_database = request.getfixturevalue("make_database")
    async with on_postgres(make_database(request.getfixturevalue("rails_template"))) as made:
        yield made
