"""`python -m bench NAME … -- ARGUMENT …`: measuring programs one after the other, none of which leaves anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.containment import contain
from sandbox.embedded.command import bound_to_parent

FOLDER = "BENCH_FOLDER"
"""The setting that names another place for temporary folders, on another disk for example."""


def main(arguments: Sequence[str]) -> int:
    """Run each and give the first exit code that is not 0."""
    middle = list(arguments).index("--")
    names, given = arguments[:middle], arguments[middle + 1 :]
    place = os.environ.get(FOLDER)
    contain(Path(place) if place else None)
    codes = [
        subprocess.call(
            bound_to_parent([sys.executable, "-m", f"bench.{name}", *given], signal.SIGKILL, None)
        )
        for name in names
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
