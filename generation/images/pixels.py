"""The pixels of a PNG that is served as it is compressed: checked, and inflated once.

Whoever inflates also decodes from what was inflated (`stored`), so that a file's data is walked through once. What can be
told without decoding is: whether every row can be decoded, and whether all of it is opaque.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from isal import isal_zlib

from generation.images.inspection import PNG_SIGNATURE, png_header

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_WITH_ALPHA = frozenset({4, 6})
_STORED_MAX = 65_535
_FILTER_MAX = 4
_PIECE_BYTES_MIN = 4_096
"""Data in smaller pieces is put together. Encoders write 8 kB or more at a time."""


class Pixels(NamedTuple):
    """A picture's pixels, and the file that holds them and nothing else."""

    data: bytes
    """The file, compressed as it was sent."""
    header: bytes
    """The body of its header."""
    palette: tuple[bytes, ...]
    """The body of its palette, if it has one."""
    rows: bytes
    """All rows, each behind the byte that says how it is filtered."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int.from_bytes(self.header[:4], "big"), self.height

    @property
    def height(self) -> int:
        """Number of rows."""
        return int.from_bytes(self.header[4:8], "big")

    @property
    def row_bytes(self) -> int:
        """Of one row, with its filter."""
        return len(self.rows) // self.height

    def stored(self, rows: int | None = None) -> bytes:
        """A PNG of the first rows, or of all, that is not compressed: a decoder need not inflate it again."""
        rows = self.height if rows is None else rows
        size, view = rows * self.row_bytes, memoryview(self.rows)
        parts: list[bytes | memoryview] = [b"\x78\x01"]
        for at in range(0, size, _STORED_MAX):
            block = view[at : min(at + _STORED_MAX, size)]
            parts += (struct.pack("<?HH", at + _STORED_MAX >= size, len(block), len(block) ^ 0xFFFF), block)
        parts.append(struct.pack("!I", isal_zlib.adler32(view[:size])))
        header = self.header[:4] + struct.pack("!I", rows) + self.header[8:]
        return _file(header, self.palette, b"".join(parts))

    def opaque(self) -> bool:
        """Whether nothing is hidden under transparent pixels. Of 8 bits where there is a channel for them.

        Where the row above is opaque, a row is if its channel is filtered to the bytes that 255 is filtered to.
        """
        if self.header[9] not in _WITH_ALPHA:
            return True
        channels, length = _CHANNELS[self.header[9]], self.row_bytes
        width = (length - 1) // channels
        expected = _opaque_channel(b"\xff", b"\x80", width)
        rows = self.rows
        for at in range(0, len(rows), length):
            if rows[at + channels : at + length : channels] != expected[rows[at]]:
                return False
            if at == 0:
                expected = _opaque_channel(b"\0", b"\0", width)
        return True


def _opaque_channel(above: bytes, averaged: bytes, width: int) -> tuple[bytes, ...]:
    """By filter (none, sub, up, average, Paeth): the bytes of a row whose channel is 255 throughout.

    `above` is 255 less what the row above says, `averaged` 255 less the mean of that and of 255.
    """
    rest = width - 1
    sub = b"\xff" + bytes(rest)
    first = b"\xff" if above == b"\xff" else b"\x80"
    paeth = sub if above == b"\xff" else bytes(width)
    return (b"\xff" * width, sub, above * width, first + averaged * rest, paeth)


def pixels_of(data: bytes) -> Pixels | None:
    """The pixels of a PNG, compressed as they are, with nothing else in it; None where that cannot be had.

    `data` is what `inspect` has left. Every checksum is checked, and the data must inflate to exactly the pixels: what
    hides behind its end, or is damaged, is to be encoded anew. So are 16 bits, interlaced rows and `tRNS`, which
    programs read differently. Inflates once, in no more memory than the pixels take, and decodes nothing.
    """
    width, height = png_header(data)
    depth, colour, interlaced = data[24], data[25], data[28]
    try:
        chunks = list(_checked_chunks(data))
    except (ValueError, struct.error):
        return None
    kept = {kind: body for kind, body in chunks if kind != b"IDAT"}
    pieces = [body for kind, body in chunks if kind == b"IDAT"]
    several = len(chunks) - len(pieces) != len(kept)
    if depth == 16 or interlaced or several or b"tRNS" in kept or kept[b"IEND"]:
        return None
    row_bytes = 1 + -(-width * depth * _CHANNELS[colour] // 8)
    deflated = b"".join(pieces)
    rows = _inflated(deflated, row_bytes * height)
    if rows is None or max(rows[::row_bytes]) > _FILTER_MAX:
        return None
    palette = (kept[b"PLTE"],) if colour == 3 and b"PLTE" in kept else ()
    plain = len(kept) == 2 + len(palette) and len(pieces) <= 1 + len(deflated) // _PIECE_BYTES_MIN
    clean = data if plain and _in_order(chunks) else _file(kept[b"IHDR"], palette, deflated)
    return Pixels(clean, kept[b"IHDR"], palette, rows)


def _in_order(chunks: list[tuple[bytes, bytes]]) -> bool:
    """Whether the data is in one row of pieces, behind everything but the end."""
    first = next(number for number, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    return all(kind == b"IDAT" for kind, _ in chunks[first:-1])


def _checked_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk. Raises `ValueError` where a checksum is wrong."""
    at = len(PNG_SIGNATURE)
    while at < len(data):
        length, kind = struct.unpack_from("!I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from("!I", data, at + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ValueError("a checksum is wrong")
        yield kind, body
        at += 12 + length


def _inflated(deflated: bytes, size_bytes: int) -> bytes | None:
    """So many bytes, if it inflates to exactly those, whole and with nothing behind its end."""
    inflater = isal_zlib.decompressobj()
    try:
        rows = inflater.decompress(deflated, size_bytes + 1)
    except isal_zlib.error:  # type: ignore[misc]
        return None
    whole = inflater.eof and len(rows) == size_bytes and not inflater.unused_data
    return rows if whole else None


def _file(header: bytes, palette: tuple[bytes, ...], deflated: bytes) -> bytes:
    parts = [(b"IHDR", header), *((b"PLTE", body) for body in palette), (b"IDAT", deflated), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return b"".join((struct.pack("!I", len(body)), kind, body, struct.pack("!I", checksum)))
