"""A decoded picture as a person sees it: on white paper, in the colours of a screen.

Transparency by one colour is read at the depth that the file has, and what a profile or a gamma says of the colours is
followed, as browsers do. A profile that cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import io
import zlib

from PIL import Image, ImageChops, ImageCms

from generation.images.inspection import PROFILE_BYTES_MAX, Colours

_GAMMA_USUAL = range(43_000, 48_000)
"""Of 100,000: what sRGB comes to, and what eyes do not tell from it."""
_GAMMA_POSSIBLE = range(10_000, 1_000_000)


def plain(picture: Image.Image, depth: int) -> Image.Image:
    """In a mode that can be scaled well: not by palette, and with what is transparent as a channel.

    `depth` is that of a PNG's samples, in bits.
    """
    key = picture.info.get("transparency")
    if picture.mode.startswith("I"):
        return _sixteen_bits(picture, key)
    if isinstance(key, int) and picture.mode in ("1", "L"):
        grey = picture.convert("L")
        return Image.merge("LA", (grey, _other_than(grey, key % 2**depth * 255 // (2**depth - 1))))
    if picture.mode == "1":
        return picture.convert("L")
    return picture.convert("RGBA") if key is not None or picture.mode in ("P", "PA") else picture


def _sixteen_bits(picture: Image.Image, key: object) -> Image.Image:
    """The upper eight say all that eyes can see; which colour is transparent, all of them say."""
    raw = picture.tobytes("raw", "I;16B")
    upper = Image.frombytes("L", picture.size, raw[::2])
    if not isinstance(key, int):
        return upper
    lower = Image.frombytes("L", picture.size, raw[1::2])
    alpha = ImageChops.lighter(_other_than(upper, key >> 8), _other_than(lower, key & 255))
    return Image.merge("LA", (upper, alpha))


def _other_than(band: Image.Image, value: int) -> Image.Image:
    """255 where it has another value, 0 where it has this one."""
    return band.point([255 * (one != value) for one in range(256)])


def is_of_screens(colours: Colours) -> bool:
    """Whether the numbers stand for sRGB as they are."""
    gamma = colours.gamma_100000
    return not colours.profile and (gamma in _GAMMA_USUAL or gamma not in _GAMMA_POSSIBLE)


def in_screen_colours(picture: Image.Image, colours: Colours) -> Image.Image:
    """The same picture in sRGB; itself where that is what its numbers stand for already."""
    if is_of_screens(colours):
        return picture
    if colours.profile:
        profile = _inflated(colours.profile) if colours.is_deflated else colours.profile
        return _converted(picture, profile)
    curve = [_srgb((value / 255) ** (100_000 / colours.gamma_100000)) for value in range(256)]
    bands = [curve if band != "A" else list(range(256)) for band in picture.getbands()]
    return picture.point([value for band in bands for value in band])


def _srgb(light: float) -> int:
    """The value of 255 that shows so much light of 1."""
    return round(255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))


def _inflated(profile: bytes) -> bytes:
    """Nothing where it is damaged, or longer than a profile may be."""
    inflater = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        inflated = inflater.decompress(profile, PROFILE_BYTES_MAX)
        return inflated if inflater.eof else b""
    return b""


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    bands = picture.split()
    alpha = bands[-1] if "A" in picture.getbands() else None
    opaque = picture if alpha is None else Image.merge(picture.mode.removesuffix("A"), bands[:-1])
    try:
        shown = ImageCms.profileToProfile(
            opaque, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
    if shown is None:
        return picture
    shown.info.clear()
    if alpha is not None:
        shown.putalpha(alpha)
    return shown


def on_white(picture: Image.Image) -> Image.Image:
    """Opaque, in RGB."""
    if "A" not in picture.getbands():
        return picture.convert("RGB")
    shown = picture.convert("RGBA")
    flat = Image.new("RGB", shown.size, "white")
    flat.paste(shown, mask=shown.getchannel("A"))
    return flat
