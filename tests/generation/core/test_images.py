"""Pictures from strangers: decoded, bounded, checked, re-encoded."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from generation.domain.errors import ResultRejected, SketchRejected
from generation.images.checking import SKETCH_BYTES_MAX, output_size, read_sketch, read_upload, verify_result
from tests.hostile.pictures import png_bomb


def png(
    width: int = 64, height: int = 64, mode: str = "RGB", *, blank: bool = False, **save: object
) -> bytes:
    image = Image.new(mode, (width, height), "white" if mode != "RGBA" else (0, 0, 0, 0))
    if not blank:
        ImageDraw.Draw(image).line((0, 0, width, height), fill="black", width=3)
    output = io.BytesIO()
    image.save(output, "PNG", **save)
    return output.getvalue()


def jpeg() -> bytes:
    output = io.BytesIO()
    Image.open(io.BytesIO(png())).save(output, "JPEG")
    return output.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_sketch_is_re_encoded_without_its_metadata() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "my home address")
    sketch = read_sketch(png(pnginfo=info), "image/png")
    assert b"my home address" not in sketch.data
    assert sketch.sha256 == digest(sketch.data)


def test_a_sketch_that_is_kept_as_it_was_sent_is_not_sent_back() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "my home address")
    for sent, same in ((png(), True), (png(pnginfo=info), False), (jpeg(), False)):
        whole = read_sketch(sent, "image/png")
        assert read_upload(sent, "image/png") == (whole._replace(data=b"") if same else whole)


def test_transparent_paper_becomes_white() -> None:
    sketch = read_sketch(png(mode="RGBA"), "image/png")
    with Image.open(io.BytesIO(sketch.data)) as picture:
        assert picture.mode == "RGB"
        assert picture.getpixel((63, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"GIF89a" + b"\0" * 50, "image/gif", "sketch_type"),
        (b"\0" * 50, "image/gif", "sketch_type"),
        (png(blank=True), "image/png", "blank_sketch"),
        (b"GIF89a" + b"\0" * 50, "image/png", "sketch_unreadable"),
        (b"", "image/png", "sketch_unreadable"),
        (png()[:-30], "image/png", "sketch_unreadable"),
        (png(4, 4), "image/png", "sketch_size"),
        (b"\0" * (SKETCH_BYTES_MAX + 1), "image/png", "sketch_too_large"),
        (png_bomb(20_000), "image/png", "sketch_size"),
        (png_bomb(5_000), "image/png", "sketch_size"),
    ],
    ids=[
        "gif",
        "not-even-a-gif",
        "blank",
        "not-an-image",
        "empty",
        "cut",
        "tiny",
        "huge",
        "bomb",
        "many-pixels",
    ],
)
def test_what_is_not_a_sketch_is_rejected_by_name(data: bytes, kind: str, code: str) -> None:
    with pytest.raises(SketchRejected) as rejected:
        read_sketch(data, kind)
    assert rejected.value.code == code


@pytest.mark.parametrize(
    "kind",
    [
        "image/jpg",
        "image/jpeg",
        "IMAGE/PNG",
        "image/png; charset=binary",
        "image/gif",
        "",
        "application/octet-stream",
    ],
)
def test_a_sketch_is_what_its_bytes_say_whatever_it_is_called(kind: str) -> None:
    assert read_sketch(png(), kind).width == 1024
    assert read_sketch(jpeg(), kind).width == 1024


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a" + b"\0" * 50, "a GIF"),
        (b"BM" + b"\0" * 50, "a BMP"),
        (b"\0\0\0\x1cftypheic" + b"\0" * 50, "a HEIC photograph"),
        (b"\0\0\0\x1cftypavif" + b"\0" * 50, "an AVIF"),
        (b"  <SVG xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_whoever_sends_another_format_hears_which_one_it_is(data: bytes, name: str) -> None:
    with pytest.raises(SketchRejected, match=name):
        read_sketch(data, "image/png")


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (png(15, 15), "15 × 15 pixels"),
        (png(640, 12), "640 × 12 pixels"),
        (png_bomb(7_000), "7000 × 7000 pixels"),
        (png() + b"x" * SKETCH_BYTES_MAX, "64 × 64 pixels"),
    ],
    ids=["small", "narrow", "48 megapixels", "bytes"],
)
def test_a_picture_of_the_wrong_size_hears_its_size_and_the_limits(data: bytes, shown: str) -> None:
    with pytest.raises(SketchRejected, match=shown) as rejected:
        read_sketch(data, "image/png")
    assert "4096 × 4096" in rejected.value.detail


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
