"""Where pictures are kept: one interface, local disk and S3/R2 behind it.

Keys are made by us (`uploads/<job>/<epoch>`), never by clients. Links are signed, expire, and
nobody outside can list anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urlencode

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError
from obstore.store import S3Store

from generation.domain.errors import ObjectMissing, ObjectTaken
from generation.images.checking import RESULT_BYTES_MAX
from generation.images.executors import Executor, ThreadExecutor
from generation.images.files import LIST_PAGE, Linked, delete_file, pages, read_file, use_file, write_files
from generation.store.batching import Batcher
from ledger.clock import Clock

T = TypeVar("T")
READERS, WRITERS = 4, 4
SMALL_BYTES_MAX = 131_072
"""Files that are written together while others are being written: what a drawing in the browser has, and some room."""
TOGETHER_MAX, TURNS_MAX = 8, 4
"""Such files of one call, and calls at a time: few enough for a disk that takes milliseconds to sync each."""


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where and how somebody may put one object."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """Small immutable objects by key."""

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Write an object, whole or not at all."""

    async def put_new(self, objects: Sequence[StoredObject | SameObject]) -> None:
        """Write several objects once and for all; each is there whole when this returns.

        Writing the same again is fine. Raises `ObjectTaken` where another one is, `ObjectMissing` where what should
        have been stored already is not, or has become another one.
        """

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        """Read an object. Raises `ObjectMissing`; `ValueError` if it is larger than the limit."""

    async def use(self, key: str, work: Callable[[bytes], T], *, limit_bytes: int) -> T:
        """Read an object as `get` does and give it to `work`, a function that may take its time."""

    async def delete(self, key: str) -> None:
        """Delete an object; deleting none is fine."""

    def listed(self, folder: str) -> AsyncIterator[Sequence[Listed]]:
        """All objects whose keys begin with `folder/`, in pages and in no order."""

    async def upload_target(self, key: str, *, expires_in: timedelta, max_bytes: int) -> UploadTarget:
        """A link by which one object can be PUT, for a while."""

    async def download_url(self, key: str, *, expires_in: timedelta, public: bool) -> str:
        """A link by which one object can be fetched, for a while. `public`: by people, from anywhere; else by workers."""


class StoredObject(NamedTuple):
    """What is to be stored under a key."""

    key: str
    data: bytes
    content_type: str


class SameObject(NamedTuple):
    """What was stored under one key, and is to be under another one as well."""

    key: str
    source: str
    sha256: str
    content_type: str


class Listed(NamedTuple):
    """An object that is there, and since when."""

    key: str
    written_at: datetime


class LinkSigner:
    """Signs links to objects that our own gateway serves: HMAC-SHA256 over method, key, expiry, size."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        if len(secret) < 16:
            raise ValueError("the storage link secret is too short")
        self._secret = secret
        self._clock = clock

    def query(self, method: str, key: str, expires_in: timedelta, max_bytes: int) -> dict[str, str]:
        """The query parameters of a signed link."""
        expires = int((self._clock() + expires_in).timestamp())
        signature = self._sign(method, key, expires, max_bytes)
        return {"expires": str(expires), "max": str(max_bytes), "signature": signature}

    def allows(self, method: str, key: str, query: Mapping[str, str]) -> int | None:
        """The size limit in bytes if the link is genuine and has not expired, else None."""
        try:
            expires, max_bytes = int(query["expires"]), int(query["max"])
            signature = query["signature"]
        except (KeyError, ValueError):
            return None
        if not hmac.compare_digest(signature.encode(), self._sign(method, key, expires, max_bytes).encode()):
            return None
        return max_bytes if self._clock().timestamp() < expires else None

    def _sign(self, method: str, key: str, expires: int, max_bytes: int) -> str:
        message = f"{method}\n{key}\n{expires}\n{max_bytes}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class _Small:
    """A small file that is to be written."""

    path: str
    data: bytes


class DiskStore:
    """Objects as files under one folder; links point to the gateway's `/v1/objects/…`.

    What was put survives a power cut: `sync` (of an open file) waits for the disk. `executor` writes, `checker` does
    what others want to do with a file (`use`).
    """

    def __init__(
        self,
        folder: Path,
        signer: LinkSigner,
        base_url: str,
        *,
        executor: Executor | None = None,
        checker: Executor | None = None,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        self._folder = str(folder)
        self._sync = sync
        self._readers, self._writers = ThreadExecutor(READERS), ThreadExecutor(WRITERS)
        self._executor = executor or ThreadExecutor()
        self._checker = checker or self._executor
        self._signer = signer
        self._base_url = base_url.rstrip("/")
        self._turns: Sequence[Batcher[_Small, Exception]] = [
            Batcher(self._write_small, limit=TOGETHER_MAX) for _ in range(TURNS_MAX)
        ]

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """See `ObjectStore.put`. The content type is what the key's ending says."""
        path = self._path(key)
        if len(data) > SMALL_BYTES_MAX:
            # Here: sending it to another process would cost three times what writing it does.
            await self._writers.run(write_files, self._folder, [(path, data)], True, self._sync)
            return
        turn = next((turn for turn in self._turns if turn.waiting < TOGETHER_MAX), self._turns[-1])
        if (fault := await turn.get(_Small(path, data))) is not None:
            raise fault

    async def _write_small(self, files: Sequence[_Small]) -> dict[_Small, Exception]:
        """Write them in one call, and sync their folder once. What is wrong with one of them is told to that one."""
        try:
            await self._write([(file.path, file.data) for file in files], replace=True)
        except OSError as fault:
            if len(files) == 1:
                return {files[0]: fault}
            alone = [await self._write_small([file]) for file in files]
            return {file: fault for faults in alone for file, fault in faults.items()}
        return {}

    async def put_new(self, objects: Sequence[StoredObject | SameObject]) -> None:
        """See `ObjectStore.put_new`. What is the same is one file with two names."""
        await self._write(
            [(self._path(stored.key), self._content(stored)) for stored in objects], replace=False
        )

    def _content(self, stored: StoredObject | SameObject) -> bytes | Linked:
        if isinstance(stored, StoredObject):
            return stored.data
        return Linked(self._path(stored.source), stored.sha256, RESULT_BYTES_MAX)

    async def _write(self, files: Sequence[tuple[str, bytes | Linked]], *, replace: bool) -> None:
        await self._executor.run(write_files, self._folder, files, replace, self._sync)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        """See `ObjectStore.get`."""
        # Not where pictures are worked on: one that is looked at need not wait for those that are made.
        return await self._readers.run(read_file, self._path(key), limit_bytes)

    async def use(self, key: str, work: Callable[[bytes], T], *, limit_bytes: int) -> T:
        """See `ObjectStore.use`."""
        return await self._checker.run(use_file, self._path(key), limit_bytes, work)

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        await self._readers.run(delete_file, self._folder, self._path(key))

    async def listed(self, folder: str) -> AsyncIterator[Sequence[Listed]]:
        """See `ObjectStore.listed`. Unfinished files of a process that died are listed too."""
        found = pages(self._folder, folder)
        while page := await self._readers.run(next, found, ()):
            yield [Listed(*file) for file in page]

    async def upload_target(self, key: str, *, expires_in: timedelta, max_bytes: int) -> UploadTarget:
        """See `ObjectStore.upload_target`."""
        return UploadTarget(self._link("PUT", key, expires_in, max_bytes))

    async def download_url(self, key: str, *, expires_in: timedelta, public: bool) -> str:
        """See `ObjectStore.download_url`. There is one address for all."""
        return self._link("GET", key, expires_in, 0)

    def _link(self, method: str, key: str, expires_in: timedelta, max_bytes: int) -> str:
        query = urlencode(self._signer.query(method, key, expires_in, max_bytes))
        return f"{self._base_url}/v1/objects/{quote(key)}?{query}"

    def _path(self, key: str) -> str:
        # By its words alone: a key is ours, nothing in the folder is a link, and asking the disk
        # about every part of a path costs more than reading the file.
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ObjectMissing
        return f"{self._folder}/{key}"


class BucketStore:
    """Objects in an S3-compatible bucket; links are presigned by the bucket's own scheme."""

    def __init__(
        self, store: S3Store, checker: Executor | None = None, *, public: S3Store | None = None
    ) -> None:
        self._store = store
        self._public = public or store
        """The same bucket, by the address at which people reach it. Nothing is sent there: links are signed for it."""
        self._checker = checker or ThreadExecutor()

    @classmethod
    def connect(
        cls, bucket: str, *, checker: Executor | None = None, public_endpoint: str = "", **config: Any
    ) -> BucketStore:
        """A bucket by name; `config` is `obstore`'s (endpoint, region, keys, client options).

        `public_endpoint`: its address for people, if it is another one than ours.
        """
        public = S3Store(bucket, **{**config, "endpoint": public_endpoint}) if public_endpoint else None
        return cls(S3Store(bucket, **config), checker, public=public)

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """See `ObjectStore.put`."""
        await obstore.put_async(self._store, key, data, attributes={"Content-Type": content_type})

    async def put_new(self, objects: Sequence[StoredObject | SameObject]) -> None:
        """See `ObjectStore.put_new`."""
        await asyncio.gather(*map(self._put_new, objects))

    async def _put_new(self, stored: StoredObject | SameObject) -> None:
        if isinstance(stored, SameObject):
            stored = await self._fetched(stored)
        attributes = {"Content-Type": stored.content_type}
        try:
            await obstore.put_async(
                self._store, stored.key, stored.data, mode="create", attributes=attributes
            )
        except (AlreadyExistsError, FileExistsError):
            if await self.get(stored.key, limit_bytes=RESULT_BYTES_MAX * 2) != stored.data:
                raise ObjectTaken from None

    async def _fetched(self, same: SameObject) -> StoredObject:
        # Not copied by the bucket: whoever has a link to the source could replace it while it is copied.
        try:
            data = await self.get(same.source, limit_bytes=RESULT_BYTES_MAX)
        except ObjectMissing:  # whoever was here before has deleted it
            data = await self.get(same.key, limit_bytes=RESULT_BYTES_MAX)
        if hashlib.sha256(data).hexdigest() != same.sha256:
            raise ObjectMissing
        return StoredObject(same.key, data, same.content_type)

    async def use(self, key: str, work: Callable[[bytes], T], *, limit_bytes: int) -> T:
        """See `ObjectStore.use`."""
        return await self._checker.run(work, await self.get(key, limit_bytes=limit_bytes))

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        """See `ObjectStore.get`."""
        try:
            found = await obstore.get_async(self._store, key)
        except (NotFoundError, FileNotFoundError) as error:
            raise ObjectMissing from error
        if found.meta["size"] > limit_bytes:
            raise ValueError("the object is larger than allowed")
        return bytes(await found.bytes_async())

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        try:
            await obstore.delete_async(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return

    async def listed(self, folder: str) -> AsyncIterator[Sequence[Listed]]:
        """See `ObjectStore.listed`."""
        async for page in obstore.list(self._store, f"{folder}/", chunk_size=LIST_PAGE):
            yield [Listed(found["path"], found["last_modified"]) for found in page]

    async def upload_target(self, key: str, *, expires_in: timedelta, max_bytes: int) -> UploadTarget:
        """See `ObjectStore.upload_target`. The size is checked when the object is verified."""
        return UploadTarget(await obstore.sign_async(self._store, "PUT", key, expires_in))

    async def download_url(self, key: str, *, expires_in: timedelta, public: bool) -> str:
        """See `ObjectStore.download_url`."""
        store = self._public if public else self._store
        return await obstore.sign_async(store, "GET", key, expires_in)
