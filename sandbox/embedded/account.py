"""Which user the embedded servers run as.

PostgreSQL refuses to run as root. An ordinary user runs it as himself; root drops to an
unprivileged user, who must be able to reach the data folder and the programs.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user that root drops to."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Whom to drop to if we are root; None if we already are an ordinary user.

    `initdb` wants a user that has an entry in the password file, which `nobody` always has.
    """
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def can_traverse(folder: Path, account: Account | None) -> bool:
    """Whether `account` may walk to `folder` and into it. Folders that do not exist yet will be made."""
    if account is None:
        return True
    folder = folder.resolve()
    return all(_has(path, account, 0o1) for path in (folder, *folder.parents) if path.exists())


def can_run(program: Path, account: Account | None) -> bool:
    """Whether `program` exists and `account` may walk to it, read and execute it."""
    return (
        program.exists()
        and can_traverse(program.parent, account)
        and (account is None or _has(program, account, 0o5))
    )


def _has(path: Path, account: Account, bits: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return status.st_mode >> 6 & bits == bits
    if status.st_gid == account.gid:
        return status.st_mode >> 3 & bits == bits
    return status.st_mode & bits == bits
