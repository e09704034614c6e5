"""How a sandbox tells the supervisor what to start and how to know that it is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias


class PortBook(Protocol):
    """Hands out loopback ports."""

    def __call__(self, name: str) -> int:
        """The port for this name: free when first asked for, the same on every later start."""


@dataclass(frozen=True, slots=True)
class TcpReady:
    """Ready when `127.0.0.1:port` accepts a connection."""

    port: int


@dataclass(frozen=True, slots=True)
class HttpReady:
    """Ready when a GET of `url` answers with a 2xx status."""

    url: str


@dataclass(frozen=True, slots=True)
class FileReady:
    """Ready when `path` exists. A file left by an earlier run is deleted before the start."""

    path: Path


@dataclass(frozen=True, slots=True)
class CommandReady:
    """Ready when this command line exits with 0."""

    argv: Sequence[str]


Ready: TypeAlias = TcpReady | HttpReady | FileReady | CommandReady


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process of the sandbox."""

    name: str
    argv: Sequence[str]
    """What follows `sys.executable`, for example `("-m", "sandbox.lnd", "--port", "20123")`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the gateway and the worker need in their environment to talk to it."""
    ready: Ready
    depends_on: Sequence[str] = ()
    """Names of services that must be ready before this one starts."""


class Describe(Protocol):
    """The shape of `describe` in every `sandbox/<name>/service.py`."""

    def __call__(self, data_dir: Path, port: PortBook) -> Service:
        """Say how to start this sandbox with its data under `data_dir`. Starts nothing."""
