"""The three places that tell whether anything can be seen on a sketch agree about any drawing whatever.

The page's rule runs in Node, as the very file that browsers load.
"""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from tests.generation.core.test_blank_sketches import by_the_api, by_the_worker, encoded

RULE = Path(__file__).parents[3] / "gateway" / "web" / "static" / "js" / "blank.js"
SERVER = """
import { createInterface } from "node:readline";
const { isBlank } = await import(process.argv[1]);
for await (const line of createInterface({ input: process.stdin })) {
  const { width, height, pixels } = JSON.parse(line);
  console.log(isBlank(new Uint8ClampedArray(Buffer.from(pixels, "base64")), width, height));
}
"""
ByThePage = Callable[[Image.Image], bool]


@pytest.fixture(scope="module")
def by_the_page() -> Iterator[ByThePage]:
    with subprocess.Popen(
        ["node", "--input-type=module", "--eval", SERVER, RULE.as_uri()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as node:
        assert node.stdin
        assert node.stdout

        def ask(picture: Image.Image) -> bool:
            pixels = base64.b64encode(picture.convert("RGBA").tobytes()).decode()
            drawing = {"width": picture.width, "height": picture.height, "pixels": pixels}
            print(json.dumps(drawing), file=node.stdin, flush=True)
            return {"true": True, "false": False}[node.stdout.readline().strip()]

        yield ask
        node.stdin.close()


CHANNELS = st.integers(0, 255)
NEAR = st.integers(-60, 60)
"""Most colours are near the paper's: that is where verdicts change."""


@st.composite
def drawings(draw: st.DrawFn) -> Image.Image:
    """Paper of any shape and colour; on it lines, blocks, dust and noise that hardly stand out."""
    size = (draw(st.integers(16, 500)), draw(st.integers(16, 500)))
    paper = draw(st.tuples(CHANNELS, CHANNELS, CHANNELS))
    picture = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(picture)
    for _ in range(draw(st.integers(0, 4))):
        colour = tuple(max(0, min(255, value + draw(NEAR))) for value in paper)
        x, y = (draw(st.integers(0, side - 1)) for side in size)
        match draw(st.sampled_from(["line", "block", "dust"])):
            case "line":
                end = tuple(draw(st.integers(0, side - 1)) for side in size)
                pen.line((x, y, *end), fill=colour, width=draw(st.integers(1, 4)))
            case "block":
                pen.rectangle((x, y, x + draw(st.integers(0, 40)), y + draw(st.integers(0, 40))), fill=colour)
            case _:
                for index in range(draw(st.integers(1, 20))):
                    pen.point(((x + index * 7) % size[0], (y + index * 5) % size[1]), fill=colour)
    amplitude = draw(st.sampled_from([0, 0, 6, 20, 30]))
    seed = draw(st.integers(0, 9))
    noise = Image.frombytes("L", size, random.Random(seed).randbytes(size[0] * size[1]))
    grain = noise.point([128 + (value - 128) * amplitude // 128 for value in range(256)])
    return ImageChops.add(picture, grain.convert("RGB"), offset=-128)


@settings(max_examples=100, deadline=None)
@given(picture=drawings())
def test_the_page_the_api_and_the_worker_have_one_verdict(
    by_the_page: ByThePage, picture: Image.Image
) -> None:
    data = encoded(picture)
    assert by_the_page(picture) == by_the_api(data) == by_the_worker(data)


@pytest.mark.parametrize("side", [16, 192, 193, 385, 512, pytest.param(1000, marks=pytest.mark.thorough)])
def test_they_round_the_same_way_where_a_verdict_hangs_on_the_last_bit(
    by_the_page: ByThePage, side: int
) -> None:
    """One cell has as many darker pixels as bring its mean just to the threshold, or not quite."""
    cell = -(-side // 192)
    for darker in range(cell * cell + 1):
        picture = Image.new("RGB", (side, side), (200, 200, 200))
        for index in range(cell * cell):
            picture.putpixel((index % cell, index // cell), (183 + (index >= darker),) * 3)
        data = encoded(picture)
        assert by_the_page(picture) == by_the_api(data) == by_the_worker(data), darker
