"""People for `bench.chaos`, over HTTP: they ask, ask again, sketch live, cancel, and remember every answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image, ImageDraw

ENDED = frozenset({"completed", "failed", "cancelled", "superseded", "expired", "blocked"})
PASSING = frozenset({408, 425, 500, 502, 503, 504})
REQUEST_SECONDS_MAX = 10.0
ATTEMPTS_MAX = 8
WAIT_SECONDS_MAX = 15.0
"""How long somebody looks after one image before turning to the next; the job goes on."""


def scribble() -> dict[str, str]:
    """A small, wide sketch: its picture is small too, so that painting costs little."""
    image = Image.new("RGB", (64, 16), "white")
    ImageDraw.Draw(image).line((4, 12, 30, 3, 60, 12), fill="black", width=2)
    output = io.BytesIO()
    image.save(output, "PNG")
    return {"content_type": "image/png", "data": base64.b64encode(output.getvalue()).decode()}


@dataclass
class Book:
    """What people were told, and what cannot be true together."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Acknowledged jobs, and whose they are."""
    ended: dict[str, str] = field(default_factory=dict)
    """The end of a job as somebody first saw it."""
    unanswered: int = 0
    """Requests that never got an answer: there may be a job or not."""
    answers: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)

    def accept(self, job_id: str, owner: str, before: str | None) -> None:
        """A request was acknowledged; `before` is what the same key was told earlier."""
        if before is not None and before != job_id:
            self.contradictions.append(f"one key, two jobs: {before} and {job_id}")
        if self.accepted.setdefault(job_id, owner) != owner:
            self.contradictions.append(f"{job_id} was given to two people")

    def saw(self, job_id: str, state: str) -> None:
        """Somebody looked: an end is for good."""
        before = self.ended.get(job_id)
        if before is not None and before != state:
            self.contradictions.append(f"{job_id} was {before} and then {state}")
        elif state in ENDED:
            self.ended[job_id] = state


class Person:
    """One visitor: some images one by one, some frames of a live sketch, some second thoughts."""

    def __init__(self, http: httpx.AsyncClient, book: Book, chance: random.Random, number: int) -> None:
        self._http = http
        self._book = book
        self._chance = chance
        self._number = number
        self._seq = 0
        self._sketch = scribble()
        self._headers: dict[str, str] = {}
        self.account_id = ""

    async def begin(self) -> None:
        """Become a visitor. Raises `httpx.HTTPError`."""
        answer = await self._http.post("/v1/visitors", json={})
        answer.raise_for_status()
        self.account_id = answer.json()["account_id"]
        self._headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    async def go_on(self, enough: asyncio.Event) -> None:
        """Sketch until it is enough."""
        while not enough.is_set():
            live = self._chance.random() < 0.4
            job_id = await self._ask(self._frame() if live else self._single(), enough)
            if job_id is None:
                await self._pause(1.0, 2.0)
            elif self._chance.random() < 0.1:
                await self._cancel(job_id)
            elif live:
                await self._pause(0.1, 0.6)
            else:
                await self._look_after(job_id, enough)

    def _single(self) -> dict[str, Any]:
        return {"prompt": f"llama {self._number}", "sketch": self._sketch}

    def _frame(self) -> dict[str, Any]:
        self._seq += 1
        # A session may spend so much only: then comes the next.
        session = f"s{self._seq // 200}"
        return {**self._single(), "live": True, "session_id": session, "seq": self._seq}

    async def _ask(self, body: dict[str, Any], enough: asyncio.Event) -> str | None:
        """Ask under one key until there is an answer that means something, and now and then once more."""
        key = self._chance.randbytes(16).hex()
        job_id: str | None = None
        for attempt in range(ATTEMPTS_MAX):
            answer = await self._send("POST", "/v1/generations", key, body)
            if answer is not None and answer.status_code == 202:
                returned = str(answer.json()["id"])
                self._book.accept(returned, self.account_id, job_id)
                if job_id is not None or self._chance.random() > 0.15:
                    return returned
                job_id = returned  # the answer was lost on the way: the same again
                continue
            if answer is not None and answer.status_code not in PASSING:
                return job_id
            if enough.is_set() and attempt > 2:
                break
            await self._pause(0.2, 1.0)
        if job_id is None:
            self._book.unanswered += 1
        return job_id

    async def _cancel(self, job_id: str) -> None:
        answer = await self._send("DELETE", f"/v1/generations/{job_id}")
        if answer is not None and answer.status_code == 200:
            self._book.saw(job_id, answer.json()["state"])

    async def _look_after(self, job_id: str, enough: asyncio.Event) -> None:
        until = asyncio.get_running_loop().time() + WAIT_SECONDS_MAX
        while not enough.is_set() and asyncio.get_running_loop().time() < until:
            await self._pause(0.3, 0.9)
            if await self.look(job_id) in ENDED:
                return

    async def look(self, job_id: str) -> str | None:
        """Its state; None if that could not be learnt now."""
        answer = await self._send("GET", f"/v1/generations/{job_id}")
        if answer is None or answer.status_code in PASSING:
            return None
        if answer.status_code != 200:
            self._book.contradictions.append(f"{job_id} was accepted, and then answered {answer.status_code}")
            return None
        state = str(answer.json()["state"])
        self._book.saw(job_id, state)
        return state

    async def held(self) -> int:
        """Credits in open holds, as the API says. Raises `httpx.HTTPError`."""
        answer = await self._http.get("/v1/account", headers=self._headers)
        answer.raise_for_status()
        return int(answer.json()["credits"]["held"])

    async def digest_of_image(self, job_id: str) -> str | None:
        """SHA-256 of the image behind the link; None if it cannot be fetched."""
        try:
            answer = await self._http.get(
                f"/v1/generations/{job_id}/image", headers=self._headers, follow_redirects=True
            )
        except httpx.TransportError:
            return None
        return hashlib.sha256(answer.content).hexdigest() if answer.status_code == 200 else None

    async def _send(
        self, method: str, path: str, key: str | None = None, body: dict[str, Any] | None = None
    ) -> httpx.Response | None:
        headers = self._headers if key is None else {**self._headers, "Idempotency-Key": key}
        try:
            answer = await self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            self._book.answers["none"] += 1
            return None
        name = str(answer.status_code)
        if not answer.is_success:
            name = f"{name} {answer.json().get('code', '')}".strip() if _is_json(answer) else name
        self._book.answers[name] += 1
        return answer

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(least, most))


def _is_json(answer: httpx.Response) -> bool:
    return "json" in answer.headers.get("Content-Type", "")


def client(url: str) -> httpx.AsyncClient:
    """Everybody's connections."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=40)
    return httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS_MAX, limits=limits, trust_env=False)
