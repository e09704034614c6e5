"""How pages are shown to tests that go through all of them.

`make test` shows each in both themes and both widths, but not in all four combinations: `make test-thorough` shows the
others.
"""

from __future__ import annotations

import pytest

SCREENS = [
    ("light", 1280),
    ("dark", 360),
    pytest.param(("light", 360), marks=pytest.mark.thorough),
    pytest.param(("dark", 1280), marks=pytest.mark.thorough),
]
"""Theme, and width in pixels."""
THEMES = ["light", pytest.param("dark", marks=pytest.mark.thorough)]
"""For what differs from its neighbours in its words alone."""
