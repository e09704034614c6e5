"""Reads a sketch: where its ink is, what it encloses, which colours it uses."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.noise import Field, blurred, smoothstep

LEAST_INK = 0.0004
_LEAST_REGION = 0.00025


BLANK = "the sketch is blank: draw at least one stroke"


@dataclass(frozen=True, slots=True)
class Region:
    """An area that strokes enclose."""

    mask: NDArray[np.uint8]
    area: float
    centre_y: float
    grounded: bool
    """It runs out of the picture at the bottom or the sides: land rather than a thing."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A sketch at working size. Fields are 0..1, coordinates are fractions of the size."""

    ink: Field
    colour: NDArray[np.float32]
    regions: list[Region]
    body: Field
    top: float
    bottom: float
    left: float
    right: float


def ink_of(sketch: NDArray[np.uint8]) -> Field:
    """How much ink is at each pixel, whatever the colours of ink and ground."""
    rim = np.concatenate([sketch[0], sketch[-1], sketch[:, 0], sketch[:, -1]])
    ground = np.median(rim, axis=0).round().astype(np.uint8)
    red, green, blue = cv2.split(cv2.absdiff(sketch, np.broadcast_to(ground, sketch.shape)))
    distance = cv2.max(cv2.max(red, green), blue)
    steps = smoothstep(0.12, 0.55, np.arange(256, dtype=np.float32) / 255.0)
    return np.asarray(steps[distance], np.float32)


def read_drawing(sketch: NDArray[np.uint8], width: int, height: int) -> Drawing:
    """Read a sketch (height x width x 3). Raises `ValueError` when it holds no ink."""
    full = ink_of(sketch)
    if float(full.mean()) < LEAST_INK:
        raise ValueError(BLANK)
    ink = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    ink = np.clip(ink * 1.6, 0.0, 1.0)
    small = cv2.resize(sketch, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    solid = (ink > 0.3).astype(np.uint8)
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    if not len(columns):
        raise ValueError(BLANK)
    regions, body = _regions(solid)
    return Drawing(
        ink=ink,
        colour=small,
        regions=regions,
        body=body,
        top=float(rows[0]) / height,
        bottom=float(rows[-1]) / height,
        left=float(columns[0]) / width,
        right=float(columns[-1]) / width,
    )


def _regions(solid: NDArray[np.uint8]) -> tuple[list[Region], Field]:
    """Enclosed areas. Gaps between strokes are closed step by step until something encloses."""
    height, width = solid.shape
    unit = max(height, width) / 512.0
    ink_area = float(solid.mean())
    labels = np.zeros(solid.shape, np.int32)
    kept: list[int] = []
    for reach in (2, 5, 9, 14, 20):
        labels, kept = _enclosed(solid, max(1, round(reach * unit)))
        if sum(float((labels == name).mean()) for name in kept) > max(0.6 * ink_area, 0.012):
            break
    labels = _grow(labels, kept, solid, round(26 * unit))
    regions = [_measure(labels == name) for name in kept]
    regions.sort(key=lambda region: -region.area)
    body = np.isin(labels, kept).astype(np.float32) if kept else blurred(solid.astype(np.float32), 3 * unit)
    return regions, blurred(body.astype(np.float32), 0.8 * unit)


def _enclosed(solid: NDArray[np.uint8], reach: int) -> tuple[NDArray[np.int32], list[int]]:
    size = 2 * reach + 1
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    # The frame counts as paper, so a closing near it must not shut the outside in.
    wall = cv2.morphologyEx(
        cv2.copyMakeBorder(solid, size, size, size, size, cv2.BORDER_CONSTANT, value=0),
        cv2.MORPH_CLOSE,
        brush,
    )[size:-size, size:-size]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - wall, connectivity=4)
    outside = _outside(np.asarray(labels, np.int32))
    kept = [
        name
        for name in range(1, count)
        if name not in outside and stats[name, cv2.CC_STAT_AREA] > _LEAST_REGION * solid.size
    ]
    named: NDArray[np.int32] = np.asarray(labels, np.int32)
    return named, kept[:60]


def _outside(labels: NDArray[np.int32]) -> set[int]:
    """Labels open to the sky: what touches the top edge, or most of the frame."""
    outside = {int(name) for name in np.unique(labels[0])}
    frame = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    for name in np.unique(frame):
        if float((frame == name).mean()) > 0.55:
            outside.add(int(name))
    return outside


def _grow(
    labels: NDArray[np.int32], kept: list[int], solid: NDArray[np.uint8], reach: int
) -> NDArray[np.int32]:
    """Let the kept areas reach under the strokes around them, and no further than those."""
    if not kept:
        return np.zeros_like(labels)
    inside = np.isin(labels, kept)
    outer = ~inside & (labels > 0)
    distance, nearest = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    names = np.zeros(int(nearest.max()) + 1, np.int32)
    names[nearest[inside]] = labels[inside]
    grown = names[nearest]
    open_air = cv2.distanceTransform((~outer).astype(np.uint8), cv2.DIST_L2, 5)
    return np.where(inside | ((distance <= open_air) & (distance < reach) & ~outer), grown, 0).astype(
        np.int32
    )


def _measure(area: NDArray[np.bool_]) -> Region:
    rows, _ = np.nonzero(area)
    height = area.shape[0]
    touches = bool(area[-1].any() or (area[:, 0].any() and area[:, -1].any()))
    return Region(
        mask=area.astype(np.uint8),
        area=float(area.mean()),
        centre_y=float(rows.mean()) / height,
        grounded=touches,
    )
