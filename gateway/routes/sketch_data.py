"""The bytes of a drawing, from whichever base64 it came in: plain, URL-safe, wrapped, unpadded, or as a data URL."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from gateway.routes.generation_shapes import SketchIn
from generation.domain.errors import SketchRejected
from generation.images.checking import SKETCH_BYTES_MAX, too_large

PREFIX_MAX = 256
"""Characters of a data URL before its comma."""
TEXT_MAX = SKETCH_BYTES_MAX * 4 // 3 * 78 // 76 + 8
"""Characters of a sketch's base64: in lines of 76, with two for the end of each."""
_SPACE = b" \t\r\n"
_PLAIN = bytes.maketrans(b"-_", b"+/")


def sent_data(sent: SketchIn) -> bytes:
    """The bytes of a drawing, bounded before they are decoded. Raises `SketchRejected`."""
    try:
        text = sent.data.encode("ascii")
    except UnicodeEncodeError as error:
        raise _not_base64() from error
    text = _without_prefix(text)
    if len(text) > TEXT_MAX:
        raise too_large(len(text) * 3 // 4)
    return _decoded(text)


def _without_prefix(text: bytes) -> bytes:
    """What a data URL carries; other text as it is."""
    start = text[: PREFIX_MAX + 64].lstrip(_SPACE)[:PREFIX_MAX]
    if start[:5].lower() != b"data:":
        return text
    prefix, comma, _ = start.partition(b",")
    if not comma or not prefix.rstrip(_SPACE).lower().endswith(b";base64"):
        raise SketchRejected(
            "sketch_unreadable", "The sketch's data URL is not one in base64: data:image/png;base64,…"
        )
    rest = text[text.index(b",") + 1 :]
    return unquote_to_bytes(rest) if b"%" in rest[:TEXT_MAX] else rest


def _decoded(text: bytes) -> bytes:
    plain = text.translate(_PLAIN, _SPACE).rstrip(b"=")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _not_base64() from error


def _not_base64() -> SketchRejected:
    return SketchRejected(
        "sketch_unreadable",
        "The sketch's data is not base64. Plain or URL-safe, wrapped, unpadded, or as a data URL: all are taken.",
    )
