"""Pictures: deterministic, tolerant of every sketch, honest about blank ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sandbox.comfyui.painting.palette import SCENES, read_prompt
from sandbox.comfyui.painting.picture import PictureRequest, paint

Pixels = NDArray[np.uint8]


def drawing(width: int = 256, height: int = 256, colour: str = "black", paper: str = "white") -> Pixels:
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), outline=colour, width=5)
    return np.asarray(image)


def painted(
    sketch: Pixels, prompt: str = "a llama", seed: int = 1, width: int = 256, height: int = 256
) -> Pixels:
    return paint(PictureRequest(sketch, prompt, seed, width, height))


def lightness_on_the_line(strength_words: str) -> float:
    sketch = drawing()
    picture = painted(sketch, f"a llama. {strength_words}")
    return float(picture[sketch[..., 0] < 60].mean())


def test_the_same_request_gives_the_same_pixels() -> None:
    assert np.array_equal(painted(drawing()), painted(drawing()))


def test_seed_prompt_and_sketch_each_change_the_picture() -> None:
    first = painted(drawing())
    assert not np.array_equal(first, painted(drawing(), seed=2))
    assert not np.array_equal(first, painted(drawing(), prompt="a rocket"))
    assert not np.array_equal(first, painted(drawing(width=200)))


@pytest.mark.parametrize("paper", ["white", "black", "#f4e9d8"])
def test_a_blank_sketch_is_refused_whatever_its_paper(paper: str) -> None:
    with pytest.raises(ValueError, match="blank"):
        painted(np.asarray(Image.new("RGB", (256, 256), paper)))


@pytest.mark.parametrize(
    "sketch",
    [
        drawing(colour="white", paper="black"),
        drawing(colour="red"),
        drawing(width=64, height=64),
        drawing(width=1024, height=64),
        np.asarray(Image.effect_noise((256, 256), 90).convert("RGB")),
        np.pad(np.zeros((250, 250, 3), np.uint8), ((3, 3), (3, 3), (0, 0)), constant_values=255),
    ],
    ids=["dark paper", "coloured", "small", "wide", "noise", "solid"],
)
def test_every_sketch_becomes_a_picture_with_something_in_it(sketch: Pixels) -> None:
    picture = painted(sketch)
    assert picture.shape == (256, 256, 3)
    assert picture.std() > 15


@pytest.mark.parametrize("size", [(64, 64), (1024, 256), (272, 640)])
def test_every_size_is_painted(size: tuple[int, int]) -> None:
    assert painted(drawing(), width=size[0], height=size[1]).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "word", [scene.name for scene in SCENES] + ["neon", "ink", "pastel", "", "🦙", "x" * 4000]
)
def test_every_scene_and_style_is_painted(word: str) -> None:
    assert painted(drawing(), prompt=word).std() > 15


def test_words_choose_scene_style_and_colour() -> None:
    assert read_prompt("a cottage in the forest at night", 1).scene.name == "night"
    assert read_prompt("a whale", 1).scene.name == "ocean"
    assert read_prompt("neon llama", 1).style == "neon"
    assert read_prompt("a red rocket", 1).subject[0] != read_prompt("a rocket", 1).subject[0]


def test_strength_governs_how_strongly_the_lines_are_kept() -> None:
    exact = lightness_on_the_line("Keep every line of the sketch exactly")
    loose = lightness_on_the_line("Use the sketch only as loose inspiration")
    assert exact < loose - 15
