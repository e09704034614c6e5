"""One drawing, saved in all the ways that programs save drawings; with each, what a person sees of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageStat

from tests.hostile.pictures import (
    JPEG,
    PNG,
    WEBP,
    animated_png,
    animated_webp,
    chunk,
    png_bomb,
    png_of,
    segment,
)

SIZE = (96, 64)
RED, BLUE, GREY, WHITE = (200, 40, 30), (30, 90, 200), (128, 128, 128), (255, 255, 255)
Colour = tuple[int, int, int]
COMPRESSED = 1.6
"""By how much, of 255 and in the mean, lossy formats may differ."""


class Saved(NamedTuple):
    """A file and what is seen of it: a picture, or the code that it is refused by."""

    data: bytes
    seen: Image.Image | str
    browsers: bool = True
    """Whether browsers show the same."""


def scene(mode: str = "RGB") -> Image.Image:
    """No two of its corners look alike."""
    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((4, 4, 30, 20), fill=RED)
    pen.rectangle((60, 40, 90, 60), fill=BLUE)
    pen.rectangle((40, 4, 60, 12), fill=GREY)
    pen.line((4, 60, 50, 30), fill="black", width=3)
    return image.convert(mode)


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean over all pixels and colours, of 255; all of it where they have not even one shape."""
    if one.size != other.size:
        return 255.0
    apart = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(ImageStat.Stat(apart).mean) / 3


def media_type(data: bytes) -> str:
    """By the first bytes."""
    return PNG if data[:4] == b"\x89PNG" else JPEG if data[:2] == b"\xff\xd8" else WEBP


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A file; `quality` stays high where a format loses something."""
    output = io.BytesIO()
    image.save(output, kind, **({"quality": 95, "subsampling": 0} | options if kind == "JPEG" else options))
    return output.getvalue()


def without(colour: Colour) -> Image.Image:
    """What is seen where this colour is transparent, on white paper."""
    image = scene()
    pixels = [WHITE if pixel == colour else pixel for pixel in image.get_flattened_data()]
    image.putdata(pixels)
    return image


def lines_only() -> Image.Image:
    """The drawing on transparent paper."""
    image = scene("RGBA")
    image.putdata([(0, 0, 0, 0) if pixel[:3] == WHITE else pixel for pixel in image.get_flattened_data()])
    return image


# --- PNG, by hand: depths and transparency that Pillow does not write ---


def packed(samples: list[int], depth: int) -> bytes:
    """Rows of samples of so many bits, deflated."""
    each, rows = len(samples) // SIZE[1], []
    for start in range(0, len(samples), each):
        bits = "".join(format(sample, f"0{depth}b") for sample in samples[start : start + each])
        rows.append(b"\0" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8)))
    return zlib.compress(b"".join(rows))


def grey_png(depth: int, transparent: int | None = None) -> bytes:
    """Grey of so many bits; `transparent` is one of 255."""
    most = 2**depth - 1
    samples = [sample(value, most) for value in scene("L").tobytes()]
    key = () if transparent is None else (chunk(b"tRNS", struct.pack("!H", sample(transparent, most))),)
    return png_of(*SIZE, *key, chunk(b"IDAT", packed(samples, depth)), depth=depth)


def sample(value: int, most: int) -> int:
    """The nearest of a coarser or finer scale."""
    return (value * most + 127) // 255


def grey_seen(depth: int, transparent: int | None = None) -> Image.Image:
    """What is seen of `grey_png`."""
    most = 2**depth - 1
    key = None if transparent is None else sample(transparent, most)
    values = [sample(value, most) for value in scene("L").tobytes()]
    shown = bytes(255 if value == key else value * 255 // most for value in values)
    return Image.frombytes("L", SIZE, shown)


def deep_png(image: Image.Image, colour: int, transparent: Colour | None = None) -> bytes:
    """Sixteen bits a sample."""
    samples = [value * 257 for value in image.tobytes()]
    scaled = () if transparent is None else tuple(value * 257 for value in transparent)
    key = (chunk(b"tRNS", struct.pack(f"!{len(scaled)}H", *scaled)),) if scaled else ()
    return png_of(*SIZE, *key, chunk(b"IDAT", packed(samples, 16)), depth=16, colour=colour)


def interlaced_png() -> bytes:
    """In seven passes."""
    width, height = SIZE
    pixels, rows = scene().load(), b""
    assert pixels
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    for left, top, right, down in passes:
        for y in range(top, height, down):
            rows += b"\0" + b"".join(bytes(pixels[x, y]) for x in range(left, width, right))
    return png_of(width, height, chunk(b"IDAT", zlib.compress(rows)), colour=2, interlace=1)


def with_chunks(*chunks: bytes, data: bytes | None = None) -> bytes:
    """A PNG with these right behind its header."""
    data = saved(scene()) if data is None else data
    return data[:33] + b"".join(chunks) + data[33:]


def one_frame() -> bytes:
    """An APNG that does not move."""
    control = struct.pack("!5I2H2B", 0, *SIZE, 0, 0, 1, 10, 0, 0)
    return with_chunks(chunk(b"acTL", struct.pack("!II", 1, 0)), chunk(b"fcTL", control))


# --- JPEG ---


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with these right behind its start."""
    return data[:2] + b"".join(segments) + data[2:]


def without_adobe(data: bytes) -> bytes:
    """A JPEG without Adobe's word on the colours."""
    at = data.index(b"Adobe") - 4
    return data[:at] + data[at + 16 :]


def exif(orientation: int) -> bytes:
    """As a camera that was held so writes it."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


HOW_HELD: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.rotate(-90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.rotate(90, expand=True),
}
ADOBE = segment(0xEE, b"Adobe\0\x64" + bytes(5))
"""The colours are as they are, it says, not turned into brightness and two differences."""


# --- colours ---


def wide_profile() -> bytes:
    """An ICC profile of Display P3, as telephones have it: what is red there is redder than any red of sRGB."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack("!i", round(value * 65_536)) for value in values)

    curve = b"para" + struct.pack("!IHH", 0, 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    name = (
        b"mluc"
        + struct.pack("!III", 0, 1, 12)
        + b"enUS"
        + struct.pack("!II", 4, 28)
        + "P3".encode("utf-16-be")
    )
    points = {
        b"wtpt": (0.96419, 1, 0.82489),
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    tags = {b"desc": name, b"cprt": name, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {tag: b"XYZ " + bytes(4) + fixed(*point) for tag, point in points.items()}
    table, body, start = struct.pack("!I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack("!II", start + len(body), len(value))
        body += value
    header = struct.pack("!I", start + len(body)) + bytes(4) + b"\x04\0\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    return (header + bytes(28) + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + table + body


def recoloured(change: Callable[[Colour], Colour]) -> Image.Image:
    """The drawing, each colour changed so."""
    image = scene()
    image.putdata([change(pixel) for pixel in image.get_flattened_data()])
    return image


def seen_on_a_wide_screen(colour: Colour) -> Colour:
    """What a screen of sRGB shows of the drawing's colours in Display P3: by the published matrices."""
    return {RED: (217, 0, 15), BLUE: (0, 91, 207)}.get(colour, colour)


def brightened(colour: Colour) -> Colour:
    """What was measured linearly, as a screen shows it."""
    lights = [value / 255 for value in colour]
    red, green, blue = (
        round(255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))
        for light in lights
    )
    return red, green, blue


# --- all of them ---


def kinds() -> dict[str, Saved]:
    """By name. Files that look alike to a person are given as one and the same sketch."""
    plain, grey = scene(), scene("L")
    photo, palette = saved(plain, "JPEG"), plain.quantize(8)
    ink = Image.merge("LA", (Image.new("L", SIZE, 0), ImageChops.invert(grey)))
    found = {
        "PNG": Saved(saved(plain), plain),
        "PNG, interlaced": Saved(interlaced_png(), plain),
        "PNG, transparent paper": Saved(saved(lines_only()), plain),
        "PNG, transparent paper called black": Saved(
            with_chunks(chunk(b"bKGD", bytes(6)), data=saved(lines_only())), plain
        ),
        "PNG, grey ink on transparent paper": Saved(saved(ink), grey),
        "PNG, palette": Saved(saved(palette), plain),
        "PNG, palette with a transparent colour": Saved(
            saved(palette, transparency=palette.getpixel((0, 0))), plain
        ),
        "PNG, palette that shines through": Saved(
            saved(palette, transparency=bytes([128] * 8)),
            Image.blend(plain, Image.new("RGB", SIZE, "white"), 127 / 255),
        ),
        "PNG, one colour transparent": Saved(saved(plain, transparency=BLUE), without(BLUE)),
        "PNG, 16 bits": Saved(deep_png(plain, 2), plain),
        "PNG, 16 bits, one colour transparent": Saved(deep_png(plain, 2, BLUE), without(BLUE)),
        "PNG, 16 bits with transparency": Saved(deep_png(lines_only(), 6), plain),
        "PNG, 16 bits of grey with transparency": Saved(deep_png(ink, 4), grey),
        "PNG, white on black": Saved(saved(ImageChops.invert(plain)), ImageChops.invert(plain)),
        "PNG with something behind its end": Saved(saved(plain) + b"behind" * 9, plain),
        "PNG of one frame": Saved(one_frame(), plain),
        "PNG in linear light": Saved(
            with_chunks(chunk(b"gAMA", struct.pack("!I", 100_000))), recoloured(brightened)
        ),
        "PNG of a usual gamma": Saved(with_chunks(chunk(b"gAMA", struct.pack("!I", 45_455))), plain),
        "PNG in sRGB, whatever its gamma": Saved(
            with_chunks(chunk(b"gAMA", struct.pack("!I", 100_000)), chunk(b"sRGB", b"\0")), plain
        ),
        "JPEG": Saved(photo, plain),
        "JPEG, progressive": Saved(saved(plain, "JPEG", progressive=True), plain),
        "JPEG, grey": Saved(saved(grey, "JPEG"), grey),
        "JPEG, inks of Adobe": Saved(saved(plain.convert("CMYK"), "JPEG"), plain),
        "JPEG, inks": Saved(without_adobe(saved(plain.convert("CMYK"), "JPEG")), plain),
        "JPEG, red, green and blue": Saved(saved(plain, "JPEG", keep_rgb=True), plain),
        "JPEG that JFIF and Adobe speak about": Saved(photo[:20] + ADOBE + photo[20:], plain),
        "JPEG with something behind its end": Saved(photo + b"behind" * 9, plain),
        "WebP": Saved(saved(plain, "WEBP", quality=95), plain),
        "WebP, lossless": Saved(saved(plain, "WEBP", lossless=True), plain),
        "WebP, transparent paper": Saved(saved(lines_only(), "WEBP", lossless=True), plain),
        "WebP, lossy on transparent paper": Saved(saved(lines_only(), "WEBP", quality=95), plain),
    }
    for depth in (1, 2, 4, 8, 16):
        found[f"PNG, {depth} bits of grey"] = Saved(grey_png(depth), grey_seen(depth))
        for key in (128, 255) if depth > 1 else (255,):
            found[f"PNG, {depth} bits of grey, {key} transparent"] = Saved(
                grey_png(depth, key), grey_seen(depth, key)
            )
    for orientation, turn in HOW_HELD.items():
        for kind in ("PNG", "JPEG", "WEBP"):
            options = {"lossless": True} if kind == "WEBP" else {}
            data = saved(plain, kind, exif=exif(orientation), **options)
            # What browsers do with a WebP's EXIF differs; image programs turn it.
            found[f"{kind}, held as {orientation}"] = Saved(data, turn(plain), kind != "WEBP")
    for kind in ("PNG", "JPEG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(plain, kind, icc_profile=wide_profile(), **options)
        found[f"{kind} of a wide screen"] = Saved(data, recoloured(seen_on_a_wide_screen))
        data = saved(plain, kind, icc_profile=b"no profile" * 20, **options)
        found[f"{kind} with a profile that is none"] = Saved(data, plain)
    return found


def refused_kinds() -> dict[str, Saved]:
    """By name, with the code of the refusal."""
    plain = scene()
    png, photo, webp = saved(plain), saved(plain, "JPEG"), saved(plain, "WEBP")
    white = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    ImageDraw.Draw(white).line((4, 60, 50, 30), fill="white", width=3)
    faint = Image.new("RGB", SIZE, (250, 250, 250))
    ImageDraw.Draw(faint).line((4, 60, 50, 30), fill=(240, 240, 240), width=3)
    gif = saved(plain.quantize(8), "GIF")
    return {
        "PNG that moves": Saved(animated_png(3), "sketch_animated"),
        "WebP that moves": Saved(animated_webp(3), "sketch_animated"),
        "GIF": Saved(gif, "sketch_type"),
        "BMP": Saved(saved(plain, "BMP"), "sketch_type"),
        "TIFF": Saved(saved(plain, "TIFF"), "sketch_type"),
        "white lines on transparent paper": Saved(saved(white), "blank_sketch"),
        "all transparent": Saved(saved(Image.new("RGBA", SIZE)), "blank_sketch"),
        "all but one colour": Saved(saved(faint), "blank_sketch"),
        "blank JPEG": Saved(saved(Image.new("CMYK", SIZE, (9, 9, 9, 9)), "JPEG"), "blank_sketch"),
        "PNG cut short": Saved(png[: len(png) // 2], "sketch_unreadable"),
        "JPEG cut short": Saved(photo[: len(photo) // 2], "sketch_unreadable"),
        "WebP cut short": Saved(webp[: len(webp) // 2], "sketch_unreadable"),
        "PNG of 15 pixels": Saved(saved(plain.resize((15, 15))), "sketch_size"),
        "PNG of 48 megapixels": Saved(png_bomb(6_930), "sketch_size"),
        "nothing": Saved(b"", "sketch_unreadable"),
    }
