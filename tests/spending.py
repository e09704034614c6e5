"""What something costs the processor, where the machine may be charged for more: a virtual one for its stalls."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIES = 3


def cpu_seconds_of(work: Callable[[], object], enough: float) -> float:
    """The processor's time of `work`, in seconds; the least of three if the first ones are not below `enough`."""
    least = float("inf")
    for _ in range(TRIES):
        began = time.process_time()
        work()
        least = min(least, time.process_time() - began)
        if least < enough:
            break
    return least
