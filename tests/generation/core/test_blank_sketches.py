"""A sketch on which nothing can be seen is refused, by the same rule here and in the worker; a faint line is not."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest
from PIL import Image, ImageDraw

from generation.domain.errors import SketchRejected
from generation.images.checking import read_sketch
from tests.hostile.pictures import JPEG, PNG, WEBP
from worker.pictures import SketchBlank, fitted_sketch

Drawing = Callable[[], Image.Image]
SIDE = 512


def paper(colour: object = "white", mode: str = "RGB", side: int = SIDE) -> Image.Image:
    return Image.new(mode, (side, side), colour)  # type: ignore[arg-type]


def lined(
    colour: object, on: object = "white", mode: str = "RGB", width: int = 5, side: int = SIDE
) -> Image.Image:
    image = paper(on, mode, side)
    ImageDraw.Draw(image).line((40, 60, 400, 300), fill=colour, width=width)  # type: ignore[arg-type]
    return image


def dusty(side: int = 1024) -> Image.Image:
    """A few black pixels, far from each other."""
    image = paper(side=side)
    for index in range(10):
        image.putpixel((97 * (index + 1), 89 * (index + 1)), (0, 0, 0))
    return image


def noisy(amplitude: float, seed: int = 1, side: int = SIDE) -> Image.Image:
    numbers = random.Random(seed)
    values = bytes(max(0, min(255, round(numbers.gauss(235, amplitude)))) for _ in range(side * side))
    return Image.frombytes("L", (side, side), values)


def erased() -> Image.Image:
    """A drawing rubbed out: what the browser leaves at its edges is all but transparent."""
    image = paper((29, 26, 23, 0), "RGBA")
    ImageDraw.Draw(image).line((40, 60, 400, 300), fill=(29, 26, 23, 9), width=2)
    return image


def deep(value: int, line: int) -> Image.Image:
    """16 bits of grey."""
    drawn = lined(line, value, "L")
    return Image.frombytes("I;16", drawn.size, bytes(b for v in drawn.tobytes() for b in (v, v)))


def dot() -> Image.Image:
    """One tap with the finest pen, on the page's own sheet."""
    image = paper(side=1024)
    ImageDraw.Draw(image).ellipse((500, 500, 505, 505), fill="#1d1a17")
    return image


BLANK: dict[str, Drawing] = {
    "white": paper,
    "black": lambda: paper("black"),
    "one flat colour": lambda: paper("#c8482c"),
    "transparent": lambda: paper((0, 0, 0, 0), "RGBA"),
    "white lines on transparent": lambda: lined((255, 255, 255, 255), (0, 0, 0, 0), "RGBA"),
    "white lines on white": lambda: lined("white"),
    "lines that are all but white": lambda: lined("#f4f4f4"),
    "everything erased": erased,
    "16 bits, white": lambda: deep(255, 255),
    "16 bits, grey without contrast": lambda: deep(128, 136),
    "noise that eyes do not see": lambda: noisy(4),
    "dust": dusty,
    "one pixel": lambda: lined("black").crop((0, 0, 30, 30)).resize((SIDE, SIDE)),
    "palette, one colour": lambda: paper("#e0a526").quantize(4),
    "one bit, black": lambda: paper(0, "1"),
    "grey with transparency": lambda: paper((200, 0), "LA"),
}
DRAWN: dict[str, Drawing] = {
    "a line": lambda: lined("black"),
    "a pencil's line": lambda: lined("#8c8378"),
    "a pale yellow line": lambda: lined("#ffffa0"),
    "colours of the same brightness": lambda: lined("#ff0000", "#008200"),
    "a hairline": lambda: lined("black", width=1),
    "a hairline on the page's sheet": lambda: lined("#c8c8c8", width=1, side=1024),
    "a hairline on the largest sheet": lambda: lined("black", width=1, side=4096),
    "white on black": lambda: lined("white", "black"),
    "a dot": dot,
    "black lines on transparent": lambda: lined((0, 0, 0, 255), (0, 0, 0, 0), "RGBA"),
    "half transparent lines": lambda: lined((0, 0, 0, 90), (0, 0, 0, 0), "RGBA"),
    "16 bits": lambda: deep(255, 20),
    "noise that eyes see": lambda: noisy(70),
    "one bit": lambda: lined(0, 1, "1"),
    "palette": lambda: lined("#84508f").quantize(16),
}


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    output = io.BytesIO()
    image.save(output, kind, lossless=True) if kind == "WEBP" else image.save(output, kind)
    return output.getvalue()


def by_the_api(data: bytes, content_type: str = PNG) -> bool:
    """Whether the API refuses it as blank."""
    refusal = None
    try:
        read_sketch(data, content_type)
    except SketchRejected as rejected:
        refusal = rejected.code
    assert refusal in (None, "blank_sketch")
    return refusal is not None


def by_the_worker(data: bytes) -> bool:
    """Whether the worker refuses it as blank."""
    try:
        fitted_sketch(data, 256, 256)
    except SketchBlank:
        return True
    return False


@pytest.mark.parametrize("drawing", BLANK.values(), ids=BLANK)
def test_nothing_to_see_is_refused_by_name(drawing: Drawing) -> None:
    assert by_the_api(encoded(drawing()))


@pytest.mark.parametrize("drawing", DRAWN.values(), ids=DRAWN)
def test_what_can_be_seen_is_taken_and_never_refused_by_the_worker_afterwards(drawing: Drawing) -> None:
    sketch = read_sketch(encoded(drawing()), PNG)
    assert not by_the_worker(sketch.data)


RESCALED = ("16 bits", "a hairline on the largest")
"""The worker is given what is kept of these, not what was sent."""


@pytest.mark.parametrize("name", [name for name in (*BLANK, *DRAWN) if not name.startswith(RESCALED)])
def test_the_worker_has_the_same_verdict(name: str) -> None:
    drawing = {**BLANK, **DRAWN}[name]()
    assert by_the_worker(encoded(drawing)) == by_the_api(encoded(drawing)) == (name in BLANK)


@pytest.mark.parametrize(("kind", "content_type"), [("JPEG", JPEG), ("WEBP", WEBP)])
def test_every_format_has_the_same_rule(kind: str, content_type: str) -> None:
    assert by_the_api(encoded(paper("#f0e8d8"), kind), content_type)
    assert not by_the_api(encoded(lined("black"), kind), content_type)


@pytest.mark.parametrize("spread", range(0, 40, 3))
def test_both_sides_draw_the_line_at_the_same_contrast(spread: int) -> None:
    data = encoded(lined((255 - spread, 255, 255)))
    assert by_the_worker(data) == by_the_api(data) == (spread < 16)


def test_a_blank_sketch_of_the_largest_size_costs_no_more_than_another() -> None:
    with pytest.raises(SketchRejected):
        read_sketch(encoded(paper(side=4096)), PNG)
