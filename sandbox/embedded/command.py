"""How to start one server, and how to stop it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.embedded.account import Account
from sandbox.service import Ready


class EmbeddedError(Exception):
    """The embedded server cannot be prepared or started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """One native server as a command line. It dies with the thread that starts it."""

    name: str
    argv: Sequence[str]
    ready: Ready
    stop_signal: signal.Signals
    """Asks for an orderly stop at once, not waiting for clients to leave."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What others need in their environment to talk to it."""
    notes: Sequence[str] = ()
    """Sentences for the person who started it."""


def bound_to_parent(argv: Sequence[str], death_signal: signal.Signals, account: Account | None) -> list[str]:
    """Wrap `argv` so that it gets `death_signal` when its parent thread dies, and runs as `account`.

    `setpriv` is part of util-linux, which every Debian has.
    """
    return [setpriv(), *privileges(account), "--pdeathsig", death_signal.name.removeprefix("SIG"), *argv]


def privileges(account: Account | None) -> list[str]:
    """The `setpriv` options that make a process run as `account` and nothing more."""
    if account is None:
        return []
    return ["--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"]


def setpriv() -> str:
    """The path of `setpriv`."""
    found = shutil.which("setpriv") or shutil.which("setpriv", path="/usr/bin:/bin")
    if found is None:
        raise EmbeddedError("setpriv is missing: install the Debian package util-linux.")
    return str(Path(found))
