"""Whatever bytes are uploaded as a picture: they are one, or are refused by name; so in the API, so in the worker."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io

import pytest
from hypothesis import strategies as st
from PIL import Image

from gateway.routes.generation_shapes import SketchIn
from gateway.routes.sketch_data import sent_data
from generation.domain.errors import ResultRejected, SketchRejected
from generation.images.checking import is_preview, read_sketch, verify_result
from tests.fuzz.fuzzing import fuzzed
from tests.hostile.pictures import chunk, progressive_jpeg, webp_of
from tests.pictures.kinds import kinds, refused_kinds
from worker.comfyui.faults import SketchRefused
from worker.pictures import as_webp, fitted_sketch, looks_blank, small_preview

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
"""Pillow warns of what it passes over: damaged EXIF, for example."""

SAMPLES = [kind.data for kind in (*kinds().values(), *refused_kinds().values()) if len(kind.data) < 20_000]
SAMPLES += [progressive_jpeg(64, 3), webp_of((b"VP8X", bytes(10)), (b"ALPH", b"\0"), (b"VP8 ", b"\0" * 10))]
WHOLE = [{"data": data} for data in SAMPLES]
PIECES = st.sampled_from(
    [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xda", b"\xff\xc2", b"ANMF", b"Exif\0\0"]
) | st.sampled_from([chunk(b"tRNS", b"\0" * 6), chunk(b"iCCP", b"a\0\0x"), chunk(b"gAMA", b"\0" * 4)])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A picture with some of its bytes changed, left out or put in; or any bytes."""
    data = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, min(len(data), draw(st.sampled_from([40, 200, 20_000])))))
        removed = draw(st.integers(0, 6))
        data = data[:at] + draw(st.binary(max_size=4) | PIECES) + data[at + removed :]
    return data if draw(st.integers(0, 9)) else draw(st.binary(max_size=80))


@fuzzed(
    *({**one, "declared": ""} for one in WHOLE),
    data=files(),
    declared=st.sampled_from(["", "image/png", "image/gif"]),
)
def test_an_upload_is_a_sketch_or_refused(data: bytes, declared: str) -> None:
    with contextlib.suppress(SketchRejected):
        sketch = read_sketch(data, declared)
        with Image.open(io.BytesIO(sketch.data), formats=["PNG"]) as picture:
            picture.load()
        fitted_sketch(sketch.data, 64, 64)  # what was taken is never refused afterwards


@fuzzed(*WHOLE, data=files())
def test_a_workers_file_is_an_image_or_refused(data: bytes) -> None:
    with contextlib.suppress(ResultRejected):
        verify_result(data, sha256=hashlib.sha256(data).hexdigest())
    is_preview(data)


@fuzzed(*WHOLE, data=files())
def test_a_worker_reads_a_picture_or_refuses_it(data: bytes) -> None:
    with contextlib.suppress(SketchRefused):
        fitted_sketch(data, 64, 64)
    small_preview(data)
    looks_blank(data)
    as_webp(data, 80)


def wrapped(data: bytes) -> st.SearchStrategy[str]:
    """Base64 as it comes, or nearly."""
    text = base64.b64encode(data).decode()
    return st.sampled_from(
        [text, text.rstrip("="), f"data:image/png;base64,{text}", f"data:{text}", text.replace("A", "%41")]
    )


@fuzzed(
    text=st.binary(max_size=40).flatmap(wrapped)
    | st.text(max_size=300)
    | st.from_regex(r"data:.*,[A-Za-z+/=%]*")
)
def test_a_drawing_in_base64_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(SketchRejected):
        assert isinstance(sent_data(SketchIn(content_type="", data=text)), bytes)
