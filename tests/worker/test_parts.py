"""The worker's small parts."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.worker.comfyui.pictures import png, sketch
from worker.api import ApiFault, WorkerApi
from worker.backoff import Backoff
from worker.comfyui.client import StoredImage
from worker.config import ConfigurationFault, load_config
from worker.files import ComfyFiles
from worker.pictures import as_webp, fitted_sketch, looks_blank, small_preview
from worker.process import LocalProcess
from worker.protocol import SketchSource, UploadTarget

ADDRESSES = {"LLAMASKETCH_API_URL": "https://api.example/", "COMFYUI_URL": "http://127.0.0.1:8188"}


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(
        'name = "worker"\ngrace_seconds = 3\ngraphs = ["sketch@1"]\ncomfyui_restart_command = ["a", "b"]\n'
    )
    config = load_config(ADDRESSES | {"LLAMASKETCH_WORKER_NAME": "other"}, file)
    assert (config.name, config.grace_seconds, config.graphs) == ("other", 3.0, ("sketch@1",))
    assert config.comfyui_restart_command == ("a", "b")
    assert config.api_url == "https://api.example"


@pytest.mark.parametrize(
    ("environment", "content", "reported"),
    [
        ({}, "", "api_url"),
        (ADDRESSES, "nmae = 'x'", "nmae"),
        (ADDRESSES, "name = ", "cannot read"),
        (ADDRESSES | {"LLAMASKETCH_WORKER_KEEP_FILES": "many"}, "", "many"),
        (ADDRESSES | {"COMFYUI_URL": "file:///etc"}, "", "comfyui_url"),
    ],
)
def test_a_wrong_setting_is_named(
    environment: dict[str, str], content: str, reported: str, tmp_path: Path
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(content)
    with pytest.raises(ConfigurationFault, match=reported):
        load_config(environment, file)


def test_backoff_grows_to_a_bound_and_honours_retry_after() -> None:
    backoff = Backoff(random.Random(1), first_seconds=1, longest_seconds=8)
    waits = [backoff.next_seconds() for _ in range(8)]
    assert all(wait <= 8 for wait in waits)
    assert all(wait >= 4 for wait in waits[3:])
    assert backoff.next_seconds(30) == 30
    backoff.reset()
    assert backoff.next_seconds() <= 1


def test_a_transparent_sketch_gets_white_paper_and_padding() -> None:
    drawn = Image.new("RGBA", (100, 50), (0, 0, 0, 0))
    drawn.putpixel((50, 25), (0, 0, 0, 255))
    with Image.open(io.BytesIO(fitted_sketch(png(drawn), 64, 64))) as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_previews_are_small_jpegs_and_rubbish_gives_none() -> None:
    preview = small_preview(sketch(1024))
    assert preview is not None
    with Image.open(io.BytesIO(preview)) as image:
        assert (image.format, image.size) == ("JPEG", (128, 128))
    assert small_preview(b"rubbish") is None


def test_a_picture_of_one_colour_is_blank() -> None:
    assert looks_blank(png(Image.new("RGB", (64, 64), "black")))
    assert looks_blank(b"rubbish")
    assert not looks_blank(sketch())


def test_only_files_under_comfyuis_folder_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "comfy"
    inside, outside = folder / "output" / "llamasketch" / "a.png", tmp_path / "b.png"
    inside.parent.mkdir(parents=True)
    for path in (inside, outside):
        path.write_bytes(b"x")
    files = ComfyFiles(folder, keep=1)
    files.delete([StoredImage("a.png", "llamasketch", "output"), StoredImage("b.png", "../..", "output")])
    assert (inside.exists(), outside.exists()) == (False, True)


def test_the_oldest_orphaned_uploads_go_first(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / "input" / f"llamasketch-{name}.png"
        path.write_bytes(b"x")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "input" / "mine.png").write_bytes(b"x")
    assert ComfyFiles(tmp_path, keep=1).prune() == 2
    assert sorted(path.name for path in (tmp_path / "input").iterdir()) == ["llamasketch-new.png", "mine.png"]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_becomes_a_webp_of_the_same_size(mode: str) -> None:
    sent = png(Image.open(io.BytesIO(sketch(256))).convert(mode))
    small, large = as_webp(sent, 40), as_webp(sent, 95)
    assert len(small) < len(large)
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size, image.mode) == ("WEBP", (256, 256), "RGB")


def test_what_cannot_become_one_is_left_to_the_api() -> None:
    transparent = png(Image.new("RGBA", (64, 64), (9, 9, 9, 9)))
    assert [as_webp(sent, 80) for sent in (transparent, b"rubbish")] == [transparent, b"rubbish"]


async def test_the_listener_of_a_port_is_found_and_measured() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        size = await LocalProcess(server.getsockname()[1], ()).rss_bytes()
    assert size is not None
    assert size > 1_000_000


async def test_a_restart_command_that_fails_is_noticed() -> None:
    assert await LocalProcess(1, ("true",)).restart()
    assert not await LocalProcess(1, ("false",)).restart()
    assert not await LocalProcess(1, ()).restart()


async def test_every_part_that_is_sent_or_fetched_is_counted() -> None:
    content = os.urandom(300_000)

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return httpx.Response(200, content=content if request.method == "GET" else b"")

    parts: list[int] = []
    backoff = Backoff(random.Random(1))
    source = SketchSource(url="/s", sha256=hashlib.sha256(content).hexdigest(), content_type="image/png")
    target = UploadTarget(url="/u", max_bytes=len(content))
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        api = WorkerApi("https://api.example", http)
        await api.upload(target, content, "image/png", backoff, on_bytes=lambda: parts.append(1))
        assert len(parts) == 5
        await api.download(source, backoff, on_bytes=lambda: parts.append(1))
        assert len(parts) == 10


async def test_an_answer_that_cannot_be_decoded_is_asked_for_again() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip"))

    backoff = Backoff(random.Random(1), first_seconds=0, longest_seconds=0)
    target = UploadTarget(url="/u", max_bytes=9)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        api = WorkerApi("https://api.example", http)
        for asking in (
            api.claim(1),
            api.download(SketchSource(url="/s", sha256="0" * 64, content_type="image/png"), backoff),
            api.upload(target, b"x", "image/png", backoff),
        ):
            with pytest.raises(ApiFault) as raised:
                await asking
            assert raised.value.passing


async def _broken_off() -> AsyncIterator[bytes]:
    yield b"the first half"
    raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


async def _stalled() -> AsyncIterator[bytes]:
    yield b"the first half"
    raise httpx.ReadTimeout("")


@pytest.mark.parametrize("body", [_broken_off, _stalled])
async def test_a_store_that_breaks_off_in_the_middle_was_reached(
    body: Callable[[], AsyncIterator[bytes]],
) -> None:
    """So it is the store that did not give the sketch, and not the network of this machine."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, stream=_Stream(body()))

    backoff = Backoff(random.Random(1), first_seconds=0, longest_seconds=0)
    source = SketchSource(url="/s", sha256="0" * 64, content_type="image/png")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        with pytest.raises(ApiFault) as raised:
            await WorkerApi("https://api.example", http).download(source, backoff)
    assert raised.value.status is not None
    assert len(asked) > 1, "it may pass"


class _Stream(httpx.AsyncByteStream):
    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts


@pytest.mark.parametrize(
    "url", ["http://[bad/s", "http://store:port/s", "ftp://store/s", "http:///s", "s3://b/s"]
)
async def test_an_address_that_nobody_can_ask_is_no_fault_of_this_machine(url: str) -> None:
    backoff = Backoff(random.Random(1))
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        api = WorkerApi("https://api.example", http)
        for asking in (
            api.download(SketchSource(url=url, sha256="0" * 64, content_type="image/png"), backoff),
            api.upload(UploadTarget(url=url, max_bytes=9), b"x", "image/png", backoff),
        ):
            with pytest.raises(ApiFault) as raised:
                await asking
            assert raised.value.status is not None
