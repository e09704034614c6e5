"""Asking once whether a process is ready."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.error
import urllib.request
from typing import assert_never

from sandbox.service import CommandReady, FileReady, HttpReady, Ready, TcpReady

PROBE_SECONDS_MAX = 2.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback is never asked through a proxy."""


async def is_ready(ready: Ready) -> bool:
    """Ask once, for at most two seconds."""
    match ready:
        case TcpReady(port=port):
            return await _accepts(port)
        case HttpReady(url=url):
            return await asyncio.to_thread(_answers, url)
        case FileReady(path=path):
            return await asyncio.to_thread(path.exists)
        case CommandReady(argv=argv):
            return await _succeeds(list(argv))
        case _:
            assert_never(ready)


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS_MAX):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=PROBE_SECONDS_MAX) as answer:
            return bool(200 <= answer.status < 300)
    except (OSError, urllib.error.URLError, ValueError):
        return False


async def _succeeds(argv: list[str]) -> bool:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PROBE_SECONDS_MAX):
            return await process.wait() == 0
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
