"""Pictures that cost more to read than they are worth, and honest ones that look like them. All made here."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"


class Hostile(NamedTuple):
    """A file, what it is said to be, and the code of the refusal that it has earned."""

    name: str
    data: bytes
    content_type: str
    code: str


# --- PNG ---


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def png_of(
    width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, interlace: int = 0
) -> bytes:
    """A PNG of these chunks between a header and the end."""
    header = struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"".join((PNG_SIGNATURE, chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")))


def rows(width: int, height: int, *, filtered: int = 0) -> bytes:
    """Black rows of one byte per pixel, deflated."""
    return zlib.compress((bytes([filtered]) + bytes(width)) * height, 9)


def png_bomb(side: int) -> bytes:
    """side × side black pixels of one bit, in a few kilobytes."""
    data = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    return png_of(side, side, chunk(b"IDAT", data), depth=1)


def png_in_pieces(count: int) -> bytes:
    """A picture whose data comes in as many chunks."""
    data = rows(64, 64)
    return png_of(64, 64, *(chunk(b"IDAT", b"") for _ in range(count)), chunk(b"IDAT", data))


def png_with_text_bomb(inflated: int) -> bytes:
    """Compressed text that would become that many bytes, beside a small drawing."""
    text = b"Comment\0\0" + zlib.compress(b"a" * inflated, 9)
    profile = b"icc\0\0" + zlib.compress(b"b" * inflated, 9)
    return png_of(64, 64, chunk(b"iCCP", profile), chunk(b"zTXt", text), chunk(b"IDAT", _drawn_rows(64)))


def png_with_endless_rows(inflated: int) -> bytes:
    """Pixel data that inflates to far more than the picture has room for."""
    return png_of(64, 64, chunk(b"IDAT", zlib.compress(_drawn(64) + b"\0" * inflated, 9)))


def animated_png(frames: int) -> bytes:
    """An APNG."""
    output = io.BytesIO()
    stills = [Image.new("L", (64, 64), shade % 256) for shade in range(frames)]
    stills[0].save(output, "PNG", save_all=True, append_images=stills[1:])
    return output.getvalue()


def _drawn(side: int) -> bytes:
    return b"".join(b"\0" + bytes(255 if (x + y) % 9 else 0 for x in range(side)) for y in range(side))


def _drawn_rows(side: int) -> bytes:
    return zlib.compress(_drawn(side), 9)


# --- JPEG ---


def segment(marker: int, data: bytes) -> bytes:
    """One segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack("!H", len(data) + 2) + data


def progressive_jpeg(side: int, scans: int) -> bytes:
    """A grey progressive JPEG in which each further scan says "nothing new" of every block.

    Sixty bytes a scan for the sender, a pass over all coefficients for the reader.
    """
    quantisation = segment(0xDB, b"\0" + b"\x01" * 64)
    frame = segment(0xC2, struct.pack("!BHHB", 8, side, side, 1) + b"\x01\x11\x00")
    blocks = (side // 8) ** 2
    zero = segment(0xC4, b"\x00" + b"\x01" + b"\0" * 15 + b"\x00")
    first = segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + b"\0" * (blocks // 8)
    ends = segment(0xC4, b"\x10" + b"\x01" + b"\0" * 15 + b"\xe0")
    bits = ("0" + "1" * 14) * (blocks // 32767 + 1)
    packed = int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8))
    further = segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + packed.replace(b"\xff", b"\xff\x00")
    return b"".join((b"\xff\xd8", quantisation, frame, zero, first, ends, further * scans, b"\xff\xd9"))


def jpeg_of_many_segments(count: int) -> bytes:
    """A small JPEG with as many comments."""
    data = photograph(64, quality=80)
    return data[:2] + segment(0xFE, b"") * count + data[2:]


def photograph(side: int, *, quality: int, seed: int = 1, progressive: bool = False) -> bytes:
    """What a noisy camera makes: an honest JPEG that nothing can compress."""
    noise = random.Random(seed).randbytes(side * side)
    output = io.BytesIO()
    Image.frombytes("L", (side, side), noise).convert("RGB").save(
        output, "JPEG", quality=quality, progressive=progressive
    )
    return output.getvalue()


# --- WebP ---


def animated_webp(frames: int) -> bytes:
    """A WebP that moves."""
    output = io.BytesIO()
    stills = [Image.new("L", (64, 64), shade * 3 % 256) for shade in range(frames)]
    stills[0].save(output, "WEBP", save_all=True, append_images=stills[1:], duration=50)
    return output.getvalue()


def webp_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def lossless_header(width: int, height: int) -> bytes:
    """The first bytes of a VP8L stream, and nothing behind them."""
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + b"\0" * 20


# --- drawings ---


def drawing(kind: str = "PNG", side: int = 512) -> bytes:
    """Black lines on white."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).line((0, 0, side, side // 2, side // 3, side), fill="black", width=5)
    output = io.BytesIO()
    image.save(output, kind)
    return output.getvalue()


# --- all of it ---


def corpus() -> Sequence[Hostile]:
    """Every kind of file that costs more than it is worth, with the code that it is refused by."""
    small = drawing(side=64)
    return (
        Hostile("scans", progressive_jpeg(4096, 4000), JPEG, "sketch_too_complex"),
        Hostile("segments", jpeg_of_many_segments(100_000), JPEG, "sketch_too_complex"),
        Hostile("chunks", png_in_pieces(200_000), PNG, "sketch_too_complex"),
        Hostile(
            "riff-chunks", webp_of(*((b"XMP ", b"") for _ in range(200_000))), WEBP, "sketch_too_complex"
        ),
        Hostile("apng", animated_png(40), PNG, "sketch_animated"),
        Hostile("moving-webp", animated_webp(40), WEBP, "sketch_animated"),
        Hostile("png-bomb", png_bomb(20_000), PNG, "sketch_size"),
        Hostile(
            "png-bomb-in-limits-of-int", png_of(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"")), PNG, "sketch_size"
        ),
        Hostile("png-strip", png_of(16_000_000, 1, chunk(b"IDAT", b"")), PNG, "sketch_size"),
        Hostile("wide-jpeg", progressive_jpeg(8192, 1), JPEG, "sketch_size"),
        Hostile("wide-webp", webp_of((b"VP8L", lossless_header(16384, 16384))), WEBP, "sketch_size"),
        Hostile("gif", b"GIF89a" + b"\x40\0\x40\0" + b"\0" * 100, PNG, "sketch_unreadable"),
        Hostile("gif-by-name", b"GIF89a" + b"\x40\0\x40\0" + b"\0" * 100, "image/gif", "sketch_type"),
        Hostile("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "sketch_type"),
        Hostile("cut", small[: len(small) // 2], PNG, "sketch_unreadable"),
        Hostile("cut-jpeg", photograph(64, quality=80)[:-40], JPEG, "sketch_unreadable"),
        Hostile("no-data", png_of(64, 64), PNG, "sketch_unreadable"),
        Hostile("two-frames", _twice(photograph(64, quality=80)), JPEG, "sketch_unreadable"),
        Hostile(
            "arithmetic",
            photograph(64, quality=80).replace(b"\xff\xc0", b"\xff\xc9", 1),
            JPEG,
            "sketch_unreadable",
        ),
        Hostile("two-headers", small[:33] + small[8:], PNG, "sketch_unreadable"),
        Hostile(
            "no-height",
            progressive_jpeg(64, 1).replace(b"\x08\0\x40\0\x40", b"\x08\0\0\0\x40"),
            JPEG,
            "sketch_size",
        ),
        Hostile("large", b"\x89PNG" + bytes(4_000_001), PNG, "sketch_too_large"),
    )


def _twice(data: bytes) -> bytes:
    """Two frames before one end."""
    return data[:-2] + data[2:]


def mutants(seed: int, count: int) -> Iterator[tuple[bytes, str]]:
    """Honest and hostile files with some of their bytes changed, moved, doubled or cut away."""
    chance = random.Random(seed)
    seeds = [
        (drawing("PNG", 96), PNG),
        (drawing("JPEG", 96), JPEG),
        (drawing("WEBP", 96), WEBP),
        (progressive_jpeg(512, 12), JPEG),
        (photograph(128, quality=90, progressive=True), JPEG),
        (animated_png(3), PNG),
        (animated_webp(3), WEBP),
        (png_with_text_bomb(100_000), PNG),
    ]
    for _ in range(count):
        data, content_type = chance.choice(seeds)
        yield _mutated(chance, bytearray(data)), content_type


def _mutated(chance: random.Random, data: bytearray) -> bytes:
    for _ in range(chance.randint(1, 6)):
        at, length = chance.randrange(len(data)), chance.randint(1, 64)
        match chance.randrange(6):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x10\0")
                )
            case 2:
                data[at : at + length] = chance.randbytes(length)
            case 3:
                data[at:at] = data[at : at + length] * chance.randint(1, 40)
            case 4:
                del data[at : at + length]
            case _:
                source = chance.randrange(len(data))
                data[at:at] = data[source : source + length]
        if len(data) < 2:
            break
    return bytes(data)
