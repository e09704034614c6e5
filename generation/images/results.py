"""Workers' results are read here: a rented machine is a stranger, and its image must not cost minutes.

As uploads are: one at a time per process, within processor time and memory that the kernel holds. In processes of their
own, so that neither people's uploads nor files that are being written wait for them, nor they for those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from generation.domain.errors import ResultRejected, SketchRejected, TooManyUploads, UploadsBusy
from generation.images.checking import RESULT_BYTES_MAX
from generation.images.executors import ExecutorLost
from generation.images.uploads import PROCESSES, UploadProcesses

T = TypeVar("T")

RESULT_CPU_SECONDS_MAX = 10
"""Of one result. The largest honest one, 4096², takes three when it has to be re-encoded."""
WAITING_MAX = 4_096
_EVERYBODY = "workers"


class ResultProcesses:
    """An executor for what reads results: a few processes, each of which is at one of them and may be ended by it."""

    def __init__(self, processes: int = PROCESSES, *, cpu_seconds_max: int = RESULT_CPU_SECONDS_MAX) -> None:
        self._processes = UploadProcesses(
            processes,
            at_once=processes,
            waiting_each=WAITING_MAX,
            waiting_max=WAITING_MAX,
            cpu_seconds_max=cpu_seconds_max,
            small_bytes_max=2 * RESULT_BYTES_MAX,
        )

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """See `Executor.run`. Raises `ResultRejected` for what takes too much, `ExecutorLost`."""
        try:
            return await self._processes.run(_EVERYBODY, work, *arguments)
        except SketchRejected as error:
            raise ResultRejected("reading the uploaded file takes more than an image is worth") from error
        except (TooManyUploads, UploadsBusy) as error:
            raise ExecutorLost("too many results wait to be read") from error

    async def close(self) -> None:
        """See `Executor.close`."""
        await self._processes.close()
