"""Ports for servers of one's own on loopback."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

RANGE_OF_THE_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 10_000
USUAL_END = 32_768
ATTEMPTS_MAX = 100


def free_port() -> int:
    """A loopback port that nobody listens on, and that the kernel hands to nobody else meanwhile.

    Asked for "any port", the kernel answers from a range out of which it also serves outgoing
    connections: what was free when it was asked is taken a moment later. So these lie below it.
    """
    end = _end()
    for _ in range(ATTEMPTS_MAX):
        port = LOWEST + secrets.randbelow(end - LOWEST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"{ATTEMPTS_MAX} loopback ports between {LOWEST} and {end} were tried, and none is free.")


@cache
def _end() -> int:
    """Where the kernel's own range begins, if there is room below it."""
    try:
        first = int(RANGE_OF_THE_KERNEL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return USUAL_END
    return first if first > LOWEST + ATTEMPTS_MAX else USUAL_END
