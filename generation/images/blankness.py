"""Whether anything can be seen on a sketch. A blank one would be painted from nothing, and charged.

The same rule stands in three places that share no code: here, in the worker (`worker.pictures`) and in the page
(`blank.js`). `tests/generation/core/test_blank_sketches.py` and the browser's tests hold them to the same verdicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

CELLS = 192
"""The longer side is looked at in about so many cells: noise of single pixels is averaged away, as it is by eyes."""
CONTRAST_MIN = 16
"""Of 255. Cells that differ by less, in each of red, green and blue, are one colour to whoever looks."""
BLANK = (
    "Nothing can be seen on this sketch: all of it has one colour, or nearly one. Draw something that stands out "
    "from the paper. What is transparent counts as white paper."
)


def is_blank(picture: Image.Image) -> bool:
    """Whether no line stands out. `picture` is opaque: grey or RGB."""
    cell = -(-max(picture.size) // CELLS)
    seen = picture.reduce(cell) if cell > 1 else picture
    return all(_spread(band) < CONTRAST_MIN for band in seen.split())


def _spread(band: Image.Image) -> int:
    used = [value for value, count in enumerate(band.histogram()) if count]
    return used[-1] - used[0]
