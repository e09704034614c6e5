"""One worker for one ComfyUI: a second one would interrupt the first one's pictures."""

from __future__ import annotations

import errno
import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ComfyUITaken(Exception):
    """Another worker on this machine drives this ComfyUI."""


def claim_comfyui(url: str) -> socket.socket | None:
    """Hold this ComfyUI until the socket is closed or the process ends. Raises `ComfyUITaken`.

    A name in the kernel, not a file: it is gone when its holder is, and it belongs to the same network
    namespace as the loopback address that it stands for. None where the address is no loopback: who else
    is there cannot be seen from here.
    """
    address = urlsplit(url)
    if address.hostname not in _LOOPBACK:
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(f"\0llamasketch-worker-comfyui-{address.port or 80}")
    except OSError as fault:
        held.close()
        if fault.errno == errno.EADDRINUSE:
            raise ComfyUITaken(f"another worker drives the ComfyUI at {url}") from fault
        return None
    return held


def owner_id(data_dir: Path) -> str:
    """This worker's name in ComfyUI's queue, the same after a restart: what it left there is its own."""
    path = data_dir / "comfyui-owner"
    with suppress(OSError, ValueError):
        return str(uuid.UUID(path.read_text("ascii").strip()))
    made = str(uuid.uuid4())
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_text(made, "ascii")
    temporary.replace(path)
    return made
