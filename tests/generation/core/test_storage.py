"""Objects on disk and in a bucket: the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from generation.errors import ObjectMissing
from generation.storage import BucketStore, DiskStore, LinkSigner, ObjectStore
from ledger.clock import ManualClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        **keys,
    )
    server.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def disk(tmp_path: Path, clock: ManualClock) -> DiskStore:
    return DiskStore(tmp_path / "objects", LinkSigner(b"s" * 32, clock), "http://here")


@pytest.fixture(params=["disk", "bucket"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    chosen: ObjectStore = request.getfixturevalue(request.param)
    return chosen


async def test_what_is_put_can_be_got_and_deleted(store: ObjectStore) -> None:
    await store.put("images/a.png", b"first", "image/png")
    await store.put("images/a.png", b"second", "image/png")
    assert await store.get("images/a.png", limit_bytes=100) == b"second"
    await store.delete("images/a.png")
    await store.delete("images/a.png")
    with pytest.raises(ObjectMissing):
        await store.get("images/a.png", limit_bytes=100)


async def test_nothing_larger_than_allowed_is_read(store: ObjectStore) -> None:
    await store.put("uploads/big", b"x" * 101, "image/png")
    with pytest.raises(ValueError, match="larger"):
        await store.get("uploads/big", limit_bytes=100)


async def test_a_bucket_takes_uploads_by_link(bucket: BucketStore) -> None:
    target = await bucket.upload_target("uploads/j/1", expires_in=timedelta(minutes=5), max_bytes=100)
    async with httpx.AsyncClient() as client:
        (await client.put(target.url, content=b"painted", headers=dict(target.headers))).raise_for_status()
        assert await bucket.get("uploads/j/1", limit_bytes=100) == b"painted"
        url = await bucket.download_url("uploads/j/1", expires_in=timedelta(minutes=5))
        assert (await client.get(url)).content == b"painted"


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/passwd", ""])
async def test_no_key_leaves_the_folder(disk: DiskStore, key: str) -> None:
    with pytest.raises(ObjectMissing):
        await disk.put(key, b"x", "image/png")


async def test_a_link_is_good_for_its_object_its_method_and_its_time(
    disk: DiskStore, clock: ManualClock
) -> None:
    signer = LinkSigner(b"s" * 32, clock)
    url = urlsplit(await disk.download_url("images/a.png", expires_in=timedelta(minutes=5)))
    query = dict(parse_qsl(url.query))
    assert signer.allows("GET", "images/a.png", query) == 0
    assert signer.allows("PUT", "images/a.png", query) is None
    assert signer.allows("GET", "images/b.png", query) is None
    assert signer.allows("GET", "images/a.png", {**query, "expires": str(int(query["expires"]) + 9)}) is None
    assert signer.allows("GET", "images/a.png", {**query, "signature": "ä"}) is None
    assert LinkSigner(b"t" * 32, clock).allows("GET", "images/a.png", query) is None
    clock.advance(timedelta(minutes=6))
    assert signer.allows("GET", "images/a.png", query) is None
