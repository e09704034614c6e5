"""What is told of a PNG's pixels without decoding them is what a decoder finds."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image, ImageDraw

from generation.domain.errors import SketchRejected
from generation.images.checking import read_sketch
from generation.images.inspection import PNG_SIGNATURE
from generation.images.pixels import pixels_of
from tests.hostile.pictures import chunk

WIDTH, HEIGHT = 24, 20
_COLOURS = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}


def filtered(image: Image.Image, filters: list[int]) -> bytes:
    """All rows of a picture, filtered as is said (W3C PNG, 9.2)."""
    step, length = len(image.getbands()), image.width * len(image.getbands())
    plain, above, rows = image.tobytes(), bytes(length), bytearray()
    for number, kind in enumerate(filters):
        row = plain[number * length : (number + 1) * length]
        rows.append(kind)
        for at, value in enumerate(row):
            left, corner = (row[at - step], above[at - step]) if at >= step else (0, 0)
            rows.append((value - predicted(kind, left, above[at], corner)) % 256)
        above = row
    return bytes(rows)


def predicted(kind: int, left: int, above: int, corner: int) -> int:
    nearest = min((left, above, corner), key=lambda value: abs(left + above - corner - value))
    return (0, left, above, (left + above) // 2, nearest)[kind]


def written(image: Image.Image, rows: bytes, *, deflated: bytes | None = None) -> bytes:
    header = struct.pack("!IIBBBBB", *image.size, 8, _COLOURS[image.mode], 0, 0, 0)
    body = zlib.compress(rows) if deflated is None else deflated
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def painted(mode: str, chance: random.Random) -> Image.Image:
    """Noise, opaque throughout."""
    size = len(Image.new(mode, (1, 1)).getbands()) * WIDTH * HEIGHT
    image = Image.frombytes(mode, (WIDTH, HEIGHT), chance.randbytes(size))
    if "A" in image.getbands():
        image.putalpha(255)
    return image


@pytest.mark.parametrize("mode", _COLOURS)
@pytest.mark.parametrize("filters", [*([kind] * HEIGHT for kind in range(5)), "mixed"], ids=str)
def test_an_opaque_picture_is_known_however_its_rows_are_filtered(
    mode: str, filters: list[int] | str
) -> None:
    chance = random.Random(str(filters))
    kinds = filters if isinstance(filters, list) else [chance.randrange(5) for _ in range(HEIGHT)]
    image = painted(mode, chance)
    pixels = pixels_of(written(image, filtered(image, kinds)))
    assert pixels is not None
    assert pixels.opaque()
    for rows in (1, 7, HEIGHT):
        with Image.open(io.BytesIO(pixels.stored(rows))) as top:
            assert top.tobytes() == image.crop((0, 0, WIDTH, rows)).tobytes()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_single_pixel_that_is_not_opaque_is_found_wherever_it_is(mode: str) -> None:
    chance = random.Random(mode)
    for x, y in [(0, 0), (WIDTH - 1, 0), (0, HEIGHT - 1), (WIDTH - 1, HEIGHT - 1), (5, 9), (1, 1)]:
        for value in (0, 127, 128, 254):
            image = painted(mode, chance)
            alpha = image.getchannel("A")
            alpha.putpixel((x, y), value)
            image.putalpha(alpha)
            pixels = pixels_of(written(image, filtered(image, [chance.randrange(5) for _ in range(HEIGHT)])))
            assert pixels is not None
            assert not pixels.opaque()


def test_rows_that_no_decoder_reads_are_not_kept() -> None:
    image = painted("RGB", random.Random(3))
    rows = filtered(image, [0] * HEIGHT)
    length = 1 + 3 * WIDTH
    for row in (0, 9, HEIGHT - 1):
        broken = rows[: row * length] + b"\5" + rows[row * length + 1 :]
        assert pixels_of(written(image, broken)) is None


def test_data_that_is_damaged_cut_off_or_longer_is_not_kept() -> None:
    image = painted("RGB", random.Random(4))
    rows = filtered(image, [0] * HEIGHT)
    whole = zlib.compress(rows)
    assert pixels_of(written(image, rows)) is not None
    wrong = whole[:-1] + bytes([whole[-1] ^ 1])  # the checksum of the rows
    for deflated in (
        wrong,
        whole[:-1],
        whole[:20],
        b"",
        whole + b"x",
        zlib.compress(rows[:-1]),
        zlib.compress(rows + b"x"),
    ):
        assert pixels_of(written(image, rows, deflated=deflated)) is None


def test_a_file_of_pixels_alone_is_kept_byte_for_byte_with_its_pieces() -> None:
    image = Image.frombytes("RGB", (256, 256), random.Random(5).randbytes(3 * 256 * 256))
    output = io.BytesIO()
    image.save(output, "PNG")
    data = output.getvalue()
    assert data.count(b"IDAT") > 1
    found = pixels_of(data)
    assert found is not None
    assert found.data == data


def test_a_line_is_seen_wherever_it_begins() -> None:
    for top in (0, 120, 130, 500, 520, 1000):
        image = Image.new("RGBA", (1024, 1024), "white")
        ImageDraw.Draw(image).rectangle((400, top, 600, top + 20), fill="black")
        output = io.BytesIO()
        image.save(output, "PNG")
        assert read_sketch(output.getvalue(), "image/png").width == 1024
    output = io.BytesIO()
    Image.new("RGBA", (1024, 1024), "white").save(output, "PNG")
    with pytest.raises(SketchRejected, match="Nothing can be seen"):
        read_sketch(output.getvalue(), "image/png")
