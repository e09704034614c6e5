"""The neon style: light on black instead of pigment on paper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.noise import Field, Grain, blurred, gradient, smoothstep
from sandbox.comfyui.painting.palette import Colour

_SKY: tuple[Colour, ...] = ((0.03, 0.02, 0.10), (0.10, 0.04, 0.24), (0.36, 0.06, 0.42), (0.86, 0.22, 0.50))
_TUBES: tuple[Colour, ...] = ((0.15, 0.95, 1.0), (1.0, 0.25, 0.75), (0.65, 0.45, 1.0))


def paint_neon(line: Field, body: Field, horizon: float, grain: Grain) -> NDArray[np.uint8]:
    """A dark evening with a striped sun and a grid; the sketch as glowing tubes. All at one size."""
    rows = np.linspace(0, 1, line.shape[0], dtype=np.float32)[:, None] * np.ones_like(line)
    columns = np.linspace(0, 1, line.shape[1], dtype=np.float32)[None, :] * np.ones_like(line)
    light = _evening(rows, columns, horizon, line.shape[1] / line.shape[0])
    _grid(light, rows, columns, horizon)
    light *= 1.0 - 0.80 * body[..., None]
    lift = np.clip(1.0 - rows, 0, 1) * body
    light += lift[..., None] * np.asarray((0.10, 0.03, 0.22), np.float32)
    unit = line.shape[1] / 1024.0
    hue = np.clip(0.5 + 0.9 * (columns - 0.5) + 0.5 * (rows - 0.5), 0, 1)
    tube = gradient(hue, np.asarray(_TUBES, np.float32))
    core = smoothstep(0.45, 0.95, line)
    for sigma, gain in ((3.0, 0.9), (10.0, 1.15), (34.0, 1.7)):
        light += (blurred(line, sigma * unit) * gain)[..., None] * tube
    rim = np.clip(body - blurred(body, 7 * unit), 0, 1)
    light += (rim * 0.55)[..., None] * tube
    light = light * (1 - core[..., None]) + core[..., None] * (0.55 + 0.45 * tube)
    light *= 1.0 + 0.05 * grain.random.standard_normal(line.shape).astype(np.float32)[..., None]
    shoulder = 1.0 - np.exp(-1.25 * np.clip(light, 0, None))
    result: NDArray[np.uint8] = np.clip(shoulder / 0.80 * 255.0, 0, 255).astype(np.uint8)
    return result


def _evening(rows: Field, columns: Field, horizon: float, aspect: float) -> NDArray[np.float32]:
    light = gradient(np.clip(rows / horizon, 0, 1) ** 1.4, np.asarray(_SKY, np.float32))
    light *= np.where(rows > horizon, 0.16, 1.0)[..., None]
    centre = horizon - 0.20
    distance = np.sqrt(((columns - 0.5) * aspect) ** 2 + (rows - centre) ** 2)
    disc = smoothstep(0.262, 0.256, distance) * (rows < horizon)
    down = (rows - centre) / 0.26
    gap = smoothstep(
        0.0, 0.06, (np.mod(rows * 26, 1.0) - np.clip(0.15 + 0.5 * down, 0, 0.75)).astype(np.float32)
    )
    disc = disc * np.where(down > -0.15, gap, 1.0)
    warmth = np.clip((down + 1) / 2, 0, 1)[..., None]
    sun = (1 - warmth) * np.asarray((1.0, 0.86, 0.35)) + warmth * np.asarray((1.0, 0.20, 0.55))
    light = light * (1 - 0.85 * disc[..., None]) + 0.85 * disc[..., None] * sun
    glow = np.exp(-((distance / 0.42) ** 2)) * (rows < horizon)
    result: NDArray[np.float32] = (light + 0.25 * glow[..., None] * np.asarray((1.0, 0.3, 0.5))).astype(
        np.float32
    )
    return result


def _grid(light: NDArray[np.float32], rows: Field, columns: Field, horizon: float) -> None:
    depth = np.clip((rows - horizon) / (1 - horizon), 1e-3, 1)
    across = np.abs(np.mod((columns - 0.5) / (depth + 0.08) * 4.2, 1.0) - 0.5)
    along = np.abs(np.mod(2.4 / (depth + 0.12), 1.0) - 0.5)
    width_across, width_along = 0.012 / (depth + 0.08), 0.012 / (depth + 0.1) ** 1.2
    lines = np.maximum(np.exp(-((across / width_across) ** 2) * 2), np.exp(-((along / width_along) ** 2) * 2))
    fade = np.clip(depth * 2.2, 0, 1) * (rows > horizon)
    light += (lines * fade * 0.5)[..., None] * np.asarray((0.75, 0.15, 0.95), np.float32)
