"""Smooth random fields, made by enlarging small random grids: cheap and the same everywhere."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""Height x width."""


class Grain:
    """A source of fields of one size; the seed and the order of calls fix every value."""

    def __init__(self, seed: int, width: int, height: int) -> None:
        self._random = np.random.default_rng(seed)
        self.width = width
        self.height = height

    @property
    def random(self) -> np.random.Generator:
        """Single random numbers from the same source."""
        return self._random

    def smooth(self, cell: float) -> Field:
        """One octave in 0..1 whose bumps are about `cell` of the longer side wide."""
        step = max(1.0, cell * max(self.width, self.height))
        rows, columns = int(self.height / step) + 3, int(self.width / step) + 3
        grid = self._random.random((rows, columns), dtype=np.float32)
        field = cv2.resize(grid, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        return np.clip(field, 0.0, 1.0).astype(np.float32)

    def fractal(self, cell: float, octaves: int = 4) -> Field:
        """Octaves on top of each other, in about -1..1 with mean 0."""
        total = np.zeros((self.height, self.width), np.float32)
        weight = 0.5
        for _ in range(octaves):
            total += weight * (self.smooth(cell) - 0.5)
            cell, weight = cell / 2, weight * 0.55
        return (total * 2.4).astype(np.float32)

    def ridge(self, roughness: float, octaves: int = 5) -> NDArray[np.float32]:
        """A skyline in about -1..1, one value per column."""
        total = np.zeros(self.width, np.float32)
        weight, knots = 0.6, 4
        for _ in range(octaves):
            heights = self._random.random((1, knots), dtype=np.float32) - 0.5
            total += weight * cv2.resize(heights, (self.width, 1), interpolation=cv2.INTER_CUBIC)[0]
            knots, weight = knots * 2, weight * roughness
        return (total * 1.8).astype(np.float32)


def smoothstep(low: float, high: float, field: Field) -> Field:
    """0 below `low`, 1 above `high`, smooth between; `high` may be the smaller."""
    t = np.clip((field - low) / (high - low), 0.0, 1.0)
    smooth: Field = (t * t * (3.0 - 2.0 * t)).astype(np.float32)
    return smooth


def gradient(place: Field, stops: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours between `stops` (count x 3) at each place, 0..1; height x width x 3."""
    at = np.arange(len(stops))
    channels = [np.interp(place * (len(stops) - 1), at, stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=2).astype(np.float32)


def shifted(field: Field, right: Field, down: Field) -> Field:
    """A field whose values come from so many pixels further right and down."""
    rows, columns = np.indices(field.shape, dtype=np.float32)
    moved = cv2.remap(field, columns + right, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.float32)


def blurred(field: Field, sigma: float) -> Field:
    """A Gaussian blur; wide ones are done at a quarter of the size."""
    if sigma > 12:
        size = (field.shape[1], field.shape[0])
        small = cv2.resize(field, (max(8, size[0] // 4), max(8, size[1] // 4)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / 4, borderType=cv2.BORDER_REPLICATE)
        return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).astype(np.float32)
