"""`llamasketch bench`: the measuring programs live in `bench/`, beside the code that they measure."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from gateway.commands.stack import fail

ROOT = Path(__file__).resolve().parents[2]


def run_benches(names: Sequence[str], arguments: Sequence[str]) -> NoReturn:
    """Become the program that runs each: whoever ends this process ends them. Its exit code is the first that is not 0."""
    for name in names:
        if not (ROOT / "bench" / f"{name}.py").exists():
            fail("Measuring needs the source tree: run it from a clone.")
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "bench", *names, "--", *arguments])  # noqa: S606 - there is no shell
