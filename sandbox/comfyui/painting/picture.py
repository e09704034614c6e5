"""One picture from a sketch, a prompt and a seed. The same three give the same pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.colouring import sun_of
from sandbox.comfyui.painting.drawing import Drawing, read_drawing
from sandbox.comfyui.painting.finish import border, graded, line_at, line_colours, on_paper, paper_tooth
from sandbox.comfyui.painting.neon import paint_neon
from sandbox.comfyui.painting.noise import Field, Grain, blurred, smoothstep
from sandbox.comfyui.painting.palette import Intent, read_prompt
from sandbox.comfyui.painting.scenery import Pigment, Scenery
from sandbox.comfyui.painting.subject import Subject

_WORKING_SIZE = 512
_SMALL_WORKING_SIZE = 384


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """What to paint; width and height in pixels."""

    sketch: NDArray[np.uint8]
    prompt: str
    seed: int
    width: int
    height: int


def paint(request: PictureRequest) -> NDArray[np.uint8]:
    """Paint it (height x width x 3, sRGB). Raises `ValueError` for a blank sketch.

    Washes are laid at a working size and enlarged; paper and ink line are done at full size,
    so that the picture is sharp where the eye looks for it.
    """
    digest = hashlib.sha256(f"{request.seed}\0{request.prompt}".encode()).digest()
    intent = read_prompt(request.prompt, request.seed)
    longest = max(request.width, request.height)
    working = _WORKING_SIZE if longest > 640 else _SMALL_WORKING_SIZE
    scale = min(1.0, working / longest)
    width, height = (max(32, round(side * scale)) for side in (request.width, request.height))
    grain = Grain(int.from_bytes(digest[:8], "big"), width, height)
    drawing = read_drawing(request.sketch, width, height)
    if intent.style == "neon":
        return _neon(request, intent, drawing, grain)
    pigment = _washes(intent, drawing, grain)
    return _finished(request, intent, pigment, grain)


def _horizon(drawing: Drawing) -> float:
    """Where land meets sky: behind the subject's lower part, so that it stands on the ground."""
    return float(np.clip(drawing.bottom - 0.30 * (drawing.bottom - drawing.top), 0.46, 0.74))


def _washes(intent: Intent, drawing: Drawing, grain: Grain) -> Pigment:
    tooth = paper_tooth(grain)
    scenery = Scenery(intent.scene, grain, tooth, _horizon(drawing), own_light=sun_of(drawing) is None)
    pigment = scenery.paint()
    Subject(drawing, intent, grain, tooth, scenery.light_x).paint(pigment)
    if intent.style == "ink":
        return _as_ink(pigment, grain)
    if intent.style == "pastel":
        return _as_pastel(pigment, tooth)
    return graded(pigment)


def _as_ink(pigment: Pigment, grain: Grain) -> Pigment:
    """Soot and water: one pigment, a breath of warmth in the thin places, a red seal."""
    tone = (pigment @ np.asarray((0.30, 0.50, 0.20), np.float32)) ** 1.15
    soot = tone[..., None] * np.asarray((1.02, 1.0, 0.94), np.float32)
    height, width = tone.shape
    seal = np.zeros_like(tone)
    side = round(0.055 * min(width, height))
    x, y = round(0.88 * width), round(0.86 * height)
    cv2.rectangle(seal, (x, y), (x + side, y + side), 1.0, -1)
    for step in (0.3, 0.62):
        cv2.line(seal, (x + round(side * step), y + 3), (x + round(side * step), y + side - 3), 0.15, 1)
    cv2.line(seal, (x + 3, y + round(side * 0.5)), (x + side - 3, y + round(side * 0.5)), 0.15, 1)
    stamped = (seal * smoothstep(-0.55, 0.1, grain.fractal(0.02, 2)))[..., None]
    red = np.asarray((0.28, 1.7, 1.75), np.float32)
    return np.asarray(soot * (1 - stamped) + stamped * red, np.float32)


def _as_pastel(pigment: Pigment, tooth: Field) -> Pigment:
    """Chalk: lighter, and only the high grain of the paper takes it."""
    caught = smoothstep(-1.0, 0.6, tooth)
    soft = np.stack([blurred(pigment[..., channel], 1.6) for channel in range(3)], axis=2)
    result: NDArray[np.float32] = (soft * (0.50 + 0.22 * caught[..., None])).astype(np.float32)
    return result


def _finished(request: PictureRequest, intent: Intent, pigment: Pigment, grain: Grain) -> NDArray[np.uint8]:
    size = (request.width, request.height)
    washes = cv2.resize(pigment, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    np.clip(washes, 0, None, out=washes)
    full = Grain(int(grain.random.integers(2**32)), *size)
    tooth = paper_tooth(full)
    margin = cv2.resize(border(grain), size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    washes *= 1.0 + 0.16 * tooth[..., None]
    line = line_at(request.sketch, *size, intent.strength, grain)
    bite = np.clip(1.0 + 0.35 * tooth, 0.5, 1.2)
    opacity = 0.30 + 0.70 * intent.strength
    weight = np.clip(line * bite * opacity, 0, 1)[..., None]
    stroke = line_colours(request.sketch, *size, intent.scene.ink)
    washes = washes * (1 - 0.75 * weight) + weight * stroke
    return on_paper(washes, tooth, np.clip(margin, 0, 1))


def _neon(request: PictureRequest, intent: Intent, drawing: Drawing, grain: Grain) -> NDArray[np.uint8]:
    size = (request.width, request.height)
    line = line_at(request.sketch, *size, intent.strength, grain)
    body = cv2.resize(drawing.body, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return paint_neon(line, body, _horizon(drawing), grain)
