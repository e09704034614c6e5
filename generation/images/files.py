"""Files as objects are kept in: each whole or not at all, and on the disk when the call returns."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from generation.domain.errors import ObjectMissing, ObjectTaken

T = TypeVar("T")
LIST_PAGE = 1_000
_CLOSED, _CLOSED_FOLDER = 0o600, 0o700
"""People's pictures are nobody else's on this machine."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Linked(NamedTuple):
    """What is in another file: it gets a second name."""

    source: str
    sha256: str
    """Of what is meant. The file may have been replaced."""
    limit_bytes: int


class Found(NamedTuple):
    """A file, and when it was written."""

    path: str
    written_at: datetime


def write_files(
    top: str,
    files: Sequence[tuple[str, bytes | Linked]],
    replace: bool,
    sync: Callable[[int], None] = os.fsync,
) -> None:
    """Write files below `top`, each whole or not at all; they are on the disk when this returns.

    Without `replace`, raises `ObjectTaken` where there is a file with other bytes. Raises `ObjectMissing` where what is
    to be linked is neither at its source nor there already.
    """
    # The names are the folders', not the files': without the second step a power cut may take them back.
    folders = dict.fromkeys(
        folder for path, data in files for folder in _write(top, path, data, replace, sync)
    )
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # deleted already, with the object
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)


def _write(
    top: str, path: str, data: bytes | Linked, replace: bool, sync: Callable[[int], None]
) -> list[str]:
    """Returns the folders that have got something new."""
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{secrets.token_hex(6)}"
    changed = [folder]
    try:
        try:
            content = _begin(temporary, path, data, sync)
        except FileNotFoundError:
            _make_folders(folder)
            content = _begin(temporary, path, data, sync)
            if os.path.dirname(folder) == top:
                changed.append(top)
        if replace:
            os.replace(temporary, path)
        else:
            _name_once(temporary, path, content)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(data, Linked) and isinstance(error, FileNotFoundError):
            raise ObjectMissing from error
        raise
    return changed


def _begin(temporary: str, path: str, data: bytes | Linked, sync: Callable[[int], None]) -> bytes:
    """Have the content under a name of ours. Raises `FileNotFoundError`."""
    if isinstance(data, Linked):
        return _link(temporary, path, data)
    with open(os.open(temporary, _NEW, _CLOSED), "wb", buffering=0) as opened:
        rest = memoryview(data)
        while rest:
            rest = rest[opened.write(rest) :]
        sync(opened.fileno())
    return data


def _link(temporary: str, path: str, linked: Linked) -> bytes:
    """Give what was put at the source a name of ours, and look at it then: no file is changed after it has its name."""
    try:
        os.link(linked.source, temporary)
    except FileNotFoundError:
        os.link(path, temporary)  # whoever was here before has deleted the source
    content = read_file(temporary, linked.limit_bytes)
    if hashlib.sha256(content).hexdigest() != linked.sha256:
        raise ObjectMissing
    return content


def _make_folders(folder: str) -> None:
    missing: list[str] = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(missing):
        # Not os.makedirs: it gives its mode to the last folder only. Another process may be first.
        with contextlib.suppress(FileExistsError):
            os.mkdir(each, _CLOSED_FOLDER)


def _name_once(temporary: str, path: str, data: bytes) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        if os.path.getsize(path) != len(data) or read_file(path, len(data)) != data:
            raise ObjectTaken from None
    os.unlink(temporary)


def delete_file(top: str, path: str) -> None:
    """Delete a file; deleting none is fine."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)
    folder = os.path.dirname(path)
    if os.path.dirname(folder) != top:  # of one job's uploads; not one of the few big ones
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def read_file(path: str, limit_bytes: int) -> bytes:
    """A file's bytes. Raises `ObjectMissing`; `ValueError` if there are more than the limit."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit_bytes + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectMissing from error
    if len(data) > limit_bytes:
        raise ValueError("the object is larger than allowed")
    return data


def pages(top: str, folder: str) -> Iterator[Sequence[Found]]:
    """All files below a folder, by their paths below `top`."""
    page: list[Found] = []
    for path, _, names in os.walk(f"{top}/{folder}"):
        for name in names:
            file = f"{path}/{name}"
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                written_at = datetime.fromtimestamp(os.stat(file).st_mtime, UTC)
                page.append(Found(os.path.relpath(file, top), written_at))
            if len(page) == LIST_PAGE:
                yield page
                page = []
    if page:
        yield page


def use_file(path: str, limit_bytes: int, work: Callable[[bytes], T]) -> T:
    """What `work` makes of a file's bytes."""
    return work(read_file(path, limit_bytes))
