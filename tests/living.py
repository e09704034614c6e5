"""Looking at the processes of this machine."""

from __future__ import annotations

from pathlib import Path


def living() -> dict[int, tuple[int, str]]:
    """Every process that is not a zombie: its parent and its command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                argv = (folder / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(folder.name)] = (int(parent), argv)
    return found
