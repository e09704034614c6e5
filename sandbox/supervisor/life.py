"""The life of one supervisor: start everything, wait, stop everything."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from sandbox.supervisor.errors import PortInUse
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.ports import wait_until_free
from sandbox.supervisor.process import Plan, Show
from sandbox.supervisor.tree import ProcessTree

PORT_SECONDS_MAX = 2.0
"""How long the public port may stay busy: an instance that was just killed needs a moment."""


async def supervise(
    folder: DataFolder,
    address: tuple[str, int],
    make_plan: Callable[[], Plan],
    show: Show,
    started: Callable[[Plan, float], None],
) -> None:
    """Run the plan until SIGINT, SIGTERM or SIGHUP. Raises `SupervisorError` if it does not start.

    `started` is told once how many seconds it took. Children are bound to the calling
    thread, which must be the main one.
    """
    began = time.monotonic()
    stop = _stop_on_signals()
    host, port = address
    if not wait_until_free(host, port, PORT_SECONDS_MAX):
        raise PortInUse(
            f"Port {port} is in use by another program: choose another one, as in `make run PORT={port + 1}`."
        )
    show("Starting …")
    plan = make_plan()
    for note in plan.notes:
        show(note)
    tree = ProcessTree(plan.specs, folder, show)
    try:
        if await _start_unless_stopped(tree, stop):
            started(plan, time.monotonic() - began)
            await stop.wait()
    finally:
        await _shut_down(tree, stop, show)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup a hang-up is to be ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)
    return stop


async def _start_unless_stopped(tree: ProcessTree, stop: asyncio.Event) -> bool:
    """Start the tree; False if asked to stop meanwhile."""
    starting, stopping = asyncio.create_task(tree.start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    starting.result()
    return True


async def _shut_down(tree: ProcessTree, stop: asyncio.Event, show: Show) -> None:
    """Stop in order; a second Ctrl-C ends everything at once."""
    show("Stopping …")
    stop.clear()
    stopping, again = asyncio.create_task(tree.stop()), asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not stopping.done():
        tree.kill()
    await stopping
    show("Stopped.")
