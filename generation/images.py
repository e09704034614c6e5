"""Pictures from strangers and from rented boxes: decoded, bounded, checked, re-encoded.

Nothing that arrives is passed on as it came. All of this is CPU work: call it in a thread.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from generation.errors import ResultRejected, SketchRejected

SKETCH_BYTES_MAX = 4_000_000
SKETCH_PIXELS_MAX = 4096 * 4096
SIDE_MIN = 16
OUTPUT_SIDE = 1024
"""The longer side of an image at standard size, in pixels."""
RESULT_BYTES_MAX = 24_000_000
THUMBNAIL_SIDE = 320
PREVIEW_SIDE = 128
PREVIEW_BYTES_MAX = 16_000
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    ArithmeticError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises at bytes that only look like a picture."""
_BLANK_SPREAD = 6
"""Below this difference between the darkest and the lightest value a picture shows nothing."""


class Sketch(NamedTuple):
    """A sketch as we keep it: a re-encoded PNG without metadata."""

    data: bytes
    sha256: str
    width: int
    """Width of the image to be made, a multiple of 16."""
    height: int


class Result(NamedTuple):
    """A verified image and its thumbnail."""

    data: bytes
    thumbnail: bytes
    sha256: str
    width: int
    height: int


def read_sketch(data: bytes, content_type: str) -> Sketch:
    """Decode and re-encode a sketch. Raises `SketchRejected` with a code and a sentence."""
    expected = FORMATS.get(content_type)
    if expected is None:
        raise SketchRejected("sketch_type", f"A sketch must be one of {', '.join(FORMATS)}.")
    if len(data) > SKETCH_BYTES_MAX:
        raise SketchRejected("sketch_too_large", f"A sketch may have {SKETCH_BYTES_MAX} bytes at most.")
    try:
        picture = _decode(data, expected)
    except _UNREADABLE as error:
        raise SketchRejected("sketch_unreadable", "The sketch is not a picture that can be read.") from error
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))
    output = io.BytesIO()
    flat.save(output, "PNG", compress_level=3)
    width, height = output_size(*flat.size)
    return Sketch(output.getvalue(), hashlib.sha256(output.getvalue()).hexdigest(), width, height)


def _decode(data: bytes, expected: str) -> Image.Image:
    # Opening reads the header only: what is too large is never decoded.
    with Image.open(io.BytesIO(data), formats=[expected]) as picture:
        width, height = picture.size
        if width * height > SKETCH_PIXELS_MAX:
            raise ValueError("too many pixels")
        if min(width, height) < SIDE_MIN:
            raise ValueError("too small")
        picture.load()
        return ImageOps.exif_transpose(picture).convert("RGBA")


def output_size(width: int, height: int) -> tuple[int, int]:
    """The standard size of the same shape: longer side 1024, both sides multiples of 16, at most 4:1."""
    longer, shorter = max(width, height), min(width, height)
    small = max(OUTPUT_SIDE // 4, OUTPUT_SIDE * shorter // longer // 16 * 16)
    return (OUTPUT_SIDE, small) if width >= height else (small, OUTPUT_SIDE)


def verify_result(data: bytes, *, sha256: str, max_side: int = 4096) -> Result:
    """Check what a worker uploaded, and re-encode it. Raises `ResultRejected`."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ResultRejected("the uploaded file is not the one that was reported")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as picture:
            if max(picture.size) > max_side or min(picture.size) < SIDE_MIN:
                raise ResultRejected("the image has an impossible size")
            flat = picture.convert("RGB")
    except _UNREADABLE as error:
        raise ResultRejected("the uploaded file is not an image") from error
    low, high = flat.convert("L").getextrema()
    if int(high) - int(low) < _BLANK_SPREAD:  # type: ignore[arg-type]
        raise ResultRejected("the image is blank")
    width, height = flat.size
    clean = _encode(flat, "PNG", compress_level=1)
    flat.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return Result(clean, _encode(flat, "WEBP", quality=82), hashlib.sha256(clean).hexdigest(), width, height)


def is_preview(data: bytes) -> bool:
    """Whether this is a JPEG of at most 128 pixels a side: what may be shown before it is paid for.

    Reads the header only; a browser that is sent a broken picture shows none.
    """
    if len(data) > PREVIEW_BYTES_MAX:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            return max(picture.size) <= PREVIEW_SIDE
    except _UNREADABLE:
        return False


def _encode(picture: Image.Image, kind: str, **options: int) -> bytes:
    output = io.BytesIO()
    picture.save(output, kind, **options)
    return output.getvalue()
