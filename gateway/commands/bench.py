"""`llamasketch bench`: the measuring programs live in `bench/`, beside the code that they measure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.commands.stack import fail

ROOT = Path(__file__).resolve().parents[2]


def run_benches(names: Sequence[str], arguments: Sequence[str]) -> int:
    """Run each and give the first exit code that is not 0."""
    codes = []
    for name in names:
        if not (ROOT / "bench" / f"{name}.py").exists():
            fail("Measuring needs the source tree: run it from a clone.")
        codes.append(subprocess.call([sys.executable, "-m", f"bench.{name}", *arguments], cwd=ROOT))
    return next((code for code in codes if code), 0)
