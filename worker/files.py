"""ComfyUI keeps every input and output for ever, and slows down with them: we prune our own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from worker.comfyui.client import StoredImage


class ComfyFiles:
    """Our files under ComfyUI's folder. Without a folder nothing is done."""

    def __init__(self, folder: Path | None, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def delete(self, files: Iterable[StoredImage]) -> None:
        """Remove the files of one job."""
        if self._folder is None:
            return
        for file in files:
            root = (self._folder / file.kind).resolve()
            path = (root / file.subfolder / file.filename).resolve()
            if path.is_relative_to(root):
                path.unlink(missing_ok=True)

    def prune(self) -> int:
        """Remove the oldest of our files left by crashes, beyond `keep`; how many went."""
        if self._folder is None:
            return 0
        found = [
            *(self._folder / "input").glob("llamasketch-*"),
            *(self._folder / "output/llamasketch").glob("*"),
        ]
        dated = []
        for path in found:
            try:
                dated.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:
                continue
        surplus = sorted(dated)[: max(0, len(dated) - self._keep)]
        for _, path in surplus:
            path.unlink(missing_ok=True)
        return len(surplus)
