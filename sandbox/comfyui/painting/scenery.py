"""Backgrounds: sky, sun, clouds, land and what grows on it, as layers of absorbing pigment."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.noise import Field, Grain, blurred, gradient, smoothstep
from sandbox.comfyui.painting.palette import Colour, Scene

Pigment = NDArray[np.float32]
"""Height x width x 3: absorbance. The light that comes back is paper * exp(-pigment)."""


def absorbance(colour: Colour) -> NDArray[np.float32]:
    """The pigment that turns white paper into this colour."""
    pigment: NDArray[np.float32] = -np.log(np.clip(np.asarray(colour, np.float32), 0.02, 0.995))
    return pigment


def lay(pigment: Pigment, mask: Field, colour: Colour, density: float = 1.0) -> None:
    """Add a transparent layer."""
    pigment += (mask * density)[..., None] * absorbance(colour)


def cover(pigment: Pigment, mask: Field, colour: Colour, opacity: float = 1.0) -> None:
    """Put an opaque layer: body colour rather than a glaze."""
    weight = (mask * opacity)[..., None]
    pigment *= 1.0 - weight
    pigment += weight * absorbance(colour)


def granulated(mask: Field, grain: Grain, tooth: Field, edge: float = 0.35) -> Field:
    """A wash: pigment settles in the paper's tooth and gathers at the rim."""
    rim = np.clip(mask - blurred(mask, 3.2), 0.0, 1.0)
    settled = 1.0 + 0.16 * tooth + 0.42 * grain.fractal(0.2, 4)
    result: NDArray[np.float32] = np.clip(mask * settled + edge * 2.0 * rim, 0.0, 2.5).astype(np.float32)
    return result


_NEBULA = (((0.93, 0.45, 0.62), 0.3), ((0.38, 0.62, 0.92), 0.24), ((0.98, 0.72, 0.45), 0.18))


class Scenery:
    """Paints one scene. `horizon` is a fraction of the height.

    Without `own_light` no sun or moon is painted: the sketch has one.
    """

    def __init__(
        self, scene: Scene, grain: Grain, tooth: Field, horizon: float, own_light: bool = True
    ) -> None:
        self._scene = scene
        self._grain = grain
        self._tooth = tooth
        self._horizon = horizon
        self._own_light = own_light
        self._rows = np.linspace(0, 1, grain.height, dtype=np.float32)[:, None]
        self._columns = np.linspace(0, 1, grain.width, dtype=np.float32)[None, :]
        self._aspect = grain.width / grain.height
        side = 1 if grain.random.random() < 0.5 else -1
        self.light_x = float(0.5 + side * grain.random.uniform(0.22, 0.34))
        self.light_y = float(grain.random.uniform(0.14, 0.24))

    def paint(self) -> Pigment:
        """The whole background."""
        pigment = np.zeros((self._grain.height, self._grain.width, 3), np.float32)
        self._sky(pigment)
        features = self._scene.features
        if "nebula" in features:
            self._nebula(pigment)
        if "stars" in features:
            self._stars(pigment)
        if self._own_light and features & {"sun", "moon"}:
            self._light(pigment)
        if "planet" in features:
            self._planet(pigment)
        if "clouds" in features:
            self._clouds(pigment)
        if "nebula" not in features:
            self._land(pigment)
        if "waves" in features:
            self._waves(pigment)
        if "gulls" in features:
            self._gulls(pigment)
        if "specks" in features:
            self._specks(pigment)
        return pigment

    def _sky(self, pigment: Pigment) -> None:
        stops = np.stack([absorbance(colour) for colour in self._scene.sky])
        span = 1.0 if "nebula" in self._scene.features else self._horizon + 0.06
        flow = self._rows / span + 0.20 * self._grain.fractal(0.5, 3) * np.ones_like(self._columns)
        pigment[:] = gradient(np.clip(flow, 0, 1), stops)
        wet = 1.0 + 0.26 * self._grain.fractal(0.3, 4) + 0.05 * self._tooth
        # Backruns: where a wet patch dried last, a thin darker line stays.
        tide = self._grain.fractal(0.45, 3)
        wet += 0.16 * np.exp(-(((tide - 0.12) / 0.035) ** 2)) * (tide < 0.16)
        pigment *= wet[..., None]

    def _disc(self, x: float, y: float, radius: float, wobble: float = 0.004) -> Field:
        dx = (self._columns - x) * self._aspect
        distance = np.sqrt(dx**2 + (self._rows - y) ** 2) + wobble * self._grain.fractal(0.05, 2)
        return smoothstep(radius + 0.004, radius - 0.004, distance.astype(np.float32))

    def _halo(self, x: float, y: float, radius: float) -> Field:
        dx = (self._columns - x) * self._aspect
        return np.exp(-(dx**2 + (self._rows - y) ** 2) / radius**2).astype(np.float32)

    def _light(self, pigment: Pigment) -> None:
        moon = "moon" in self._scene.features
        low = self._scene.name == "sunset"
        y = self._horizon - 0.13 if low else self.light_y
        radius = 0.085 if low else 0.06
        halo = self._halo(self.light_x, y, 0.30 if low else 0.22)
        pigment *= 1.0 - (0.62 if moon else 0.7) * halo[..., None]
        lay(pigment, halo, (0.96, 0.94, 0.82) if moon else (1.0, 0.86, 0.62), 0.35)
        disc = self._disc(self.light_x, y, radius)
        cover(pigment, disc, (0.99, 0.97, 0.88) if moon else (1.0, 0.90, 0.62), 0.92)
        if moon:
            shade = self._disc(self.light_x + 0.022, y - 0.012, radius * 0.96)
            lay(pigment, disc * (1 - shade), (0.85, 0.84, 0.86), 0.9)
            lay(pigment, disc * smoothstep(0.1, 0.5, self._grain.fractal(0.04, 2)), (0.86, 0.85, 0.88), 0.7)

    def _stars(self, pigment: Pigment) -> None:
        height, width = self._grain.height, self._grain.width
        sky = np.zeros((height, width), np.float32)
        limit = 1.0 if "nebula" in self._scene.features else self._horizon
        for _ in range(150):
            x, y = self._grain.random.random(2) * (width, height * limit)
            size = float(self._grain.random.random()) ** 4
            cv2.circle(sky, (int(x), int(y)), round(0.6 + 2.2 * size), 0.35 + 0.65 * size, -1, cv2.LINE_AA)
            if size > 0.72:
                for dx, dy in ((9, 0), (0, 9)):
                    cv2.line(sky, (int(x) - dx, int(y) - dy), (int(x) + dx, int(y) + dy), 0.8, 1, cv2.LINE_AA)
        sky = np.maximum(sky, 0.9 * blurred(sky, 2.2))
        cover(pigment, np.clip(sky, 0, 1), (1.0, 0.97, 0.88), 0.95)

    def _nebula(self, pigment: Pigment) -> None:
        lane = self._rows - (0.15 + 0.7 * self._columns) + 0.5 * self._grain.fractal(0.4, 4)
        band = np.exp(-((lane / 0.26) ** 2)).astype(np.float32)
        pigment *= 1.0 - 0.55 * band[..., None]
        for colour, cell in _NEBULA:
            cloud = smoothstep(-0.05, 0.55, self._grain.fractal(cell, 4)) * band
            lay(pigment, cloud, colour, 0.8)

    def _planet(self, pigment: Pigment) -> None:
        x, y, radius = 1.0 - self.light_x, 0.2 + self.light_y * 0.4, 0.085
        disc = self._disc(x, y, radius, 0.0)
        cover(pigment, disc, (0.96, 0.80, 0.60), 0.95)
        bands = np.sin((self._rows * 130) + 6 * self._grain.fractal(0.2, 3)) * 0.5 + 0.5
        lay(pigment, disc * bands.astype(np.float32), (0.86, 0.50, 0.38), 0.55)
        shade = 1.0 - self._disc(x - 0.03, y - 0.03, radius * 0.95, 0.0)
        lay(pigment, blurred(disc * shade, 3) * disc, (0.22, 0.16, 0.42), 0.9)
        ring = np.zeros_like(disc)
        size = (int(radius * 1.85 * self._grain.height), int(radius * 0.5 * self._grain.height))
        centre = (int(x * self._grain.width), int(y * self._grain.height))
        cv2.ellipse(ring, centre, size, -18, 0, 360, 1.0, 3, cv2.LINE_AA)
        behind = disc * (self._rows < y - 0.3 * (self._columns - x))
        cover(pigment, blurred(ring, 0.8) * (1 - behind), (0.98, 0.90, 0.74), 0.85)

    def _clouds(self, pigment: Pigment) -> None:
        field = self._grain.fractal(0.30, 5)
        # Wide and flat: half as many columns, spread over the whole width.
        stretched = cv2.resize(
            field[:, : max(8, field.shape[1] // 2)], (self._grain.width, self._grain.height)
        ).astype(np.float32)
        height = smoothstep(self._horizon, 0.05, self._rows * np.ones_like(field))
        cloud = smoothstep(0.06, 0.36, stretched) * height
        pigment *= 1.0 - 0.86 * cloud[..., None]
        shifted = np.roll(cloud, round(0.02 * self._grain.height), axis=0)
        lay(pigment, np.clip(shifted - cloud * 0.75, 0, 1) * height, self._scene.land[0], 0.28)

    def _land(self, pigment: Pigment) -> None:
        layers = len(self._scene.land)
        for index, colour in enumerate(self._scene.land):
            depth = index / (layers - 1)
            base = self._horizon - 0.11 + 0.29 * depth**1.3
            swing = (0.16 if "peaks" in self._scene.features and index < 2 else 0.075) * (1.0 - 0.45 * depth)
            ridge = self._grain.ridge(self._scene.rough if index < 2 else 0.35)
            if "waves" in self._scene.features:
                base, ridge = self._horizon + 0.13 * index, ridge * 0.06
            if "mesas" in self._scene.features and index == 0:
                ridge = (np.round(ridge * 2.2) / 2.2).astype(np.float32)
            skyline = base - swing * ridge
            if "skyline" in self._scene.features and index in (1, 2):
                skyline = skyline - self._roofs(depth)
            wobble = 0.006 * self._grain.fractal(0.06, 3)
            mask = smoothstep(-0.004, 0.006, (self._rows - skyline[None, :] + wobble).astype(np.float32))
            fade = np.clip(1.0 - (self._rows - skyline[None, :]) * (1.6 - depth), 0.45, 1.0)
            wash = granulated(mask, self._grain, self._tooth, edge=0.22)
            pigment *= 1.0 - (0.80 + 0.15 * depth) * mask[..., None]
            lay(pigment, wash * fade.astype(np.float32), colour, 1.05)
            if index == 0 and "peaks" in self._scene.features:
                self._snow(pigment, mask, skyline)
            if "pines" in self._scene.features and index < 3:
                self._pines(pigment, skyline, colour, depth)
            if "mist" in self._scene.features and index < 3:
                fog = np.exp(-(((self._rows - base - 0.10) / 0.05) ** 2)) * np.ones_like(mask)
                pigment *= 1.0 - 0.55 * fog[..., None]
        self._foreground(pigment)

    def _foreground(self, pigment: Pigment) -> None:
        if "waves" in self._scene.features:
            return
        near = smoothstep(self._horizon + 0.16, 1.05, self._rows * np.ones_like(self._columns))
        strokes = smoothstep(0.15, 0.5, self._grain.fractal(0.03, 2)) * near
        lay(pigment, strokes.astype(np.float32), self._scene.land[-1], 0.55)
        lay(pigment, near * near, self._scene.land[-1], 0.55)

    def _snow(self, pigment: Pigment, mask: Field, skyline: NDArray[np.float32]) -> None:
        cap = smoothstep(0.075, 0.0, (self._rows - skyline[None, :]) + 0.06 * self._grain.fractal(0.06, 3))
        pigment *= 1.0 - 0.8 * (cap * mask)[..., None]

    def _roofs(self, depth: float) -> NDArray[np.float32]:
        blocks = 22 + int(10 * depth)
        heights = self._grain.random.random(blocks).astype(np.float32) ** 2 * (0.20 - 0.06 * depth)
        return np.repeat(heights, self._grain.width // blocks + 1)[: self._grain.width]

    def _pines(self, pigment: Pigment, skyline: NDArray[np.float32], colour: Colour, depth: float) -> None:
        height, width = self._grain.height, self._grain.width
        trees = np.zeros((height, width), np.float32)
        for _ in range(int(26 - 12 * depth)):
            x = int(self._grain.random.random() * width)
            tall = (0.10 + 0.12 * depth) * float(self._grain.random.uniform(0.6, 1.25)) * height
            foot = float(skyline[min(x, width - 1)]) * height + 0.02 * height
            for tier in range(6):
                spread = tall * 0.05 * (tier + 1.2) * float(self._grain.random.uniform(0.8, 1.2))
                peak = foot - tall + tall * tier / 7
                points = [(x, peak), (x - spread, peak + tall * 0.24), (x + spread, peak + tall * 0.24)]
                cv2.fillPoly(trees, [np.asarray(points, np.int32)], 1.0, cv2.LINE_AA)
        rough = smoothstep(0.25, 0.6, blurred(trees, 1.2) + 0.22 * self._grain.fractal(0.02, 2))
        pigment *= 1.0 - 0.7 * rough[..., None]
        lay(pigment, granulated(rough, self._grain, self._tooth, 0.2), colour, 1.15)

    def _waves(self, pigment: Pigment) -> None:
        depth = np.clip((self._rows - self._horizon) / (1 - self._horizon), 0, 1)
        frequency = 26 / (0.12 + depth) ** 0.5
        swell = np.sin(frequency * depth * 3 + 2.2 * self._grain.fractal(0.12, 3) + 9 * self._columns * 0.3)
        foam = smoothstep(0.72, 0.98, swell.astype(np.float32)) * smoothstep(
            -0.1, 0.4, self._grain.fractal(0.1, 3)
        )
        pigment *= 1.0 - 0.7 * (foam * (depth > 0))[..., None]
        glitter = self._halo(self.light_x, self._horizon + 0.2, 0.22) * smoothstep(
            0.2, 0.5, self._grain.fractal(0.02, 2)
        )
        pigment *= 1.0 - 0.75 * (glitter * (depth > 0))[..., None]

    def _gulls(self, pigment: Pigment) -> None:
        mask = np.zeros((self._grain.height, self._grain.width), np.float32)
        for _ in range(4):
            x, y = self._grain.random.uniform(0.15, 0.85), self._grain.random.uniform(0.10, 0.3)
            size = self._grain.random.uniform(5, 10)
            centre = np.asarray([x * self._grain.width, y * self._grain.height])
            wings = np.asarray([(-1.6, -0.2), (-0.8, -0.8), (0, 0), (0.8, -0.8), (1.6, -0.2)]) * size + centre
            cv2.polylines(mask, [wings.astype(np.int32)], False, 1.0, 1, cv2.LINE_AA)
        lay(pigment, mask, self._scene.ink, 0.8)

    def _specks(self, pigment: Pigment) -> None:
        height, width = self._grain.height, self._grain.width
        for colour in (*self._scene.accents[:4], (0.99, 0.96, 0.88)):
            mask = np.zeros((height, width), np.float32)
            for _ in range(46):
                x = self._grain.random.random()
                depth = float(self._grain.random.random()) ** 0.7
                y = self._horizon + 0.12 + depth * (0.9 - self._horizon)
                size = (0.8 + 2.6 * depth) * float(self._grain.random.uniform(0.6, 1.3))
                cv2.circle(mask, (int(x * width), int(y * height)), max(1, round(size)), 1.0, -1, cv2.LINE_AA)
            cover(pigment, blurred(mask, 0.7), colour, 0.75)
