"""The thing that was drawn: washes inside its outlines, volume by light, and its shadow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.colouring import TINY, choose_colours
from sandbox.comfyui.painting.drawing import Drawing, Region
from sandbox.comfyui.painting.noise import Field, Grain, blurred, shifted, smoothstep
from sandbox.comfyui.painting.palette import Colour, Intent
from sandbox.comfyui.painting.scenery import Pigment, granulated, lay

_SHADOW: Colour = (0.42, 0.42, 0.62)


class Subject:
    """Paints the regions of a drawing over a background."""

    def __init__(self, drawing: Drawing, intent: Intent, grain: Grain, tooth: Field, light_x: float) -> None:
        self._drawing = drawing
        self._intent = intent
        self._grain = grain
        self._tooth = tooth
        self._light = -1.0 if light_x < 0.5 else 1.0
        self._drift = (grain.fractal(0.07, 3), grain.fractal(0.07, 3))

    def paint(self, pigment: Pigment) -> None:
        """Underpaint, wash every region, then model them with light and shadow."""
        body = self._loosened(self._drawing.body)
        things = [region for region in self._drawing.regions if not region.grounded]
        if things:
            self._cast_shadow(pigment)
        if not self._drawing.regions:
            self._aura(pigment)
            return
        # Body colour under the subject keeps the background from shining through.
        pigment *= 1.0 - 0.93 * body[..., None]
        colours = choose_colours(self._drawing, self._intent)
        for region, colour in zip(self._drawing.regions, colours, strict=True):
            self._wash(pigment, region, colour)
        self._light_over(pigment, body)

    def _loosened(self, mask: Field) -> Field:
        """Let an outline wander: more so the less closely the sketch is to be followed."""
        reach = (1.0 - self._intent.strength) * 0.018 * self._grain.width + 0.8
        return shifted(mask, reach * self._drift[0], reach * self._drift[1])

    def _wash(self, pigment: Pigment, region: Region, colour: Colour) -> None:
        pad = round(0.04 * self._grain.width)
        x, y, wide, tall = cv2.boundingRect(region.mask)
        window = (slice(max(0, y - pad), y + tall + pad), slice(max(0, x - pad), x + wide + pad))
        full = self._loosened(blurred(region.mask.astype(np.float32), 0.9))
        mask = full[window]
        flow = self._grain.fractal(0.22, 4)[window]
        wash = mask * (1.0 + 0.12 * self._tooth[window] + 0.42 * flow)
        rim = np.clip(mask - blurred(mask, 3.0), 0, 1)
        layer = pigment[window]
        lay(layer, wash + 0.75 * rim, colour, 1.0)
        warm = smoothstep(0.05, 0.6, self._grain.fractal(0.3, 3)[window]) * mask
        neighbour = self._intent.subject[1 % len(self._intent.subject)]
        lay(layer, warm, _mixed(colour, neighbour, 0.45), 0.32)
        tide = self._grain.fractal(0.28, 3)[window]
        line = np.exp(-(((tide - 0.16) / 0.03) ** 2)).astype(np.float32) * mask
        lay(layer, line, colour, 0.22)
        if region.area > TINY:
            self._model(layer, region.mask[window], mask, colour)

    def _model(self, layer: Pigment, shape: NDArray[np.uint8], mask: Field, colour: Colour) -> None:
        """Volume: the region as a cushion under a light from above and one side."""
        depth = cv2.distanceTransform(
            cv2.copyMakeBorder(shape, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), cv2.DIST_L2, 5
        )[1:-1, 1:-1]
        radius = max(4.0, min(float(depth.max()), 0.09 * self._grain.width))
        rise = np.clip(depth / radius, 0, 1)
        height = (
            blurred(np.sqrt(np.clip(1 - (1 - rise) ** 2, 0, 1)).astype(np.float32), radius * 0.22) * radius
        )
        across = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
        down = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
        facing = (-across * self._light * 0.75 - down * -0.9) / np.sqrt(1 + across**2 + down**2)
        shade = smoothstep(0.02, 0.85, -facing.astype(np.float32)) * mask
        shine = smoothstep(0.10, 0.8, facing.astype(np.float32)) * mask
        lay(
            layer,
            shade * (1 + 0.25 * self._grain.fractal(0.1, 2)[: mask.shape[0], : mask.shape[1]]),
            _mixed(_SHADOW, colour, 0.4),
            0.62,
        )
        layer *= 1.0 - 0.42 * shine[..., None]

    def _light_over(self, pigment: Pigment, body: Field) -> None:
        """One gradient over the whole subject ties its regions together."""
        rows = np.linspace(0, 1, body.shape[0], dtype=np.float32)[:, None]
        span = max(0.08, self._drawing.bottom - self._drawing.top)
        low = np.clip((rows - self._drawing.top) / span, 0, 1) ** 1.6
        lay(pigment, body * low, _SHADOW, 0.20)
        pigment *= 1.0 - 0.10 * (body * (1 - low))[..., None]

    def _cast_shadow(self, pigment: Pigment) -> None:
        if "nebula" in self._intent.scene.features:
            return
        height, width = self._grain.height, self._grain.width
        mask = np.zeros((height, width), np.float32)
        middle = (self._drawing.left + self._drawing.right) / 2 - self._light * 0.04
        half = (self._drawing.right - self._drawing.left) * 0.46
        centre = (int(middle * width), int((self._drawing.bottom - 0.004) * height))
        cv2.ellipse(
            mask, centre, (max(4, int(half * width)), max(3, int(half * 0.17 * width))), 0, 0, 360, 1.0, -1
        )
        soft = blurred(mask, 0.014 * width) * (1 + 0.3 * self._tooth)
        lay(pigment, np.clip(soft, 0, 1), (0.36, 0.36, 0.52), 0.62)

    def _aura(self, pigment: Pigment) -> None:
        """Open strokes enclose nothing: colour blooms along them instead."""
        ink = self._drawing.ink
        near = np.clip(blurred(ink, 0.02 * self._grain.width) * 5.5, 0, 1)
        wide = np.clip(blurred(ink, 0.05 * self._grain.width) * 6.0, 0, 1)
        pigment *= 1.0 - 0.5 * near[..., None]
        split = smoothstep(-0.25, 0.35, self._grain.fractal(0.3, 3))
        bloom = granulated(
            smoothstep(0.25, 0.75, near + 0.35 * self._grain.fractal(0.08, 3)), self._grain, self._tooth
        )
        lay(pigment, bloom * split, self._intent.subject[0], 0.75)
        lay(pigment, bloom * (1 - split), self._intent.subject[2 % len(self._intent.subject)], 0.75)
        lay(pigment, wide * 0.5, self._intent.subject[1 % len(self._intent.subject)], 0.35)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    return (
        one[0] + (other[0] - one[0]) * share,
        one[1] + (other[1] - one[1]) * share,
        one[2] + (other[2] - one[2]) * share,
    )
