"""Small sketches for tests."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def sketch(size: int = 256, colour: str = "black") -> bytes:
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((size // 4, size // 4, 3 * size // 4, 3 * size // 4), outline=colour, width=6)
    return png(image)


def blank(size: int = 256) -> bytes:
    return png(Image.new("RGB", (size, size), "white"))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
