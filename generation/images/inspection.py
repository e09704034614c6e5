"""What a picture says about itself before anybody decodes it: size, scans, frames, parts.

A walk over the file's parts, never over its pixels: no more than a few milliseconds for any input. What a decoder
needs is copied out, and everything else (text, thumbnails, further pictures, whatever comes behind the end) is left
behind, never inflated. A colour profile is handed over apart, as it is.

PNG: W3C PNG (Third Edition). JPEG: ITU-T T.81, Annex B. WebP: RFC 9649. Orientation: TIFF 6.0, tag 274.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

PARTS_MAX = 4096
"""Chunks or segments of a file. 4 MB of PNG in chunks of 8 kB have 500."""
SCANS_MAX = 40
"""Scans of a progressive JPEG. Encoders write about ten; each costs a pass over the whole picture."""
EXIF_BYTES_MAX = 65_536
EXIF_ENTRIES_MAX = 512
PROFILE_BYTES_MAX = 1 << 20
"""Of a colour profile. Those of printers have half a megabyte."""
_ORIENTATION = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_COLOURS = frozenset({b"gAMA", b"sRGB", b"iCCP"})
_SRGB_DECLARED = 45_455
_ONE_FRAME = b"\0\0\0\1"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Where the data of a scan ends: stuffed bytes, restarts and padding are passed over."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive with Huffman codes: what cameras and browsers write."""
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - _FRAMES - {0xC4, 0xC8}
_JPEG_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xEE})
"""Huffman and quantisation tables, the restart interval, and Adobe's word on the colours."""
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0"
"""That it is one says how its colours are meant, before Adobe's word; its thumbnail says nothing."""
_WEBP_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_WEBP_ANIMATION = 0x02
_WEBP_ALPHA = 0x10


class Unreadable(Exception):
    """It is no picture of this format, or it is cut off."""


class Animated(Exception):
    """It moves: a drawing is one picture."""


class TooComplex(Exception):
    """It has more parts or scans than any picture needs."""


class Colours(NamedTuple):
    """What the numbers of the pixels stand for; without a word on it, sRGB."""

    profile: bytes = b""
    """ICC, as it stands in the file."""
    is_deflated: bool = False
    gamma_100000: int = 0
    """As a PNG says it; 0 where it does not, or says something better."""


class Inspected(NamedTuple):
    """What was found, and what to hand to a decoder."""

    width: int
    height: int
    orientation: int
    """1 to 8, as in EXIF; 1 is upright."""
    data: bytes
    """The file, cut down to what its pixels need."""
    colours: Colours


def inspect(data: bytes, kind: str) -> Inspected:
    """Look at a `PNG`, `JPEG` or `WEBP`. Raises `Unreadable`, `Animated`, `TooComplex`."""
    try:
        return _WALKS[kind](data)
    except (struct.error, IndexError) as error:
        raise Unreadable from error


def _count(parts: int) -> None:
    if parts > PARTS_MAX:
        raise TooComplex


# --- PNG ---


def _png(data: bytes) -> Inspected:
    if not data.startswith(PNG_SIGNATURE):
        raise Unreadable
    kept = [PNG_SIGNATURE]
    at, parts, orientation, pixels = 8, 0, 1, False
    colours = Colours()
    view = memoryview(data)
    width, height = png_header(data)
    while True:
        length, kind = struct.unpack_from("!I4s", data, at)
        end = at + 12 + length
        parts += 1
        _count(parts)
        if end > len(data) or (kind == b"IHDR") != (parts == 1):
            raise Unreadable
        body = view[at + 8 : end - 4]
        if kind == b"fdAT" or (kind == b"acTL" and bytes(body[:4]) != _ONE_FRAME):
            raise Animated
        if kind == b"eXIf":
            orientation = _orientation(body)
        elif kind in _PNG_COLOURS and not pixels:
            colours = _png_colours(kind, bytes(body), colours)
        pixels = pixels or kind == b"IDAT"
        if kind in _PNG_KEPT:
            kept.append(bytes(view[at:end]))
        elif not kind[0] & 0x20:  # a critical chunk that nobody knows
            raise Unreadable
        if kind == b"IEND":
            break
        at = end
    if not pixels:
        raise Unreadable
    return Inspected(width, height, orientation, b"".join(kept), colours)


def _png_colours(kind: bytes, body: bytes, known: Colours) -> Colours:
    """A profile comes before sRGB, and that before a gamma, in whichever order they stand."""
    if kind == b"gAMA" and len(body) == 4 and not known.profile and known.gamma_100000 != _SRGB_DECLARED:
        return known._replace(gamma_100000=int.from_bytes(body))
    if kind == b"sRGB" and not known.profile:
        return known._replace(gamma_100000=_SRGB_DECLARED)
    if kind == b"iCCP":
        return Colours(body[body.find(b"\0") + 2 :], is_deflated=True)
    return known


def png_header(data: bytes) -> tuple[int, int]:
    """Width and height. Raises `Unreadable`, `struct.error`."""
    length, kind, width, height, depth, colour = struct.unpack_from("!I4sIIBB", data, 8)
    if length != 13 or kind != b"IHDR" or depth not in _PNG_DEPTHS.get(colour, ()):
        raise Unreadable
    return width, height


# --- JPEG ---


class _Jpeg:
    """A JPEG on its way through `_jpeg`."""

    def __init__(self) -> None:
        self.kept = [b"\xff\xd8"]
        self.size: tuple[int, int] | None = None
        self.orientation = 1
        self.scans = 0
        self.progressive = False
        self.exif_seen = False
        self.profile: dict[int, bytes] = {}
        """Its parts, by number."""

    def take(self, marker: int, whole: memoryview) -> None:
        """Look at one segment; `whole` begins with its marker."""
        if marker in _FRAMES:
            self._frame(marker, whole)
        elif marker in _OTHER_FRAMES:
            raise Unreadable
        elif marker == 0xDA:
            self.scans += 1
            if self.scans > (SCANS_MAX if self.progressive else 4):
                raise TooComplex
            if self.size is None:
                raise Unreadable
        elif marker == 0xE1 and bytes(whole[4:10]) == b"Exif\0\0" and not self.exif_seen:
            self.orientation, self.exif_seen = _orientation(whole[10:]), True
        elif marker == 0xE2 and bytes(whole[4:16]) == b"ICC_PROFILE\0" and len(whole) > 18:
            self.profile.setdefault(whole[16], bytes(whole[18:]))
        elif marker == 0xE0 and bytes(whole[4:9]) == b"JFIF\0":
            self.kept.append(_JFIF)
        if marker in _JPEG_TABLES or marker in _FRAMES or marker == 0xDA:
            self.kept.append(bytes(whole))

    def colours(self) -> Colours:
        """As its profile has them, put together from its parts."""
        profile = b"".join(self.profile[number] for number in sorted(self.profile))
        return Colours(profile if len(profile) <= PROFILE_BYTES_MAX else b"")

    def _frame(self, marker: int, whole: memoryview) -> None:
        precision, height, width, components = struct.unpack_from("!BHHB", whole, 4)
        if self.size is not None or precision != 8 or components not in (1, 3, 4):
            raise Unreadable
        self.size, self.progressive = (width, height), marker == 0xC2


def _jpeg(data: bytes) -> Inspected:
    if not data.startswith(b"\xff\xd8\xff"):
        raise Unreadable
    found, at, parts, view = _Jpeg(), 2, 0, memoryview(data)
    while True:
        parts += 1
        _count(parts)
        if data[at] != 0xFF:
            raise Unreadable
        marker = data[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
            continue
        if marker == 0xD9:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            raise Unreadable
        (length,) = struct.unpack_from("!H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise Unreadable
        found.take(marker, view[at:end])
        at = end
        if marker == 0xDA:
            following = _MARKER.search(data, at)
            if following is None:  # cut off
                raise Unreadable
            found.kept.append(bytes(view[at : following.start()]))
            at = following.start()
    if found.size is None or not found.scans:
        raise Unreadable
    found.kept.append(b"\xff\xd9")
    return Inspected(*found.size, found.orientation, b"".join(found.kept), found.colours())


# --- WebP ---


def _webp(data: bytes) -> Inspected:
    riff, length, name = struct.unpack_from("<4sI4s", data)
    if (riff, name) != (b"RIFF", b"WEBP") or length + 8 > len(data):
        raise Unreadable
    kept: list[bytes] = []
    canvas: tuple[int, int] | None = None
    pixels: tuple[int, int] | None = None
    at, parts, orientation, profile, view = 12, 0, 1, b"", memoryview(data)
    while at + 8 <= length + 8:
        kind, size = struct.unpack_from("<4sI", data, at)
        end = at + 8 + size + size % 2
        parts += 1
        _count(parts)
        if at + 8 + size > len(data):
            raise Unreadable
        body = view[at + 8 : at + 8 + size]
        if kind in (b"ANIM", b"ANMF") or (kind == b"VP8X" and body[0] & _WEBP_ANIMATION):
            raise Animated
        if kind == b"VP8X":
            canvas = _canvas(body)
            kept.append(_webp_chunk(kind, bytes([body[0] & _WEBP_ALPHA]) + bytes(body[1:])))
        elif kind in _WEBP_PIXELS:
            if kind != b"ALPH":
                if pixels is not None:
                    raise Unreadable
                pixels = _lossless_size(body) if kind == b"VP8L" else _lossy_size(body)
            kept.append(_webp_chunk(kind, bytes(body)))
        elif kind == b"ICCP" and size <= PROFILE_BYTES_MAX:
            profile = bytes(body)
        elif kind == b"EXIF":
            orientation = _orientation(body[6:] if bytes(body[:6]) == b"Exif\0\0" else body)
        at = end
    if pixels is None or (canvas is not None and canvas != pixels):
        raise Unreadable
    body_bytes = b"WEBP" + b"".join(kept)
    whole = b"RIFF" + struct.pack("<I", len(body_bytes)) + body_bytes
    return Inspected(*pixels, orientation, whole, Colours(profile))


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _canvas(body: memoryview) -> tuple[int, int]:
    width, height = int.from_bytes(body[4:7], "little"), int.from_bytes(body[7:10], "little")
    if len(body) != 10:
        raise Unreadable
    return width + 1, height + 1


def _lossless_size(body: memoryview) -> tuple[int, int]:
    signature, bits = struct.unpack_from("<BI", body)
    if signature != 0x2F:
        raise Unreadable
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _lossy_size(body: memoryview) -> tuple[int, int]:
    start, width, height = struct.unpack_from("<3sHH", body, 3)
    if start != b"\x9d\x01\x2a" or body[0] & 1:  # the first frame of a picture stands alone
        raise Unreadable
    return width & 0x3FFF, height & 0x3FFF


# --- EXIF ---


def _orientation(exif: memoryview) -> int:
    """How a camera was held; 1 where that is not said or makes no sense."""
    exif = exif[:EXIF_BYTES_MAX]
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(min(entries, EXIF_ENTRIES_MAX)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at + 2 + entry * 12)
            if tag == _ORIENTATION:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


_WALKS: dict[str, Callable[[bytes], Inspected]] = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}
