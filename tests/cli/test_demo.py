"""`llamasketch demo` against a whole stack of its own. (Against one that runs: `tests/e2e/test_demo.py`; its end: `test_endings.py`.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox.demo.client import DemoFailed, draw_llama, read_or_draw
from tests.e2e.stack import ROOT

STEPS = [
    "visitor",
    "free image",
    "top-up by card",
    "top-up by lightning",
    "top-up by liquid",
    "rest of the free images",
    "paid image",
    "failed image",
    "statement",
    "integrity",
]
SECONDS_MAX = 180


def demo(data: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    given = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo", "--json", *arguments],
        env={**given, "LLAMASKETCH_DATA": str(data), "SANDBOX_COMFYUI_PAINT_SECONDS": "0.1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "{}")


@pytest.mark.thorough
@pytest.mark.slow
def test_a_stack_of_its_own_is_started_shown_and_stopped(tmp_path: Path) -> None:
    sketch = tmp_path / "sketch.png"
    sketch.write_bytes(draw_llama((128, 96)))
    code, returned = demo(tmp_path / "nothing-here", "--sketch", str(sketch))
    assert returned["problems"] == []
    assert (code, returned["ok"], returned["own_stack"]) == (0, True, True)
    assert [step["step"] for step in returned["steps"]] == STEPS
    by_name = {step["step"]: step for step in returned["steps"]}
    assert [by_name[name]["available"] for name in STEPS[:8]] == [20, 19, 119, 219, 319, 300, 299, 299]
    assert (by_name["paid image"]["paid_credits"], by_name["failed image"]["credits"]) == (1, 0)
    assert by_name["integrity"]["verified"]
    assert not any(_is_alive(pid, returned["url"]) for pid in _processes()), "something of its stack is left"


def test_what_is_no_picture_is_no_sketch(tmp_path: Path) -> None:
    path = tmp_path / "sketch.png"
    path.write_text("not a picture")
    with pytest.raises(DemoFailed):
        read_or_draw(path)
    assert read_or_draw(None)["content_type"] == "image/png"
    assert demo(tmp_path, "--sketch", str(path))[0] == 2


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def _is_alive(process: Path, url: str) -> bool:
    try:
        line = (process / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return url.rpartition(":")[2] in line
