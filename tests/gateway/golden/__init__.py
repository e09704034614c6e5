"""What clients and stored data depend on, word for word. A difference is a change of the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def golden(name: str) -> Any:
    """The content of `<name>.json` in this folder."""
    return json.loads((HERE / f"{name}.json").read_text())
