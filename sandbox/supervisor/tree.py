"""The process tree: started in parallel as far as dependencies allow, stopped in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sandbox.supervisor.errors import SupervisorError
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.process import Child, ChildSpec, Show


class ProcessTree:
    """All children of one supervisor."""

    def __init__(self, specs: Sequence[ChildSpec], folder: DataFolder, show: Show) -> None:
        """Dependencies on names that are not among `specs` count as met: they are served elsewhere."""
        self._children = {
            spec.name: Child(spec, lambda name=spec.name: folder.log_file(name), show)  # type: ignore[misc]
            for spec in in_order(specs)
        }

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    async def start(self) -> None:
        """Start everything and wait until it is ready; the first failure ends the start."""
        ready = {name: asyncio.Event() for name in self._children}

        async def bring_up(child: Child) -> None:
            for name in () if child.spec.waits_itself else child.spec.depends_on:
                if name in ready:
                    await ready[name].wait()
            await child.start()
            ready[child.spec.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children.values():
                    group.create_task(bring_up(child))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """Stop everything: who depends on others first, the independent at the same time."""
        gone = {name: asyncio.Event() for name in self._children}

        async def take_down(child: Child) -> None:
            for other in self._children.values():
                if child.spec.name in other.spec.depends_on:
                    await gone[other.spec.name].wait()
            await child.stop()
            gone[child.spec.name].set()

        async with asyncio.TaskGroup() as group:
            for child in self._children.values():
                group.create_task(take_down(child))

    def kill(self) -> None:
        """End everything at once."""
        for child in self._children.values():
            child.kill()


def in_order(specs: Sequence[ChildSpec]) -> list[ChildSpec]:
    """The same specs, each after what it depends on. Raises `SupervisorError` on a circle."""
    waiting, names = list(specs), {spec.name for spec in specs}
    ordered: list[ChildSpec] = []
    while waiting:
        placed = {spec.name for spec in ordered}
        free = [spec for spec in waiting if not (set(spec.depends_on) & names) - placed]
        if not free:
            raise SupervisorError(f"These depend on each other: {', '.join(spec.name for spec in waiting)}.")
        ordered += free
        waiting = [spec for spec in waiting if spec not in free]
    return ordered
