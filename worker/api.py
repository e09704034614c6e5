"""The worker's side of the worker API, over HTTP(S)."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import NamedTuple, TypeVar
from urllib.parse import urljoin

import httpx
from pydantic import BaseModel, ValidationError

from worker.backoff import Backoff
from worker.protocol import (
    WORKER_STATE,
    ClaimAnswer,
    ClaimedJob,
    ClaimRequest,
    CompleteRequest,
    FailRequest,
    GiveBackRequest,
    GraphsRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    RegisterAnswer,
    RegisterRequest,
    SelfTestRequest,
    SketchSource,
    StateAnswer,
    UploadTarget,
)

SKETCH_LIMIT_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024

Answer = TypeVar("Answer", bound=BaseModel)


class ApiFault(Exception):
    """The gateway did not do what was asked."""

    def __init__(self, status: int | None, code: str, retry_after_seconds: float = 0.0) -> None:
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{status or 'no answer'} {code}")

    @property
    def passing(self) -> bool:
        """Whether the same request may work later."""
        return self.status is None or self.status >= 500 or self.status in {408, 425, 429}

    @property
    def forbidden(self) -> bool:
        """The worker token is not accepted."""
        return self.status in {401, 403}


class LeaseLost(Exception):
    """The job belongs to another lease now: report nothing more about it."""


class Quarantined(NamedTuple):
    """The API gives this worker no jobs until it has tested itself, which is due in so many seconds."""

    test_in_seconds: float


class WrongBytes(Exception):
    """A download is not what its digest says."""


def _ignore() -> None:
    """Nobody wants to know how far it is."""


class WorkerApi:
    """One API, one worker. `token` is set after registration."""

    def __init__(self, base_url: str, http: httpx.AsyncClient, request_seconds: float = 15.0) -> None:
        self._base = base_url.rstrip("/") + "/"
        self._http = http
        self._seconds = request_seconds
        self.token: str | None = None

    async def register(self, request: RegisterRequest) -> RegisterAnswer:
        """Trade the one-time token for a worker token. Raises `ApiFault`."""
        return await self._ask("v1/worker/register", request, RegisterAnswer)

    async def renew(self) -> RegisterAnswer:
        """A new token before the old expires. Raises `ApiFault`."""
        return await self._ask("v1/worker/renew", None, RegisterAnswer)

    async def offer(self, request: GraphsRequest) -> None:
        """Say which graphs this worker can run now. Raises `ApiFault`."""
        await self._post("v1/worker/graphs", request, self._seconds)

    async def trial_target(self) -> UploadTarget:
        """Where this worker may send something that is no image of a job. Raises `ApiFault`."""
        return await self._ask("v1/worker/trial-upload", None, UploadTarget)

    async def trial_upload(self, content: bytes, seconds: float) -> None:
        """Send these bytes to the object store, once. Raises `ApiFault`, `TimeoutError` after so many seconds."""
        target = await self.trial_target()
        async with asyncio.timeout(seconds):
            await self.upload(target, content, "image/png", Backoff(random.Random(0)), attempts=1)
        await self.end_trial()

    async def end_trial(self) -> None:
        """What was sent for trial is not needed any more. Raises `ApiFault`."""
        await self._post("v1/worker/trial-upload/end", None, self._seconds)

    async def self_tested(self, request: SelfTestRequest) -> StateAnswer:
        """Report the outcome of a self-test. Returns this worker's state. Raises `ApiFault`."""
        return await self._ask("v1/worker/self-test", request, StateAnswer)

    async def claim(self, wait_seconds: float) -> ClaimedJob | Quarantined | None:
        """Wait for a job on the server's side. Raises `ApiFault`."""
        request = ClaimRequest(wait_seconds=wait_seconds)
        answer = await self._post("v1/worker/claim", request, wait_seconds + self._seconds)
        if answer.status_code != 204:
            return _parsed(answer, ClaimAnswer).job
        if answer.headers.get(WORKER_STATE) != "quarantined":
            return None
        return Quarantined(_retry_after(answer.headers))

    async def drain(self) -> None:
        """Announce that this worker takes no more jobs; a waiting claim returns."""
        await self._post("v1/worker/drain", None, self._seconds)

    async def resume(self) -> None:
        """Take back what `drain` announced: this worker has started again. Raises `ApiFault`."""
        await self._post("v1/worker/resume", None, self._seconds)

    async def heartbeat(self, job_id: str, request: HeartbeatRequest) -> HeartbeatAnswer:
        """Extend the lease. A refusal of the lease reads as `lost`. Raises `ApiFault` otherwise."""
        try:
            return await self._ask(f"v1/worker/jobs/{job_id}/heartbeat", request, HeartbeatAnswer)
        except ApiFault as fault:
            if fault.status in {404, 409, 410}:
                return HeartbeatAnswer(command="lost")
            raise

    async def report(
        self,
        job_id: str,
        request: CompleteRequest | FailRequest | GiveBackRequest,
        backoff: Backoff,
        attempts: int = 8,
    ) -> None:
        """Report an end, again and again until it is heard: all three are safe to repeat.

        Raises `LeaseLost` when the API says that this lease is over, `ApiFault` when it stays away.
        """
        ends = {CompleteRequest: "complete", FailRequest: "fail", GiveBackRequest: "give-back"}
        path = f"v1/worker/jobs/{job_id}/{ends[type(request)]}"
        for attempt in range(1, attempts + 1):
            try:
                await self._post(path, request, self._seconds)
                return
            except ApiFault as fault:
                if fault.status in {404, 409, 410}:
                    raise LeaseLost(fault.code) from fault
                if not fault.passing or attempt == attempts:
                    raise
                await asyncio.sleep(backoff.next_seconds(fault.retry_after_seconds))

    async def download(
        self,
        source: SketchSource,
        backoff: Backoff,
        attempts: int = 4,
        on_bytes: Callable[[], None] = _ignore,
    ) -> bytes:
        """Fetch a sketch and check its digest; `on_bytes` after each part. Raises `WrongBytes` or `ApiFault`."""
        address = self._address(source.url)
        for attempt in range(1, attempts + 1):
            try:
                content = await self._fetch(address, on_bytes)
                if hashlib.sha256(content).hexdigest() == source.sha256:
                    return content
                if attempt == attempts:
                    raise WrongBytes("the sketch does not match its digest")
            except ApiFault as fault:
                if not fault.passing or attempt == attempts:
                    raise
            await asyncio.sleep(backoff.next_seconds())
        raise WrongBytes("no attempt was allowed")

    async def _fetch(self, address: str, on_bytes: Callable[[], None]) -> bytes:
        reached = None
        try:
            async with self._http.stream(
                "GET", address, timeout=self._seconds, headers=self._own(address)
            ) as answer:
                _raise_for_status(answer)
                reached = 502
                content = bytearray()
                async for chunk in answer.aiter_bytes(_CHUNK_BYTES):
                    content += chunk
                    on_bytes()
                    if len(content) > SKETCH_LIMIT_BYTES:
                        raise WrongBytes("the sketch is too large")
                return bytes(content)
        except httpx.HTTPError as fault:
            # Cut off, stalled or badly encoded: whoever answered did not give what it promised.
            raise ApiFault(reached, type(fault).__name__) from fault

    async def upload(
        self,
        target: UploadTarget,
        content: bytes,
        content_type: str,
        backoff: Backoff,
        attempts: int = 6,
        on_bytes: Callable[[], None] = _ignore,
    ) -> None:
        """PUT to the presigned address, streaming, retrying what may pass; `on_bytes` after each part.

        Raises `ApiFault`.
        """
        address = self._address(target.url)
        headers = {"Content-Type": content_type, **target.headers, "Content-Length": str(len(content))}
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._http.put(
                    address,
                    content=_chunks(content, on_bytes),
                    headers=headers,
                    timeout=max(60.0, self._seconds),
                )
                _raise_for_status(answer)
                return
            except (httpx.HTTPError, ApiFault) as fault:
                known = fault if isinstance(fault, ApiFault) else ApiFault(None, type(fault).__name__)
                if not known.passing or attempt == attempts:
                    raise known from fault
                await asyncio.sleep(backoff.next_seconds(known.retry_after_seconds))

    def _address(self, url: str) -> str:
        """An address of a file that the API has told. Raises `ApiFault` for one that nobody can ask, anywhere."""
        try:
            address = httpx.URL(urljoin(self._base, url))
        except (ValueError, httpx.InvalidURL) as fault:
            raise ApiFault(400, "address_unusable") from fault
        if address.scheme not in ("http", "https") or not address.host:
            raise ApiFault(400, "address_unusable")
        return str(address)

    def _own(self, address: str) -> dict[str, str]:
        """The worker token goes to the API itself, never to an object store."""
        mine = self.token is not None and httpx.URL(address).host == httpx.URL(self._base).host
        same_port = httpx.URL(address).port == httpx.URL(self._base).port
        return {"Authorization": f"Bearer {self.token}"} if mine and same_port else {}

    async def _ask(self, path: str, request: BaseModel | None, shape: type[Answer]) -> Answer:
        return _parsed(await self._post(path, request, self._seconds), shape)

    async def _post(self, path: str, request: BaseModel | None, seconds: float) -> httpx.Response:
        content = b"{}" if request is None else request.model_dump_json().encode()
        headers = {"Content-Type": "application/json"}
        if self.token is not None and path != "v1/worker/register":
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            answer = await self._http.post(
                self._base + path, content=content, headers=headers, timeout=seconds
            )
        except httpx.HTTPError as fault:
            raise ApiFault(None, type(fault).__name__) from fault
        _raise_for_status(answer)
        return answer


async def _chunks(content: bytes, on_bytes: Callable[[], None]) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]
        on_bytes()


def _raise_for_status(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    code = "http_error"
    if "json" in answer.headers.get("Content-Type", "") and answer.is_closed:
        try:
            code = str(answer.json().get("code", code))
        except (ValueError, AttributeError, RecursionError):
            code = "http_error"
    raise ApiFault(answer.status_code, code, _retry_after(answer.headers))


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return min(60.0, float(text)) if text.isascii() and text.isdecimal() else 0.0


def _parsed(answer: httpx.Response, shape: type[Answer]) -> Answer:
    try:
        return shape.model_validate_json(answer.content)
    except ValidationError as fault:
        # Never log the body: it may hold a prompt or a token.
        raise ApiFault(502, "unreadable_answer") from fault


def seconds_until(moment: datetime, now: datetime) -> float:
    """From now to a moment; negative when it is past."""
    return (moment - now).total_seconds()
