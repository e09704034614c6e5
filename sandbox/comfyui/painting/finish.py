"""From pigment to picture: paper, deckled border, ink line; and the glow of the neon style."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.drawing import ink_of
from sandbox.comfyui.painting.noise import Field, Grain, blurred, shifted, smoothstep
from sandbox.comfyui.painting.palette import Colour
from sandbox.comfyui.painting.scenery import Pigment, absorbance

_PAPER: Colour = (0.985, 0.972, 0.945)


def paper_tooth(grain: Grain) -> Field:
    """The relief of cold-pressed paper, about -1..1."""
    fibres = grain.fractal(0.011, 2) + 0.6 * grain.fractal(0.004, 1)
    tooth: Field = np.clip(fibres * 1.3, -1, 1).astype(np.float32)
    return tooth


def border(grain: Grain) -> Field:
    """1 where paint lies, 0 on the bare margin, with the edge that masking tape never quite seals."""
    rows = np.linspace(0, 1, grain.height, dtype=np.float32)[:, None] * grain.height
    columns = np.linspace(0, 1, grain.width, dtype=np.float32)[None, :] * grain.width
    inset = np.minimum(np.minimum(rows, grain.height - rows), np.minimum(columns, grain.width - columns))
    unit = float(min(grain.width, grain.height))
    ragged = inset + unit * (0.011 * grain.fractal(0.22, 5) + 0.004 * grain.fractal(0.012, 2))
    return smoothstep(0.036 * unit, 0.043 * unit, ragged.astype(np.float32))


def line_at(sketch: NDArray[np.uint8], width: int, height: int, strength: float, grain: Grain) -> Field:
    """The sketch's line at full size: smooth, of uneven pressure, wandering when strength is low."""
    ink = cv2.resize(ink_of(sketch), (width, height), interpolation=cv2.INTER_CUBIC)
    unit = max(width, height) / 1024.0
    ink = blurred(ink.astype(np.float32), 1.5 * unit)
    reach = (0.9 + (1.0 - strength) * 9.0) * unit
    wander_x, wander_y = (
        cv2.resize(grain.fractal(0.09, 3), (width, height), interpolation=cv2.INTER_LINEAR) for _ in range(2)
    )
    ink = shifted(ink, reach * wander_x, reach * wander_y)
    pressure = cv2.resize(grain.fractal(0.10, 3), (width, height), interpolation=cv2.INTER_LINEAR)
    threshold = 0.42 - 0.16 * pressure
    line = smoothstep(-0.16, 0.16, ink - threshold)
    weighted: Field = line * np.clip(0.86 + 0.4 * pressure, 0.35, 1.0).astype(np.float32)
    return weighted


def line_colours(sketch: NDArray[np.uint8], width: int, height: int, ink: Colour) -> NDArray[np.float32]:
    """The pigment of the line: the style's ink, or the stroke's own colour where it has one."""
    small = cv2.resize(sketch, (max(16, width // 4), max(16, height // 4)), interpolation=cv2.INTER_AREA)
    kernel = np.ones((5, 5), np.uint8)
    pixels = cv2.erode(small, kernel).astype(np.float32) / 255.0
    red, green, blue = cv2.split(pixels)
    chroma = (np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue))[..., None]
    own = smoothstep(0.18, 0.4, chroma)
    pigment = -np.log(np.clip(pixels * 0.8, 0.03, 0.98)) * own + absorbance(ink) * (1 - own)
    full = cv2.resize(pigment.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)


def on_paper(pigment: Pigment, tooth: Field, margin: Field) -> NDArray[np.uint8]:
    """Light through pigment on paper, with the paper's own relief."""
    light = np.exp(-pigment * margin[..., None])
    relief = tooth - np.roll(tooth, (1, 1), (0, 1))
    light *= np.asarray(_PAPER, np.float32) * (1.0 + 0.045 * relief[..., None])
    result: NDArray[np.uint8] = np.clip(light * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return result


def graded(pigment: Pigment) -> Pigment:
    """A little less pigment in the lights and more chroma overall: transparent paint is not grey."""
    grey = ((pigment[..., 0] + pigment[..., 1] + pigment[..., 2]) / 3.0)[..., None]
    result: NDArray[np.float32] = np.clip(grey + (pigment - grey) * 1.16, 0.0, 4.0).astype(np.float32)
    return result
