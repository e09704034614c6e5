"""Whether anything can be seen on a sketch. A blank one would be painted from nothing, and charged.

The same rule stands in three places that share no code: here, in the worker (`worker.pictures`) and in the page
(`blank.js`). `tests/generation/core/test_blank_sketches.py` and `test_blank_rules.py` hold them to the same verdicts.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

CELLS = 192
"""The longer side is looked at in about so many cells: noise of single pixels is averaged away, as it is by eyes."""
CONTRAST_MIN = 16
"""Of 255. Cells that differ by less, in each of red, green and blue, are one colour to whoever looks."""
HAIRLINE_CONTRAST_MIN = 48
"""Of 255, between pixels: a line of one pixel is lost in the cells of a large sheet, and seen all the same."""
HAIRLINE_PIXELS_MIN = 16
"""So many pixels are a line. Fewer are dust."""
BLANK = (
    "Nothing can be seen on this sketch: all of it has one colour, or nearly one. Draw something that stands out "
    "from the paper. What is transparent counts as white paper."
)


def is_blank(picture: Image.Image) -> bool:
    """Whether no line stands out. `picture` is opaque: grey or RGB."""
    if has_contrast(picture, cell_side(*picture.size)):
        return False
    return all(_spread(band, HAIRLINE_PIXELS_MIN) < HAIRLINE_CONTRAST_MIN for band in picture.split())


def cell_side(width: int, height: int) -> int:
    """Pixels of a cell's side."""
    return -(-max(width, height) // CELLS)


def has_contrast(picture: Image.Image, cell: int) -> bool:
    """Whether cells stand out: then it is not blank, and neither is any picture of which this is the top."""
    seen = picture.reduce(cell) if cell > 1 else picture
    return any(_spread(band, 1) >= CONTRAST_MIN for band in seen.split())


def _spread(band: Image.Image, pixels: int) -> int:
    """Between the values that so many pixels, at least, are as dark as, and as light as."""
    counts = band.histogram()
    darker = bisect_left(list(accumulate(counts)), pixels)
    lighter = bisect_left(list(accumulate(reversed(counts))), pixels)
    return 255 - lighter - darker
