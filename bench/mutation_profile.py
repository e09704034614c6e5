"""A pytest plugin: how the tests run for one mutant.

Hypothesis takes the same examples each time and does not shrink them. A test that waits for ever ends its process
soon, and so does the first one that fails: what would be tidied up after it is of no use, and may wait for ever, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, Phase, settings

PARENT = "MUTATION_PARENT"
"""The environment's name for the process that forks: it learns which test reaches what, with all the time it wants."""
HUNG = 36
"""The exit code that mutmut reads as a time-out."""
SECONDS_MIN, TIMES_USUAL = 10, 10
"""A test may take that long, and that many times as long as without a mutant: a busy machine finds nothing."""

settings.register_profile(
    "mutation",
    # A failing example is enough to know that a mutant is found: nobody reads the smallest one.
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not _is_trying_a_mutant():
        return (yield)
    # A thread, not a signal: the main thread may be waiting where no signal is heard.
    watch = threading.Timer(_seconds_max(item.nodeid), os._exit, (HUNG,))
    watch.daemon = True
    watch.start()
    try:
        return (yield)
    finally:
        watch.cancel()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and _is_trying_a_mutant():
        os._exit(1)


def _is_trying_a_mutant() -> bool:
    return os.environ.get(PARENT, str(os.getpid())) != str(os.getpid())


def _seconds_max(nodeid: str) -> float:
    from mutmut.state import state

    return SECONDS_MIN + TIMES_USUAL * state().duration_by_test.get(nodeid, 0)
