"""A picture that costs next to nothing, for measurements: painting takes processor time here, and none on a GPU machine."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sandbox.comfyui.painting.picture import PictureRequest


def tint(request: PictureRequest) -> NDArray[np.uint8]:
    """The sketch on paper whose colour is the seed's (height x width x 3, sRGB)."""
    paper = np.random.default_rng(request.seed).integers(160, 240, 3, np.uint16)
    drawn = cv2.resize(request.sketch, (request.width, request.height), interpolation=cv2.INTER_LINEAR)
    tinted: NDArray[np.uint8] = (drawn.astype(np.uint16) * paper >> 8).astype(np.uint8)
    return tinted
