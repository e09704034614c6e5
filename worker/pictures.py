"""Small image work: the sketch as the graph needs it, previews, a sketch for the boot gate."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import accumulate

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from worker.comfyui.faults import SketchRefused
from worker.protocol import PREVIEW_LIMIT_BYTES, PREVIEW_SIDE_PIXELS

_PIXEL_LIMIT = 4096 * 4096
_CELLS = 192
_CONTRAST_MIN = 16
_HAIRLINE_CONTRAST_MIN = 48
_HAIRLINE_PIXELS_MIN = 16
"""As the API refuses sketches by (`generation.images.blankness`), so that none is taken there and refused here."""

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


class SketchUnreadable(SketchRefused):
    """It cannot be decoded, or has too many pixels."""

    code = "sketch_unreadable"
    message = "The sketch is not a readable image."


class SketchBlank(SketchRefused):
    """Nothing on it stands out: there is nothing to follow."""

    code = "blank_sketch"
    message = "The sketch is empty."


def fitted_sketch(content: bytes, width: int, height: int) -> bytes:
    """The sketch as an opaque PNG of exactly this size, padded with paper white.

    Transparency becomes white here, because ComfyUI's LoadImage would make it black.
    Raises `SketchUnreadable`, `SketchBlank`.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _PIXEL_LIMIT:
                raise SketchUnreadable("too many pixels")
            picture = image.convert("RGBA")
    except _UNREADABLE as fault:
        raise SketchUnreadable(type(fault).__name__) from fault
    paper = Image.new("RGBA", picture.size, "white")
    paper.alpha_composite(picture)
    drawn = paper.convert("RGB")
    if sketch_is_blank(drawn):
        raise SketchBlank
    fitted = ImageOps.pad(drawn, (width, height), Image.Resampling.LANCZOS, color="white")
    return _png(fitted)


def sketch_is_blank(picture: Image.Image) -> bool:
    """Whether no line stands out: neither once single pixels are averaged away, nor as a hairline. It is opaque."""
    cell = -(-max(picture.size) // _CELLS)
    seen = picture.reduce(cell) if cell > 1 else picture
    if any(_spread(band) >= _CONTRAST_MIN for band in seen.split()):
        return False
    return all(_spread(band, _HAIRLINE_PIXELS_MIN) < _HAIRLINE_CONTRAST_MIN for band in picture.split())


def small_preview(content: bytes) -> bytes | None:
    """A JPEG of at most 128 pixels a side, or None when the frame is not an image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            picture = image.convert("RGB")
    except _UNREADABLE:
        return None
    picture.thumbnail((PREVIEW_SIDE_PIXELS, PREVIEW_SIDE_PIXELS), Image.Resampling.BOX)
    for quality in (70, 40):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= PREVIEW_LIMIT_BYTES:
            return buffer.getvalue()
    return None


def looks_blank(content: bytes) -> bool:
    """Whether an image is unreadable or of one colour: a broken worker's black picture."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _one_colour(image.convert("RGB"))
    except _UNREADABLE:
        return True


def _one_colour(image: Image.Image) -> bool:
    return all(_spread(band) < 3 for band in image.split())


def _spread(band: Image.Image, pixels: int = 1) -> int:
    """Between the values that so many pixels, at least, are as dark as, and as light as."""
    counts = band.histogram()
    darker = sum(count < pixels for count in accumulate(counts))
    lighter = sum(count < pixels for count in accumulate(reversed(counts)))
    return 255 - lighter - darker


def as_webp(content: bytes, quality: int) -> bytes:
    """The image as a WebP of this quality, a tenth of its size as a PNG; as it is, if it has transparent pixels or is none
    that can be read: the API says what it makes of it."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in ("RGB", "L"):
                return content
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
    except _UNREADABLE:
        return content
    return buffer.getvalue()


def content_type_of(content: bytes) -> str:
    """By the first bytes: PNG, JPEG or WebP."""
    if content.startswith(b"\xff\xd8"):
        return "image/jpeg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "image/png"


def gate_sketch(size: int) -> bytes:
    """A few strokes for the boot gate's test generation."""
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    quarter = size // 4
    draw.ellipse((quarter, quarter, 3 * quarter, 3 * quarter), outline="black", width=max(2, size // 64))
    draw.line((0, 3 * quarter, size, 3 * quarter), fill="black", width=max(2, size // 64))
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
