"""A sketch as it is kept. Apart from the rest, since the processes that decode uploads load little."""

from __future__ import annotations

from typing import NamedTuple


class Sketch(NamedTuple):
    """A sketch as we keep it: a PNG of pixels and nothing else."""

    data: bytes
    sha256: str
    width: int
    """Width of the image to be made, a multiple of 16."""
    height: int
