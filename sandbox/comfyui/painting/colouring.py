"""Which colour each area of a drawing gets."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.drawing import Drawing, Region
from sandbox.comfyui.painting.palette import Colour, Intent

TINY = 0.0022
_WINDOW = 0.008
_LINE: Colour = (0.24, 0.22, 0.30)
_LAMPLIGHT: Colour = (0.99, 0.86, 0.50)
_SNOW: Colour = (0.955, 0.965, 0.985)
_SUN: Colour = (1.0, 0.80, 0.36)
_MOON: Colour = (0.98, 0.95, 0.84)


def choose_colours(drawing: Drawing, intent: Intent) -> list[Colour]:
    """One colour per region, largest first. Pairs (ears, windows, fins) match."""
    chosen: list[Colour] = []
    accents = list(intent.subject[1:]) or [intent.subject[0]]
    hull = _hull_of(drawing.regions[0])
    for rank, region in enumerate(drawing.regions):
        given = _drawn_colour(drawing, region) or _by_place(drawing, intent, rank)
        twin = next((at for at in range(rank) if _alike(drawing.regions[at], region)), None)
        if given is not None:
            chosen.append(given)
        elif rank == 0:
            chosen.append(intent.subject[0])
        elif intent.creature and _is_limb(region, hull, drawing.regions[0]):
            chosen.append(chosen[0])
        elif intent.scene.dark and "house" in intent.kind and region.area < _WINDOW:
            chosen.append(_LAMPLIGHT)
        elif twin is not None:
            chosen.append(chosen[twin])
        elif region.area < TINY:
            chosen.append(_LAMPLIGHT if intent.scene.dark and region.area > TINY / 3 else _LINE)
        else:
            chosen.append(accents[0])
            accents.append(accents.pop(0))
    return chosen


def _hull_of(region: Region) -> NDArray[np.uint8]:
    points = cv2.findNonZero(region.mask)
    hull = np.zeros_like(region.mask)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull


def _is_limb(region: Region, hull: NDArray[np.uint8], trunk: Region) -> bool:
    """Heads, ears and tails stick out of the trunk or are large; blankets and patches do not."""
    inside = float(hull[region.mask > 0].mean())
    return region.area > TINY / 2 and (inside < 0.6 or region.area > 0.3 * trunk.area)


def sun_of(drawing: Drawing) -> Region | None:
    """A round shape that hangs alone in the upper sky."""
    for region in drawing.regions:
        _, _, wide, tall = cv2.boundingRect(region.mask)
        box = wide * tall / region.mask.size
        round_enough = 0.7 < wide / tall < 1.43 and 0.70 < region.area / box < 0.87
        if region.centre_y < 0.36 and 0.002 < region.area < 0.06 and round_enough and _alone(drawing, region):
            return region
    return None


def _alone(drawing: Drawing, region: Region) -> bool:
    x, y, wide, tall = cv2.boundingRect(region.mask)
    reach = wide // 2 + 4
    window = (slice(max(0, y - reach), y + tall + reach), slice(max(0, x - reach), x + wide + reach))
    return all(not other.mask[window].any() for other in drawing.regions if other is not region)


def _by_place(drawing: Drawing, intent: Intent, rank: int) -> Colour | None:
    region, largest = drawing.regions[rank], drawing.regions[0]
    if region is sun_of(drawing):
        return _MOON if intent.scene.dark else _SUN
    if rank == 0 or not largest.grounded:
        return None
    if region.grounded and region.centre_y > max(0.78, largest.centre_y):
        return intent.scene.land[-1]
    if "mountain" in intent.kind and region.centre_y < largest.centre_y and region.area < 0.4 * largest.area:
        return _SNOW
    return None


def _alike(one: Region, other: Region) -> bool:
    same_height = abs(one.centre_y - other.centre_y) < 0.06
    return same_height and other.area > 0.6 * one.area and one.area < 0.05


def _drawn_colour(drawing: Drawing, region: Region) -> Colour | None:
    """The hue of the strokes around a region, when they are not black or grey."""
    ring = cv2.dilate(region.mask, np.ones((9, 9), np.uint8)) - cv2.erode(
        region.mask, np.ones((5, 5), np.uint8)
    )
    inked = (ring > 0) & (drawing.ink > 0.5)
    if int(inked.sum()) < 12:
        return None
    colour = np.median(drawing.colour[inked], axis=0)
    if float(colour.max() - colour.min()) < 0.22:
        return None
    light = 0.35 + 0.65 * colour
    return (float(light[0]), float(light[1]), float(light[2]))
