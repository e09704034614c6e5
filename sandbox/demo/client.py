"""The demo's side of the HTTP API: nothing that any other client could not do."""

from __future__ import annotations

import base64
import io
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image, ImageDraw

FINAL = frozenset({"completed", "failed", "cancelled", "superseded", "expired", "blocked"})
WAIT_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05
_SKETCH_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class DemoFailed(Exception):
    """Something is not as it should be."""


class Api:
    """One visitor's conversation with a stack."""

    def __init__(self, url: str) -> None:
        """Against this machine the visitor comes from a loopback address of its own, so that its
        free images are not taken from those of the browser beside it."""
        transport = None
        if urlsplit(url).hostname in ("127.0.0.1", "localhost"):
            here = ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))
            transport = httpx.HTTPTransport(local_address=f"127.{here}")
        self._http = httpx.Client(base_url=url, timeout=30, transport=transport, follow_redirects=True)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def begin(self) -> str:
        """Become a visitor; returns the account's id."""
        answer = self.post("/v1/visitors", {})
        self._http.headers["Authorization"] = f"Bearer {answer['token']}"
        return str(answer["account_id"])

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """A JSON object. Raises `DemoFailed` for an error."""
        return _json(self._http.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Send JSON and get JSON. Raises `DemoFailed` for an error."""
        headers = {"Idempotency-Key": key} if key else {}
        return _json(self._http.post(path, json=body, headers=headers))

    def available(self) -> int:
        """Credits that could be used now."""
        return int(self.get("/v1/account")["credits"]["available"])

    def generation(self, job_id: str) -> dict[str, Any]:
        """A generation once it has ended."""
        return self.wait(f"/v1/generations/{job_id}", lambda shown: shown["state"] in FINAL)

    def image(self, job_id: str) -> tuple[int, int]:
        """Fetch an image and decode it; its size in pixels."""
        response = self._http.get(f"/v1/generations/{job_id}/image")
        if response.status_code != 200:
            raise DemoFailed(f"the image of {job_id} was not served: HTTP {response.status_code}")
        with Image.open(io.BytesIO(response.content)) as picture:
            picture.load()
            return picture.size

    def wait(self, path: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask again and again until it is so. Raises `DemoFailed` when it takes too long."""
        until = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            shown = self.get(path)
            if done(shown):
                return shown
            if time.monotonic() > until:
                raise DemoFailed(f"{path} is still {shown.get('state')} after {WAIT_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)

    def statement(self) -> list[dict[str, Any]]:
        """All of it, oldest first."""
        entries: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get("/v1/statement", limit="200", **({"cursor": cursor} if cursor else {}))
            entries += page["entries"]
            cursor = page["next_cursor"]
            if cursor is None:
                return entries[::-1]


def _json(response: httpx.Response) -> dict[str, Any]:
    answer: Any = response.json() if response.content else {}
    if response.status_code >= 400:
        detail = answer.get("detail") if isinstance(answer, dict) else None
        path = response.request.url.path
        raise DemoFailed(f"{path} answered {response.status_code}: {detail or response.text[:200]}")
    if not isinstance(answer, dict):
        raise DemoFailed(f"{response.request.url.path} answered no JSON object")
    return answer


def read_or_draw(path: Path | None) -> dict[str, str]:
    """The sketch as the API wants it. Raises `DemoFailed` if the file is no picture."""
    if path is None:
        return {"content_type": "image/png", "data": base64.b64encode(draw_llama()).decode()}
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            content_type = _SKETCH_TYPES.get(picture.format or "")
    except OSError as error:
        raise DemoFailed(f"{path} cannot be read as a picture: {error}") from error
    if content_type is None:
        raise DemoFailed(f"{path} must be a PNG, JPEG or WebP")
    return {"content_type": content_type, "data": base64.b64encode(data).decode()}


def draw_llama(size: tuple[int, int] = (512, 512)) -> bytes:
    """A small llama in a few strokes, as PNG, scaled to `size`."""
    picture = Image.new("RGB", (512, 512), "white")
    pen = ImageDraw.Draw(picture)
    neck_and_head = [
        (180, 300),
        (172, 180),
        (160, 120),
        (178, 96),
        (226, 104),
        (232, 128),
        (200, 142),
        (212, 262),
    ]
    body = [(212, 262), (300, 250), (372, 262), (396, 300), (384, 340), (200, 344), (180, 300)]
    pen.line(neck_and_head + body, fill="black", width=6, joint="curve")
    for x, y in ((166, 98), (186, 92)):  # ears
        pen.line([(x, y), (x - 4, y - 34), (x + 12, y - 4)], fill="black", width=5, joint="curve")
    for x in (212, 248, 336, 368):  # legs
        pen.line([(x, 342), (x - 2, 440), (x + 14, 440)], fill="black", width=6, joint="curve")
    pen.arc((378, 256, 420, 310), 200, 60, fill="black", width=6)  # tail
    pen.ellipse((196, 112, 204, 120), fill="black")  # eye
    pen.line([(40, 446), (472, 440)], fill="black", width=4)  # ground
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BOX).save(buffer, "PNG")
    return buffer.getvalue()
