"""How long a parser is tried, and that it is the parser itself which is tried."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import PARSERS

SECONDS = float(os.environ.get("LLAMASKETCH_FUZZ_SECONDS", "0.5"))
"""For every test of `PARSERS` alike."""
ROOT = Path(__file__).parents[2]
FIRST_ROUND = 40
ROUND_MAX = 2_000
ROUNDS_MAX = 10
"""Each twice as long as the one before, in which all functions of a test must have been reached, whatever time that takes."""


def fuzzed(
    *whole: Mapping[str, Any], **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that is asked again with other values until its seconds are over. `whole` ones come first.

    It fails, too, if it has not reached every function that `PARSERS` names it for.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        taken = inspect.signature(test)
        fixtures = [one for one in taken.parameters.values() if one.name not in strategies]

        @functools.wraps(test)
        def until_the_time_is_up(**arguments: Any) -> None:
            began, asked, missing = time.monotonic(), 0, set(PARSERS[test.__name__])
            examples = FIRST_ROUND
            for _ in range(ROUNDS_MAX):
                with _reaching(missing):
                    _once(test, strategies, examples, whole)(**arguments)
                if not missing:
                    break
                examples = min(ROUND_MAX, examples * 2)
            assert not missing, f"never reached: {sorted(missing)}"
            while (spent := time.monotonic() - began) < SECONDS:
                asked += examples
                examples = max(FIRST_ROUND, min(ROUND_MAX, int(asked * (SECONDS - spent) / spent)))
                _once(test, strategies, examples)(**arguments)

        until_the_time_is_up.__signature__ = taken.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return until_the_time_is_up

    return decorate


def _once(
    test: Callable[..., None],
    strategies: dict[str, Any],
    examples: int,
    whole: Sequence[Mapping[str, Any]] = (),
) -> Callable[..., None]:
    # Where `CI` is set, Hypothesis would ask the same again in every round.
    bounded = settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    once: Callable[..., None] = bounded(given(**strategies)(test))
    for values in whole:
        once = example(**values)(once)
    return once


@contextlib.contextmanager
def _reaching(missing: set[str]) -> Iterator[None]:
    """Strike out what is called meanwhile."""
    before = sys.getprofile()
    names: dict[Any, str] = {}

    def called(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code not in names:
            names[code] = f"{code.co_filename.removeprefix(f'{ROOT}/')}:{code.co_qualname}"
            missing.discard(names[code])

    sys.setprofile(called if missing else before)
    try:
        yield
    finally:
        sys.setprofile(before)
