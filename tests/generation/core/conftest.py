"""One migrated database for all tests here, emptied before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from generation.images.object_store import BucketStore
from ledger.identifiers import Identifiers
from ledger.log.model import LogWriter
from tests.generation.core.funding_fake import FakeFunding
from tests.generation.core.paying import Paying
from tests.generation.core.world import TABLES, World, forget_everything, open_world
from tests.tables import create_tables


@pytest.fixture(scope="session")
def generation_database(make_database: Callable[..., str]) -> str:
    url = make_database()
    create_tables(url, TABLES)
    return url


@pytest.fixture
def empty_database(generation_database: str) -> str:
    forget_everything(generation_database)
    return generation_database


@pytest.fixture
async def world(empty_database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(empty_database, tmp_path) as opened:
        yield opened
        # Whatever a test is about: every end is counted, and once.
        assert opened.counted_ends() == await opened.ends()


@pytest.fixture
async def paying(empty_database: str, tmp_path: Path) -> AsyncIterator[Paying]:
    made: list[FakeFunding] = []

    def make(log: LogWriter, ids: Identifiers) -> FakeFunding:
        made.append(FakeFunding(log, ids))
        return made[0]

    async with open_world(empty_database, tmp_path, funding=make) as world:
        yield world, made[0]
        assert world.counted_ends() == await world.ends()
        assert await world.counted_apart() == await world.queued_apart()


@pytest.fixture(scope="module")
def bucket() -> Iterator[BucketStore]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
    boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    ).create_bucket(Bucket="pictures")
    yield BucketStore.connect(
        "pictures",
        endpoint=f"http://{host}:{port}",
        # The same server by another name, as people reach it.
        public_endpoint=f"http://localhost:{port}",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        **keys,
    )
    server.stop()
