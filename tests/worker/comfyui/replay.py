"""Replays recorded traffic of a real ComfyUI against the stand-in and compares every answer.

Ids, times, file counters and queue numbers are normalised; jobs that sleep do so a quarter as
long. Messages of a socket are compared in order, except `status`: when a queue length is seen
depends on the race between two requests.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from tests.waiting import SECONDS_MAX

RECORDINGS = Path(__file__).parent / "recordings"
PACE = 0.25
FREE = {"traceback", "current_inputs", "current_outputs"}
Json = dict[str, Any]


def entries(name: str, until: str | None = None) -> list[Json]:
    """The recording, cut before the note that begins with `until`."""
    lines = (RECORDINGS / f"{name}.json").read_text("utf-8").splitlines()
    found = [json.loads(line.strip().rstrip(",")) for line in lines if line.strip().startswith("{")]
    if until is None:
        return found
    return list(itertools.takewhile(lambda entry: not str(entry.get("text", "")).startswith(until), found))


class Replay:
    """One recording against one server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, folder: Path, pace: float = PACE) -> None:
        """`pace`: how much of a job's sleep it has here. Where a job is asked about, or ended, in the middle of it, the
        answers must come within that."""
        self._pace = pace
        self._http = http
        self._url = url
        self._folder = folder
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self._known: dict[str, str] = {}
        self._numbers: dict[int, int] = {}
        self.compared = 0
        self.statuses: list[int] = []

    async def run(self, recording: list[Json]) -> None:
        opens = _socket_openings(recording)
        for index, entry in enumerate(recording):
            for tag, sid in opens.get(index, ()):
                await self._open(tag, sid)
            match entry["kind"]:
                case "http":
                    await self._exchange(entry)
                case "ws":
                    await self._expect(entry)
                case "note":
                    await self._act(entry["text"])
                case "http_exc":
                    await self._refused()
                case "timeout":
                    continue
        for socket in self._sockets.values():
            await socket.close()

    async def _open(self, tag: str, sid: str) -> None:
        if tag in {"reconnected", "None"} and "None" in self._sockets:
            await self._sockets.pop("None").close()
        client_id = self._real(sid)
        self._sockets[tag] = await self._http.ws_connect(f"{self._url}/ws?clientId={client_id}")

    async def _act(self, note: str) -> None:
        if note.startswith("old socket closed"):
            await self._sockets.pop("w1").close()
            # Known to the server once it has answered the close: the next line may rely on it.
        if "deleted on disk" in note:
            for path in self._folder.glob("output/job/*.png"):
                path.unlink()

    async def _refused(self) -> None:
        try:
            await self._http.get(f"{self._url}/prompt")
        except aiohttp.ClientConnectionError:
            return
        raise AssertionError("the server is still there")

    # --- HTTP ---

    async def _exchange(self, entry: Json) -> None:
        request = entry["request"] or {}
        options: Json = {}
        if isinstance(request, str):
            options["data"] = aiohttp.FormData({"other": "1"})
        elif "multipart" in request:
            options["data"] = _form(request["multipart"])
        elif "json" in request:
            options["json"] = self._outgoing(request["json"])
        elif entry["method"] == "POST":
            options["data"] = "{"
        options["params"] = self._outgoing(request["params"]) if "params" in request else None
        options["headers"] = request.get("headers") if isinstance(request, dict) else None
        path = self._outgoing(entry["path"])
        reported = f"{entry['method']} {path}"
        answer, body = await self._ask(entry, path, options)
        assert answer.status == entry["status"], f"{reported}: {answer.status} {body[:200]!r}"
        if entry["content_type"]:
            assert answer.headers["Content-Type"] == entry["content_type"], reported
        self._compare_body(entry["response"], body, reported)
        self.compared += 1

    async def _ask(self, entry: Json, path: str, options: Json) -> tuple[aiohttp.ClientResponse, bytes]:
        """Ask; where the recorded client let time pass before it looked, look until it is there."""
        late = path.startswith("/history/") and entry["response"]
        deadline = asyncio.get_running_loop().time() + SECONDS_MAX
        while True:
            async with self._http.request(entry["method"], self._url + path, **options) as answer:
                body = await answer.read()
            if not late or body != b"{}" or asyncio.get_running_loop().time() > deadline:
                return answer, body

    def _compare_body(self, expected: Any, body: bytes, reported: str) -> None:
        if isinstance(expected, str):
            if not expected.startswith("<"):
                assert body.decode() == expected, reported
            return
        actual = json.loads(body)
        if isinstance(expected, dict) and "prompt_id" in expected:
            self._known[expected["prompt_id"]] = actual["prompt_id"]
        self._same(expected, actual, reported)

    # --- sockets ---

    async def _expect(self, entry: Json) -> None:
        expected, tag = entry["message"], str(entry["tag"])
        if expected.get("ws_type") == "257":
            async for _ in self._sockets[tag]:
                pass
            return
        if expected["type"] == "status" and "sid" not in expected["data"]:
            return
        actual = await self._next(tag)
        is_late = tag == "reconnected" or expected["type"] == "execution_interrupted"
        while is_late and _behind(actual, expected):
            actual = await self._next(tag)
        self._same(expected, actual, f"socket {tag}")
        self.compared += 1

    async def _next(self, tag: str) -> Json:
        while True:
            message = await asyncio.wait_for(self._sockets[tag].receive(), SECONDS_MAX)
            assert message.type is aiohttp.WSMsgType.TEXT, f"socket {tag}: {message.type}"
            reported: Json = json.loads(message.data)
            if reported["type"] != "status" or "sid" in reported["data"]:
                return reported
            assert set(reported["data"]) == {"status"}
            self.statuses.append(reported["data"]["status"]["exec_info"]["queue_remaining"])

    # --- normalising ---

    def _real(self, recorded: str) -> str:
        return self._known.setdefault(recorded, recorded[::-1])

    def _outgoing(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: item * self._pace if name == "seconds" else self._outgoing(item)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._outgoing(item) for item in value]
        if isinstance(value, str):
            for recorded, real in self._known.items():
                value = value.replace(recorded, real)
        return value

    def _same(self, expected: Any, actual: Any, where: str) -> None:
        if isinstance(expected, dict):
            assert isinstance(actual, dict), where
            expected = {self._outgoing(name): item for name, item in expected.items()}
            assert set(expected) == set(actual), f"{where}: {sorted(expected)} became {sorted(actual)}"
            for name, item in expected.items():
                if name not in FREE:
                    self._same_member(name, item, actual[name], f"{where}.{name}")
        elif isinstance(expected, list):
            assert len(expected) == len(actual), f"{where}: {expected} became {actual}"
            for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
                if isinstance(one, str) and isinstance(other, list):
                    other = other[1]
                is_number = isinstance(one, int) and not isinstance(one, bool) and index == 0
                self._same_member(
                    "number" if is_number and len(expected) == 5 else "", one, other, f"{where}[{index}]"
                )
        else:
            assert _plain(self._outgoing(expected)) == _plain(actual), (
                f"{where}: {expected!r} became {actual!r}"
            )

    def _same_member(self, name: str, expected: Any, actual: Any, where: str) -> None:
        if name in {"number", "priority"}:
            # The recordings leave requests out, so only sameness is compared, not the count.
            assert self._numbers.setdefault(expected, actual) == actual, where
        elif name == "seconds":
            assert actual == expected * self._pace, where
        else:
            self._same(expected, actual, where)


def _plain(value: Any) -> Any:
    if isinstance(value, int) and value > 1_700_000_000_000:
        return "time"
    if isinstance(value, str):
        value = re.sub(r"_\d{5}_\.png", "_#.png", value)
        value = re.sub(r"cannot identify image file '.*'", "cannot identify image file", value)
    return value


def _behind(actual: Json, expected: Json) -> bool:
    """Steps that the recorded client missed while it was away, or that came before the job was ended, and ours did not."""
    if actual["type"] not in {"progress", "progress_state"}:
        return False
    return actual["type"] != expected["type"] or _value(actual) < _value(expected)


def _value(message: Json) -> float:
    data = message["data"]
    return float(data["value"] if "value" in data else max(node["value"] for node in data["nodes"].values()))


def _form(parts: Json) -> aiohttp.FormData:
    form = aiohttp.FormData()
    for name, value in parts.items():
        described = re.fullmatch(r"<(\d+) bytes (.*)>", value)
        if described is None:
            form.add_field(name, value)
        else:
            form.add_field(name, content(int(described[1])), filename=described[2], content_type="image/png")
    return form


def content(size: int) -> bytes:
    """A PNG of this many bytes, or rubbish when that is too few for one."""
    if size < 100:
        return b"not an image"[:size].ljust(size, b".")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(buffer, "PNG")
    return buffer.getvalue().ljust(size, b"\0")


def _socket_openings(recording: list[Json]) -> dict[int, list[tuple[str, str]]]:
    """Where to connect: a greeting with an empty queue was sent before the prompts logged above it."""
    opens: dict[int, list[tuple[str, str]]] = {}
    for index, sid, tag, waiting in _greetings(recording):
        place = index
        while not waiting and place > 0 and _is_prompt(recording[place - 1]):
            place -= 1
        opens.setdefault(place, []).append((tag, sid))
    return opens


def _greetings(recording: list[Json]) -> Iterator[tuple[int, str, str, int]]:
    for index, entry in enumerate(recording):
        data = entry.get("message", {}).get("data", {})
        if "sid" in data:
            yield index, data["sid"], str(entry["tag"]), data["status"]["exec_info"]["queue_remaining"]


def _is_prompt(entry: Json) -> bool:
    return entry["kind"] == "http" and entry["path"] == "/prompt" and entry["status"] == 200
