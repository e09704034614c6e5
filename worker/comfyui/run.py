"""One run of a graph, watched over the socket and, because sockets lie, over `/history` too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from worker.cancelling import end_tasks
from worker.comfyui.client import ComfyClient, JsonObject, StoredImage, stored_image
from worker.comfyui.faults import (
    ComfyFault,
    OutputMissing,
    RunHung,
    RunInterrupted,
    RunLost,
    ServerDied,
    ServerUnreachable,
    fault_of_error,
    understood,
)
from worker.comfyui.socket import ComfySocket, Frame, Message, Picture, open_socket


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Something moved: a step, or a node that began or ended. The steps are the running node's, 0 of 0 before any.

    `preview` is an image as the server sent it (JPEG or PNG).
    """

    value: int
    maximum: int
    preview: bytes | None = None


STEPS_MAX = 1_000_000
Observer = Callable[[RunProgress], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """The images of the output node, and the files they came from (none for socket outputs)."""

    images: tuple[bytes, ...]
    files: tuple[StoredImage, ...]


@dataclass(slots=True)
class _Watch:
    prompt_id: str
    output_node: str
    observe: Observer
    running_node: str | None = None
    moved: int = 0
    value: int = 0
    maximum: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    socket_open: bool = True
    pictures: list[bytes] = field(default_factory=list)

    def take(self, frame: Frame) -> None:
        """Digest one frame."""
        if frame.prompt_id is not None and frame.prompt_id != self.prompt_id:
            return
        match frame:
            case Picture(content=content, content_type="image/png") if self.output_node in (
                frame.node,
                self.running_node,
            ):
                self.pictures.append(content)
            case Picture(content=content):
                self.observe(RunProgress(self.value, self.maximum, content))
            case Message(kind="executing", data=data):
                if data.get("node") is None and frame.prompt_id == self.prompt_id:
                    self.finished.set()
                self.running_node = data.get("node")
                self._move()
            case Message(
                kind="progress", data={"value": int() | float() as value, "max": int() | float() as maximum}
            ):
                if 0 <= value <= maximum <= STEPS_MAX and maximum >= 1:
                    self.value, self.maximum = int(value), int(maximum)
                self._move()
            case Message(
                kind="execution_start"
                | "execution_cached"
                | "executed"
                | "execution_success"
                | "progress_state"
            ):
                self._move()
            case _:
                return

    def _move(self) -> None:
        self.moved += 1
        self.observe(RunProgress(self.value, self.maximum))


class GraphRun:
    """Runs a graph to its end, whatever becomes of the socket."""

    def __init__(self, client: ComfyClient, cancel: asyncio.Event | None = None) -> None:
        self._client = client
        self._retry_pause = client.wait_max
        self._cancel = cancel or asyncio.Event()

    async def __call__(
        self,
        graph: Mapping[str, Any],
        output_node: str,
        observe: Observer,
        *,
        prompt_id: str | None = None,
        limit_seconds: float = 600.0,
        loaders: Collection[str] = (),
        cold_seconds: float = 0.0,
    ) -> RunResult:
        """Run and fetch the images of `output_node`; `loaders` are the nodes that load the person's image.

        Models that are still to be loaded may take `cold_seconds` without a sign, before the first step.
        Raises a `ComfyFault` for every other end.
        """
        watch = _Watch(prompt_id or str(self._client.new_id()), output_node, observe)
        try:
            async with (
                asyncio.timeout(limit_seconds),
                open_socket(
                    self._client.base_url, self._client.new_id().hex, self._retry_pause.request
                ) as socket,
            ):
                listener = asyncio.create_task(self._listen(socket, watch))
                try:
                    await self._client.submit(graph, watch.prompt_id, socket.client_id)
                    entry = await self._wait(watch, cold_seconds)
                finally:
                    await end_tasks([listener])
        except TimeoutError:
            await self._give_up(watch.prompt_id)
            raise RunHung(f"no end within {limit_seconds:g} s") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(watch.prompt_id))
            raise
        return await self._collect(entry, watch, loaders)

    async def _listen(self, socket: ComfySocket, watch: _Watch) -> None:
        async for frame in socket.frames():
            watch.take(frame)
        watch.socket_open = False

    async def _wait(self, watch: _Watch, cold_seconds: float) -> JsonObject:
        """Until the history has the entry. The socket only says when to look sooner."""
        unreachable = absent = 0
        seen, still_for = watch.moved, 0.0
        while True:
            ended = await self._pause(watch)
            if self._cancel.is_set():
                return await self._interrupt(watch)
            try:
                entry = await self._client.history(watch.prompt_id)
                if entry is not None:
                    return entry
                queued = watch.prompt_id in await self._client.queue()
            except ServerUnreachable as fault:
                unreachable += 1
                if not watch.socket_open or unreachable >= self._retry_pause.dead_polls:
                    raise ServerDied(fault.detail) from fault
                continue
            unreachable = 0
            absent = 0 if queued else absent + 1
            if absent >= self._retry_pause.lost_polls:
                raise RunLost("neither in queue nor in history: the server was restarted")
            still_for = (
                0.0 if watch.moved != seen or not watch.socket_open else still_for + self._retry_pause.poll
            )
            seen = watch.moved
            # No message comes while models are loaded: the first step ends the cold stage.
            allowed = max(self._retry_pause.stall, 0.0 if watch.maximum else cold_seconds)
            if still_for >= allowed:
                await self._give_up(watch.prompt_id)
                raise RunHung(f"no progress for {allowed:g} s")
            if ended:
                # `executing null` comes after the history is written; only a restart gets here.
                watch.finished.clear()

    async def _pause(self, watch: _Watch) -> bool:
        """Wait for the finish signal, a cancel, or the next poll; True for the finish signal."""
        waits = {asyncio.create_task(watch.finished.wait()), asyncio.create_task(self._cancel.wait())}
        try:
            await asyncio.wait(waits, timeout=self._retry_pause.poll, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(waits)
        return watch.finished.is_set()

    async def _interrupt(self, watch: _Watch) -> JsonObject:
        """Stop the run; a run that was quicker than the interrupt counts as finished."""
        gone = await self._client.remove(watch.prompt_id)
        entry = await self._client.history(watch.prompt_id)
        if entry is not None and _succeeded(entry):
            return entry
        if not gone:
            raise RunHung("it does not react to an interrupt")
        raise RunInterrupted("cancelled")

    async def _give_up(self, prompt_id: str) -> None:
        with contextlib.suppress(ComfyFault):
            await self._client.remove(prompt_id)

    async def _collect(self, entry: JsonObject, watch: _Watch, loaders: Collection[str]) -> RunResult:
        if not _succeeded(entry):
            _raise_for(entry, loaders)
        with understood("the history"):
            output = entry.get("outputs", {}).get(watch.output_node, {})
            files = tuple(stored_image(image, "filename", "output") for image in output.get("images", ()))
        if watch.pictures and not files:
            return RunResult(tuple(watch.pictures), ())
        images = [await self._client.download(file) for file in files]
        found = tuple(image for image in images if image)
        if not found or len(found) != len(files):
            raise OutputMissing(f"{len(found)} of {len(files)} files", node=watch.output_node)
        return RunResult(found, files)


def _succeeded(entry: Mapping[str, Any]) -> bool:
    with understood("the history"):
        status = entry.get("status") or {}
        return status.get("status_str") == "success" and bool(status.get("completed"))


def _raise_for(entry: Mapping[str, Any], loaders: Collection[str]) -> NoReturn:
    # An interrupt and an error both read "error" in status_str: only the messages tell them apart.
    with understood("the history"):
        for kind, data in (entry.get("status") or {}).get("messages", ()):
            if kind == "execution_error":
                raise fault_of_error(data, loaders)
            if kind == "execution_interrupted":
                raise RunInterrupted("interrupted by someone else")
    raise ComfyFault("the run ended without success and without a reason")
