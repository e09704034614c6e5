"""What can keep the stack from starting. Each message is one sentence for the person at the console."""

from __future__ import annotations


class SupervisorError(Exception):
    """The stack cannot be started."""


class AlreadyRunning(SupervisorError):
    """Another instance uses this data folder."""


class PortInUse(SupervisorError):
    """The public port belongs to another program."""


class ChildFailed(SupervisorError):
    """A process did not become ready."""


class SetupMissing(SupervisorError):
    """Installed packages are missing."""
