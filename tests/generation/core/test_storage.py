"""Objects on disk and in a bucket: the same promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from generation.domain.errors import ObjectMissing, ObjectTaken
from generation.images.object_store import (
    SMALL_BYTES_MAX,
    BucketStore,
    DiskStore,
    LinkSigner,
    ObjectStore,
    SameObject,
    StoredObject,
)
from ledger.clock import ManualClock
from tests.waiting import eventually

T = TypeVar("T")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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


async def test_what_was_put_once_and_for_all_stays(store: ObjectStore) -> None:
    picture = StoredObject("images/once.png", b"first", "image/png")
    await store.put_new([picture, StoredObject("images/once.webp", b"small", "image/webp")])
    await store.put_new([picture])
    for other in (b"other", b"longer than it was"):
        with pytest.raises(ObjectTaken):
            await store.put_new([StoredObject("images/once.png", other, "image/png")])
    assert await store.get("images/once.png", limit_bytes=100) == b"first"
    assert await store.get("images/once.webp", limit_bytes=100) == b"small"


async def test_what_is_stored_already_gets_another_name_once_and_for_all(store: ObjectStore) -> None:
    async def named(content: bytes = b"painted") -> None:
        digest = hashlib.sha256(content).hexdigest()
        await store.put_new([SameObject("images/same.png", "uploads/s/1", digest, "image/png")])

    await store.put("uploads/s/1", b"painted", "image/png")
    await named()
    await named()
    await store.put("uploads/s/1", b"another one", "image/png")
    with pytest.raises(ObjectMissing):  # it has been replaced since somebody looked at it
        await named()
    with pytest.raises(ObjectTaken):
        await named(b"another one")
    await store.delete("uploads/s/1")
    await named()
    assert await store.get("images/same.png", limit_bytes=100) == b"painted"
    with pytest.raises(ObjectMissing):
        await store.put_new([SameObject("images/none.png", "uploads/s/2", "0" * 64, "image/png")])
    assert sorted(
        [each.key async for page in store.listed("images") for each in page if "same" in each.key]
    ) == ["images/same.png"]


async def test_a_bucket_takes_uploads_by_link(bucket: BucketStore) -> None:
    target = await bucket.upload_target("uploads/j/1", expires_in=timedelta(minutes=5), max_bytes=100)
    async with httpx.AsyncClient() as client:
        (await client.put(target.url, content=b"painted", headers=dict(target.headers))).raise_for_status()
        assert await bucket.get("uploads/j/1", limit_bytes=100) == b"painted"
        url = await bucket.download_url("uploads/j/1", expires_in=timedelta(minutes=5), public=False)
        assert (await client.get(url)).content == b"painted"


async def test_links_for_people_lead_to_the_address_at_which_they_reach_the_bucket(
    bucket: BucketStore,
) -> None:
    await bucket.put("images/p.png", b"painted", "image/png")
    for public, host in ((True, "localhost"), (False, "127.0.0.1")):
        url = await bucket.download_url("images/p.png", expires_in=timedelta(minutes=5), public=public)
        assert urlsplit(url).hostname == host
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).content == b"painted"


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/passwd", ""])
async def test_no_key_leaves_the_folder(disk: DiskStore, key: str) -> None:
    with pytest.raises(ObjectMissing):
        await disk.put(key, b"x", "image/png")


async def test_a_link_is_good_for_its_object_its_method_and_its_time(
    disk: DiskStore, clock: ManualClock
) -> None:
    signer = LinkSigner(b"s" * 32, clock)
    url = urlsplit(await disk.download_url("images/a.png", expires_in=timedelta(minutes=5), public=True))
    query = dict(parse_qsl(url.query))
    assert signer.allows("GET", "images/a.png", query) == 0
    assert signer.allows("PUT", "images/a.png", query) is None
    assert signer.allows("GET", "images/b.png", query) is None
    assert signer.allows("GET", "images/a.png", {**query, "expires": str(int(query["expires"]) + 9)}) is None
    assert signer.allows("GET", "images/a.png", {**query, "signature": "ä"}) is None
    assert LinkSigner(b"t" * 32, clock).allows("GET", "images/a.png", query) is None
    clock.advance(timedelta(minutes=6))
    assert signer.allows("GET", "images/a.png", query) is None


async def test_what_was_put_survives_a_power_cut(tmp_path: Path, clock: ManualClock) -> None:
    folder, synced = tmp_path / "objects", []

    def sync(descriptor: int) -> None:
        names = {path.stat().st_ino: path for path in (folder, *folder.rglob("*"))}
        there = (folder / "images/a.png").exists()
        synced.append((names[os.fstat(descriptor).st_ino], there, threading.current_thread()))

    disk = DiskStore(folder, LinkSigner(b"s" * 32, clock), "http://here", sync=sync)
    await disk.put("images/a.png", b"x", "image/png")
    (file, before, _), (images, after, _), (top, _, _) = synced
    assert not before
    assert file.name.startswith(".a.png.")
    assert (images, after, top) == (folder / "images", True, folder)
    assert threading.main_thread() not in {thread for _, _, thread in synced}
    synced.clear()
    await disk.put("images/b.png", b"x", "image/png")
    assert [path for path, _, _ in synced][1:] == [folder / "images"]


async def test_the_folder_of_a_jobs_uploads_goes_with_the_last_of_them(
    disk: DiskStore, tmp_path: Path
) -> None:
    folder = tmp_path / "objects" / "uploads"
    for epoch in (1, 2):
        await disk.put(f"uploads/job/{epoch}", b"x", "image/png")
    await disk.delete("uploads/job/1")
    assert await disk.get("uploads/job/2", limit_bytes=9) == b"x"
    await disk.delete("uploads/job/2")
    assert list(folder.iterdir()) == []
    await disk.put("uploads/job/3", b"x", "image/png")


class Executed:
    """An executor that lets the first call wait, and notes which files each call writes."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.let = asyncio.Event()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        self.calls.append([path.rpartition("/")[2] for path, _ in arguments[1]])
        await self.let.wait()
        return work(*arguments)

    async def close(self) -> None:
        """Nothing to let go of."""


async def test_small_files_that_come_while_one_is_written_are_written_together(
    tmp_path: Path, clock: ManualClock
) -> None:
    executor, synced = Executed(), []
    store = DiskStore(
        tmp_path,
        LinkSigner(b"s" * 32, clock),
        "http://here",
        executor=executor,
        sync=lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink())),
    )
    names = [f"{number}.png" for number in range(4)]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(store.put(f"sketches/{name}", name.encode(), "image/png"))
        await eventually(lambda: bool(executor.calls), "nothing was written")
        executor.let.set()
    assert executor.calls == [names] or executor.calls == [names[:1], names[1:]]
    assert [await store.get(f"sketches/{name}", limit_bytes=9) for name in names] == [
        name.encode() for name in names
    ]
    assert synced.count(str(tmp_path / "sketches")) == len(executor.calls)
    assert len(synced) >= len(names) + len(executor.calls), "each file, and their folder"


async def test_a_small_file_that_cannot_be_written_holds_up_none_of_those_beside_it(disk: DiskStore) -> None:
    too_long = "sketches/" + "n" * 300
    found = await asyncio.gather(
        *(disk.put(key, b"it", "image/png") for key in ("sketches/a", too_long, "sketches/b")),
        return_exceptions=True,
    )
    assert [type(each) for each in found] == [type(None), OSError, type(None)]
    assert await disk.get("sketches/b", limit_bytes=9) == b"it"


async def test_a_large_file_is_not_sent_to_another_process_to_be_written(
    tmp_path: Path, clock: ManualClock
) -> None:
    executor = Executed()
    store = DiskStore(tmp_path, LinkSigner(b"s" * 32, clock), "http://here", executor=executor)
    data = b"x" * (SMALL_BYTES_MAX + 1)
    await store.put("uploads/large", data, "image/png")
    assert await store.get("uploads/large", limit_bytes=len(data)) == data
    assert executor.calls == []
