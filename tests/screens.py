"""How pages are shown to tests that go through all of them.

`make test` shows every page in both themes and both widths, but what people do on it on one screen only: on a phone in
the dark, or at a desk. `make test-thorough` shows the other combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pytest

Screen: TypeAlias = tuple[str, int]
"""Theme, and width in pixels."""

DESK, PHONE = ("light", 1280), ("dark", 360)
EVERY: Sequence[Screen] = (DESK, PHONE, ("light", 360), ("dark", 1280))


def shown(*always: Screen) -> list[object]:
    """These screens, and the others where all are wanted."""
    return [
        screen if screen in always else pytest.param(screen, marks=pytest.mark.thorough) for screen in EVERY
    ]


SCREENS = shown(DESK, PHONE)
"""For whole pages."""
ON_A_PHONE = shown(PHONE)
"""For what people do on a page whose looks at a desk are known: by a neighbour, or by `SCREENS`."""
AT_A_DESK = shown(DESK)
THEMES = ["light", pytest.param("dark", marks=pytest.mark.thorough)]
"""For what differs from its neighbours in its words alone."""
