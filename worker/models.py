"""Model files on this worker's disk: whether they are, byte for byte, what a graph declares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec


class Seen(msgspec.Struct, frozen=True):
    """A file that was read once. It is read again only if its size or its time of change is another."""

    size: int
    mtime_ns: int
    sha256: str


class ModelFiles:
    """ComfyUI's models folder. What was read is remembered in `model-digests.json` in `state`.

    Gigabytes take a while to read; a worker that restarts should not do it anew. Whoever can change a
    file and put its time back is not who this is against: it finds broken downloads and wrong versions.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._path = state / "model-digests.json"

    def complaints(self, declared: Mapping[str, str]) -> list[str]:
        """What is wrong with these files (SHA-256 in hex, by name); empty if nothing is. Blocks while it reads."""
        known = self._read()
        seen: dict[str, Seen] = {}
        found = []
        for name, sha256 in declared.items():
            files = list(self._candidates(name))
            if not files:
                found.append(f"model file '{name}' is not under {self._folder}")
            for file in files:
                try:
                    seen[str(file)] = entry = _look(file, known.get(str(file)))
                except OSError as fault:
                    found.append(f"model file {file} cannot be read: {fault.strerror}")
                    continue
                if entry.sha256 != sha256:
                    found.append(
                        f"model file {file} is not what it should be: its SHA-256 is {entry.sha256}, not {sha256}"
                    )
        if seen != {path: known.get(path) for path in seen}:
            self._write(known | seen)
        return found

    def _candidates(self, name: str) -> Iterator[Path]:
        """`models/<kind>/<name>`; ComfyUI's names may hold a folder. The kind is the loader's business."""
        root = self._folder.resolve()
        for folder in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
            file = folder / name
            # A name is from a graph file, which is ours, but it must not lead elsewhere all the same.
            if ".." not in file.parts and file.is_relative_to(folder) and file.is_file():
                yield file

    def _read(self) -> dict[str, Seen]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Seen])
        except (OSError, msgspec.DecodeError):
            return {}

    def _write(self, known: Mapping[str, Seen]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._path.with_suffix(".part")
        temporary.write_bytes(msgspec.json.encode({p: s for p, s in known.items() if Path(p).exists()}))
        temporary.replace(self._path)


def _look(file: Path, before: Seen | None) -> Seen:
    """The file's digest, from before if it has not changed. Raises `OSError`."""
    with file.open("rb") as content:
        # Asked before reading: what changes meanwhile is then read again at the next look.
        now = file.stat()
        if before is not None and (before.size, before.mtime_ns) == (now.st_size, now.st_mtime_ns):
            return before
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Seen(now.st_size, now.st_mtime_ns, digest)
