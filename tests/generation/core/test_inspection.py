"""An upload may not cost more to read than it is worth: hostile files, made here, each end in their own refusal."""

from __future__ import annotations

import io
import tracemalloc
from collections import Counter
from functools import partial

import pytest
from PIL import Image

from generation.domain.errors import ResultRejected, SketchRejected
from generation.images.checking import (
    SKETCH_STORED_BYTES_MAX,
    STORED_PIXELS_MAX,
    inspect_sketch,
    read_sketch,
    verify_result,
)
from generation.images.inspection import SCANS_MAX
from tests.generation.core.test_images import digest
from tests.hostile.pictures import (
    JPEG,
    PNG,
    WEBP,
    Hostile,
    chunk,
    corpus,
    drawing,
    mutants,
    photograph,
    png_of,
    png_with_endless_rows,
    png_with_text_bomb,
    progressive_jpeg,
    segment,
)
from tests.spending import cpu_seconds_of

CPU_SECONDS_MAX = 0.25
CORPUS = {hostile.name: hostile for hostile in corpus()}


@pytest.mark.parametrize("hostile", CORPUS.values(), ids=CORPUS)
def test_a_hostile_file_ends_in_its_own_refusal_before_it_is_decoded(hostile: Hostile) -> None:
    def refused() -> None:
        with pytest.raises(SketchRejected) as rejected:
            inspect_sketch(hostile.data, hostile.content_type)
        assert rejected.value.code == hostile.code

    assert cpu_seconds_of(refused, CPU_SECONDS_MAX) < CPU_SECONDS_MAX


def test_mutated_files_end_in_a_sketch_or_a_refusal_and_cost_little() -> None:
    worst, ends = 0.0, Counter[str]()

    def end(data: bytes, content_type: str) -> None:
        try:
            assert len(read_sketch(data, content_type).data) <= SKETCH_STORED_BYTES_MAX
            ends["read"] += 1
        except SketchRejected:
            ends["refused"] += 1

    for data, content_type in mutants(seed=20261128, count=600):
        worst = max(worst, cpu_seconds_of(partial(end, data, content_type), CPU_SECONDS_MAX))
    assert worst < CPU_SECONDS_MAX
    assert min(ends["read"], ends["refused"]) > 10, "of both there must be some"


@pytest.mark.parametrize("bomb", [png_with_text_bomb, png_with_endless_rows], ids=["text", "rows"])
def test_what_a_picture_carries_beside_its_pixels_is_never_inflated(bomb: object) -> None:
    assert callable(bomb)
    data = bomb(50_000_000)
    tracemalloc.start()
    try:
        sketch = read_sketch(data, PNG)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (sketch.width, sketch.height) == (1024, 1024)
    assert peak < 5_000_000


def test_an_honest_noisy_photograph_is_scaled_to_what_the_graph_uses() -> None:
    noisy = photograph(3100, quality=20)
    assert len(noisy) > 2_000_000
    sketch = read_sketch(noisy, JPEG)
    assert len(sketch.data) < SKETCH_STORED_BYTES_MAX
    with Image.open(io.BytesIO(sketch.data)) as kept:
        assert kept.size == (1024, 1024)


@pytest.mark.parametrize(
    ("size", "kept"), [((3000, 1000), (1773, 591)), ((4096, 300), (3782, 277)), ((800, 600), (800, 600))]
)
def test_a_sketch_keeps_its_shape_and_as_many_pixels_as_are_of_use(
    size: tuple[int, int], kept: tuple[int, int]
) -> None:
    output = io.BytesIO()
    drawn = Image.new("L", size, "white")
    drawn.paste(0, (0, 0, size[0] // 2, size[1]))
    drawn.save(output, "PNG")
    with Image.open(io.BytesIO(read_sketch(output.getvalue(), PNG).data)) as picture:
        assert picture.size == kept
        assert picture.size[0] * picture.size[1] <= STORED_PIXELS_MAX


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_stroke_is_dark_on_white_paper_in_every_mode_and_at_every_size(mode: str) -> None:
    for side in (64, 2048):
        output = io.BytesIO()
        drawn = Image.new("L", (side, side), 255)
        drawn.paste(0, (0, 0, side // 2, side))
        if mode == "I;16":
            picture = Image.frombytes("I;16", drawn.size, bytes(b for v in drawn.tobytes() for b in (v, v)))
        else:
            picture = drawn.convert("RGB").convert(mode) if mode == "CMYK" else drawn.convert(mode)
        picture.save(output, "JPEG" if mode == "CMYK" else "PNG")
        sketch = read_sketch(output.getvalue(), JPEG if mode == "CMYK" else PNG)
        with Image.open(io.BytesIO(sketch.data)) as kept:
            grey = kept.convert("L")
            assert grey.getpixel((2, 2)) < 30, side  # type: ignore[operator]
            assert grey.getpixel((kept.size[0] - 3, 2)) > 225, side  # type: ignore[operator]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_sketch_is_kept_as_it_was_taken(orientation: int) -> None:
    taken = Image.new("L", (96, 64), 255)
    taken.paste(0, (0, 0, 16, 16))
    output = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    taken.save(output, "PNG", exif=exif)
    expected = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
    sketch = read_sketch(output.getvalue(), PNG)
    with Image.open(io.BytesIO(sketch.data)) as kept:
        width, height = kept.size
        right, low = expected[orientation]
        assert (width > height) == (orientation < 5) == (sketch.width > sketch.height)
        corner = (width - 4 if right else 3, height - 4 if low else 3)
        assert kept.convert("L").getpixel(corner) == 0


def test_honest_files_of_every_format_with_all_that_cameras_write_are_taken() -> None:
    thumbnail = segment(0xE1, b"Exif\0\0" + b"x" * 60_000)
    profile = segment(0xE2, b"ICC_PROFILE\0\x01\x01" + b"p" * 60_000)
    jpeg = photograph(64, quality=80, progressive=True)
    for data, kind in (
        (drawing("WEBP"), WEBP),
        (drawing("PNG"), PNG),
        (jpeg[:2] + thumbnail + profile * 3 + jpeg[2:], JPEG),
        (jpeg + photograph(128, quality=80), JPEG),  # a second picture behind the end, as phones write
    ):
        assert read_sketch(data, kind).width == 1024
    assert inspect_sketch(progressive_jpeg(256, SCANS_MAX - 1), JPEG).width == 256


def rejected(data: bytes) -> None:
    with pytest.raises(ResultRejected):
        verify_result(data, sha256=digest(data))


def test_a_rented_machine_can_make_us_decode_no_more_than_a_stranger() -> None:
    for data in (CORPUS["scans"].data, CORPUS["apng"].data, CORPUS["chunks"].data):
        assert cpu_seconds_of(partial(rejected, data), CPU_SECONDS_MAX) < CPU_SECONDS_MAX


def test_a_decoder_is_not_shown_what_the_inspection_did_not_count() -> None:
    small = drawing("PNG", 64)
    found = inspect_sketch(small + b"behind the end" + png_of(64, 64, chunk(b"IDAT", b"")), PNG)
    assert found.data == small
