"""Folders of a run of the tests. What a killed run leaves behind is removed by the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "llamasketch-tests-"
MEMORY = Path("/dev/shm")
MEMORY_BYTES_FREE_MIN = 6 * 1024**3
"""Two processes fill less than half of it."""


def memory_or_disk() -> Path:
    """Where files cost no disk, if there is room: a run makes and deletes hundreds of databases."""
    if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_FREE_MIN:
        return MEMORY
    return Path(tempfile.gettempdir())


class HeldFolder:
    """A fresh folder that all may enter, held by this process until `remove`, or until the process ends.

    Held means locked: the kernel lets go of a lock however its process ends, so what nobody holds is abandoned.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Make it in `parent`, or where temporary files are."""
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            # Until it is locked it may be taken for abandoned; then there must be another.
            with suppress(FileNotFoundError):
                self._descriptor = os.open(self.path, os.O_RDONLY)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                self.path.chmod(0o755)
                return

    def remove(self) -> None:
        """Delete what is there, and let go."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


@contextmanager
def held_folder(parent: Path | None = None) -> Iterator[Path]:
    """The same, removed at the end."""
    folder = HeldFolder(parent)
    try:
        yield folder.path
    finally:
        folder.remove()


def remove_abandoned(parent: Path) -> None:
    """Delete the folders in `parent` that no living process holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
