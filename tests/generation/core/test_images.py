"""Pictures from strangers: decoded, bounded, checked, re-encoded."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from generation.errors import ResultRejected, SketchRejected
from generation.images import SKETCH_BYTES_MAX, output_size, read_sketch, verify_result


def png(
    width: int = 64, height: int = 64, mode: str = "RGB", *, blank: bool = False, **save: object
) -> bytes:
    image = Image.new(mode, (width, height), "white" if mode != "RGBA" else (0, 0, 0, 0))
    if not blank:
        ImageDraw.Draw(image).line((0, 0, width, height), fill="black", width=3)
    output = io.BytesIO()
    image.save(output, "PNG", **save)
    return output.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of side × side black pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    header = struct.pack("!IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_sketch_is_re_encoded_without_its_metadata() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "my home address")
    sketch = read_sketch(png(pnginfo=info), "image/png")
    assert b"my home address" not in sketch.data
    assert sketch.sha256 == digest(sketch.data)


def test_transparent_paper_becomes_white() -> None:
    sketch = read_sketch(png(mode="RGBA"), "image/png")
    with Image.open(io.BytesIO(sketch.data)) as picture:
        assert picture.mode == "RGB"
        assert picture.getpixel((63, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (png(), "image/gif", "sketch_type"),
        (png(), "image/jpeg", "sketch_unreadable"),
        (b"GIF89a" + b"\0" * 50, "image/png", "sketch_unreadable"),
        (b"", "image/png", "sketch_unreadable"),
        (png()[:-30], "image/png", "sketch_unreadable"),
        (png(4, 4), "image/png", "sketch_unreadable"),
        (b"\0" * (SKETCH_BYTES_MAX + 1), "image/png", "sketch_too_large"),
        (bomb(20_000), "image/png", "sketch_unreadable"),
        (bomb(5_000), "image/png", "sketch_unreadable"),
    ],
    ids=["gif", "lie", "not-an-image", "empty", "cut", "tiny", "huge", "bomb", "many-pixels"],
)
def test_what_is_not_a_sketch_is_rejected_by_name(data: bytes, kind: str, code: str) -> None:
    with pytest.raises(SketchRejected) as rejected:
        read_sketch(data, kind)
    assert rejected.value.code == code


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (1024, 1024)),
        ((1600, 1200), (1024, 768)),
        ((300, 400), (768, 1024)),
        ((4000, 20), (1024, 256)),
    ],
)
def test_an_image_has_the_shape_of_its_sketch(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert output_size(*size) == expected


def test_a_result_is_re_encoded_and_gets_a_thumbnail() -> None:
    data = png(512, 256)
    result = verify_result(data, sha256=digest(data))
    assert (result.width, result.height) == (512, 256)
    with Image.open(io.BytesIO(result.thumbnail)) as small:
        assert max(small.size) == 320


@pytest.mark.parametrize(
    "data",
    [png(blank=True), b"not an image", png()[:60], png(8, 8), png(5000, 20)],
    ids=["blank", "text", "cut", "tiny", "too-wide"],
)
def test_what_is_not_an_image_is_never_delivered(data: bytes) -> None:
    with pytest.raises(ResultRejected):
        verify_result(data, sha256=digest(data))


def test_a_file_that_is_not_the_reported_one_is_never_delivered() -> None:
    with pytest.raises(ResultRejected):
        verify_result(png(), sha256="0" * 64)
