"""Faults that a test or an operator can switch on by `POST /sandbox/faults`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sandbox.common import faults

Count = Annotated[int, Meta(ge=0)]


class Faults(faults.Faults):
    """Counts are used up one by one; everything else stays until set otherwise."""

    die: Count = 0
    """The process exits inside the next run."""
    oom: Count = 0
    """The next run reports that the GPU is out of memory."""
    hang: bool = False
    """Runs neither move nor honour an interrupt."""
    drop_ws: Count = 0
    """All sockets are closed during the next run."""
    black_image: Count = 0
    """The next saved picture is black."""
    error_next: Count = 0
    """The next run fails in its first node."""
    lose_interrupt: Count = 0
    """An interrupt answers 200 and does nothing."""
    lose_prompt_answer: Count = 0
    """The prompt is queued, and the connection closed without an answer."""
    slow: Annotated[float, Meta(ge=0)] = 1.0
    """Factor on the time that sampling takes."""
    lost_nodes: tuple[str, ...] = ()
    """Node classes that are not installed."""
    lost_models: tuple[str, ...] = ()
    """Model files that are not there."""
    corrupt_models: tuple[str, ...] = ()
    """Model files that are there and cannot be loaded."""
    load_seconds: Annotated[float, Meta(ge=0)] = 0.0
    """How long each model file takes to load, without a message, once in this process's life."""
    history_lag_ms: Count = 0
    """Delay between the success message and the history entry."""
