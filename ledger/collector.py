"""Python's garbage collector, for processes that keep many states in memory."""

from __future__ import annotations

import gc


def calm_garbage_collector() -> None:
    """Leave what lives for ever out of collections, and collect less often.

    The ledger's states are many, long-lived and free of cycles; with the defaults a collection of the
    oldest generation walks all of them again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
