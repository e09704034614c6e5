"""Pictures from strangers and from rented workers: decoded, bounded, checked, and freed from all but their pixels.

A PNG whose pixels can be kept as they are compressed is put together anew from its checked parts; everything else is
re-encoded. All of this is CPU work on bytes of strangers: call it in a process that is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import struct
import zlib
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from generation.domain.errors import ResultBlank, ResultRejected, SketchRejected
from generation.domain.sketches import Sketch
from generation.images.blankness import BLANK, cell_side, has_contrast, is_blank
from generation.images.flattening import in_screen_colours, is_of_screens, on_white, plain
from generation.images.inspection import Animated, Inspected, TooComplex, Unreadable, inspect
from generation.images.pixels import Pixels, pixels_of

SKETCH_BYTES_MAX = 4_000_000
_SQUARE_MAX = 4096
SKETCH_PIXELS_MAX = _SQUARE_MAX * _SQUARE_MAX
STORED_PIXELS_MAX = 1024 * 1024
"""What the graph scales every sketch to: more would be stored and sent for nothing."""
SKETCH_STORED_BYTES_MAX = 4_000_000
"""Noise of that size has 3.2 MB as a PNG, whatever was uploaded: far less than the store serves."""
SIDE_MIN = 16
OUTPUT_SIDE = 1024
"""The longer side of an image at standard size, in pixels."""
RESULT_BYTES_MAX = 24_000_000
THUMBNAIL_SIDE = 320
PREVIEW_SIDE = 128
PREVIEW_BYTES_MAX = 16_000
FORMATS = {
    "image/png": "PNG",
    "image/x-png": "PNG",
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/pjpeg": "JPEG",
    "image/webp": "WEBP",
}
"""By the names that are in use for them. What a file is, its own bytes say."""
_TAKEN = "a PNG, JPEG or WebP"
_BEGINNINGS = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"RIFF": "WEBP"}
_OTHER_BEGINNINGS = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"%PDF", "a PDF"),
    (0, b"<svg", "an SVG"),
    (0, b"<?xml", "an SVG"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftyphe", "a HEIC photograph"),
    (4, b"ftypmif1", "a HEIC photograph"),
)
"""Where, and with which bytes, what people send instead begins."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: how the pixels are turned to be seen as they were taken."""
_UNREADABLE = (
    Unreadable,
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
_TOP_SHARES = (8, 2)
"""A drawing is decoded from its top, as far as it takes to see something: an eighth, a half, or all of it."""
_BLANK_SPREAD = 6
"""Below this difference between the darkest and the lightest value a picture shows nothing."""


class Result(NamedTuple):
    """A verified image and its thumbnail."""

    data: bytes | None
    """None where it is what was uploaded, byte for byte (`verify_upload`)."""
    thumbnail: bytes
    sha256: str
    size_bytes: int
    width: int
    height: int
    content_type: str = "image/png"


def inspect_sketch(data: bytes, content_type: str) -> Inspected:
    """What an upload says about itself, without decoding it: a few milliseconds whatever it is.

    Its bytes say what it is; `content_type` is only what to call something that is no picture of ours.
    Raises `SketchRejected` with a code and a sentence.
    """
    if len(data) > SKETCH_BYTES_MAX:
        raise too_large(len(data), data)
    kind = _sketch_kind(data, content_type)
    try:
        found = inspect(data, kind)
    except Unreadable as error:
        raise _unreadable() from error
    except Animated as error:
        raise SketchRejected("sketch_animated", "A sketch is one picture; this one moves.") from error
    except TooComplex as error:
        raise too_complex() from error
    if found.width * found.height > SKETCH_PIXELS_MAX or min(found.width, found.height) < SIDE_MIN:
        width, height = upright(found)
        raise SketchRejected(
            "sketch_size",
            f"The sketch has {width} × {height} pixels ({width * height:,}). It needs {SIDE_MIN} at least on each "
            f"side, and may have {SKETCH_PIXELS_MAX:,} in all at most: {_SQUARE_MAX} × {_SQUARE_MAX}, for example.",
        )
    return found


def too_large(size_bytes: int, data: bytes = b"") -> SketchRejected:
    """What is told to whoever sent too many bytes: how many they are, and how many pixels, if that can be seen."""
    pixels = ""
    with contextlib.suppress(Unreadable, Animated, TooComplex):
        width, height = upright(inspect(data, _kind_of(data)))
        pixels = f" and {width} × {height} pixels"
    detail = (
        f"The sketch has {size_bytes:,} bytes{pixels}. "
        f"It may have {SKETCH_BYTES_MAX:,} bytes and {_SQUARE_MAX} × {_SQUARE_MAX} pixels at most."
    )
    return SketchRejected("sketch_too_large", detail)


def _sketch_kind(data: bytes, content_type: str) -> str:
    try:
        return _kind_of(data)
    except Unreadable:
        pass
    start = data[:64].lstrip()
    is_ours = content_type.partition(";")[0].strip().lower() in FORMATS
    for at, begin, name in _OTHER_BEGINNINGS:
        if start[at:].lower().startswith(begin.lower()):
            code = "sketch_unreadable" if is_ours else "sketch_type"
            raise SketchRejected(code, f"This file is {name}. A sketch is {_TAKEN}.")
    if is_ours:
        raise _unreadable()
    raise SketchRejected("sketch_type", f"A sketch is {_TAKEN}.")


def read_sketch(data: bytes, content_type: str) -> Sketch:
    """Decode a sketch, scale it to what a graph uses, and re-encode it where it has to be. Raises `SketchRejected`."""
    found = inspect_sketch(data, content_type)
    try:
        output = _clean_sketch(found, _kind_of(data))
    except MemoryError as error:
        raise too_complex() from error
    except _UNREADABLE as error:
        raise _unreadable() from error
    if len(output) > SKETCH_STORED_BYTES_MAX:
        raise too_complex()
    width, height = output_size(*upright(found))
    return Sketch(output, hashlib.sha256(output).hexdigest(), width, height)


def read_upload(data: bytes, content_type: str) -> Sketch:
    """`read_sketch`, without the bytes if they are what was sent: whoever sent them has them."""
    sketch = read_sketch(data, content_type)
    return sketch._replace(data=b"") if sketch.data == data else sketch


def upright(found: Inspected) -> tuple[int, int]:
    """Width and height as the picture is looked at."""
    size = (found.width, found.height)
    return size if found.orientation < 5 else size[::-1]


def _unreadable() -> SketchRejected:
    return SketchRejected("sketch_unreadable", "The sketch is not a picture that can be read.")


def too_complex() -> SketchRejected:
    """What is told to whoever sent a file that takes too much to read."""
    detail = "Reading this sketch takes more than a sketch is worth. Save it as a plain PNG or JPEG."
    return SketchRejected("sketch_too_complex", detail)


def _clean_sketch(found: Inspected, kind: str) -> bytes:
    """A PNG on white paper, upright, as large as is kept: what was sent, if it is all of that already."""
    fits = kind == "PNG" and found.width * found.height <= STORED_PIXELS_MAX and found.orientation == 1
    pixels = pixels_of(found.data) if fits and is_of_screens(found.colours) else None
    kept = pixels.data if pixels is not None and pixels.opaque() else None
    if pixels is not None and kept is not None and _top_shows_something(pixels):
        return kept
    drawn = _drawn(found if pixels is None else found._replace(data=pixels.stored()), kind)
    if is_blank(drawn):
        raise SketchRejected("blank_sketch", BLANK)
    return kept or _encode(drawn, "PNG", compress_level=3)


def _top_shows_something(pixels: Pixels) -> bool:
    """Whether a part of an opaque picture is enough to see that it is not blank."""
    cell = cell_side(*pixels.size)
    for share in _TOP_SHARES:
        rows = -(-pixels.height // (share * cell)) * cell
        with Image.open(io.BytesIO(pixels.stored(min(rows, pixels.height))), formats=["PNG"]) as picture:
            if has_contrast(plain(picture, pixels.header[8]).convert("RGB"), cell):
                return True
    return False


def _drawn(found: Inspected, kind: str) -> Image.Image:
    with Image.open(io.BytesIO(found.data), formats=[kind]) as picture:
        if picture.size != (found.width, found.height):
            raise ValueError("the decoder sees another size")
        # A JPEG is asked for as much as is needed before it is decoded: an eighth of the work for large ones.
        scaled = plain(picture, found.data[24] if kind == "PNG" else 8)
        if found.width * found.height > STORED_PIXELS_MAX:
            scaled.thumbnail(_fitting(found.width, found.height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        scaled.load()
        flat = on_white(in_screen_colours(scaled, found.colours))
    turn = _TURNS.get(found.orientation)
    return flat if turn is None else flat.transpose(turn)


def _fitting(width: int, height: int) -> tuple[int, int]:
    """The same shape with as many pixels as are kept."""
    return (
        max(1, math.isqrt(STORED_PIXELS_MAX * width // height)),
        max(1, math.isqrt(STORED_PIXELS_MAX * height // width)),
    )


def output_size(width: int, height: int) -> tuple[int, int]:
    """The standard size of the same shape: longer side 1024, both sides multiples of 16, at most 4:1."""
    longer, shorter = max(width, height), min(width, height)
    small = max(OUTPUT_SIDE // 4, OUTPUT_SIDE * shorter // longer // 16 * 16)
    return (OUTPUT_SIDE, small) if width >= height else (small, OUTPUT_SIDE)


def verify_result(data: bytes, *, sha256: str, max_side: int = 4096) -> Result:
    """Check what a worker uploaded, and re-encode it where it has to be. Raises `ResultRejected`."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ResultRejected("the uploaded file is not the one that was reported")
    try:
        kind = _kind_of(data)
        found = inspect(data, kind)
        if max(found.width, found.height) > max_side or min(found.width, found.height) < SIDE_MIN:
            raise ResultRejected("the image has an impossible size")
        pixels = pixels_of(found.data) if kind == "PNG" else None
        file = found.data if pixels is None else pixels.stored()
        with Image.open(io.BytesIO(file), formats=[kind]) as picture:
            if picture.size != (found.width, found.height):
                raise ValueError("the decoder sees another size")
            # Served as it is compressed only if it holds nothing that is not shown.
            kept = pixels.data if pixels is not None and picture.mode in ("RGB", "L") else None
            if kind == "WEBP" and picture.mode == "RGB":
                kept = found.data
            flat = picture.convert("RGB")
            flat.info.clear()  # a colour called transparent would be saved again
    except (Animated, TooComplex) as error:
        raise ResultRejected("the image has more frames, scans or parts than a picture needs") from error
    except _UNREADABLE as error:
        raise ResultRejected("the uploaded file is not an image") from error
    factor = max(1, max(flat.size) // THUMBNAIL_SIDE)
    small = flat.reduce(factor)
    # Averages differ by less than the pixels do: most images need no second look.
    if _spread(small) < 2 * _BLANK_SPREAD and _spread(flat) < _BLANK_SPREAD:
        raise ResultBlank("the image is blank")
    width, height = flat.size
    clean = kept or _encode(flat, "PNG", compress_level=1)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    thumbnail = _encode(small, "WEBP", quality=82, method=0)
    content_type = "image/webp" if kept and kind == "WEBP" else "image/png"
    return Result(
        clean, thumbnail, hashlib.sha256(clean).hexdigest(), len(clean), width, height, content_type
    )


def verify_upload(data: bytes, *, sha256: str) -> Result:
    """`verify_result`, without the bytes if they are what was uploaded: they are stored already."""
    result = verify_result(data, sha256=sha256)
    return result._replace(data=None) if result.data == data else result


def _spread(picture: Image.Image) -> int:
    """Between the darkest and the lightest value."""
    low, high = picture.convert("L").getextrema()
    return int(high) - int(low)  # type: ignore[arg-type]


def _kind_of(data: bytes) -> str:
    """The format by the first bytes. Raises `Unreadable`."""
    for begin, kind in _BEGINNINGS.items():
        if data.startswith(begin):
            return kind
    raise Unreadable


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
