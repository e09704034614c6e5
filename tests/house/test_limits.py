"""No test gives a machine less time than a stalled one needs: limits are `SECONDS_MAX`, not a number of seconds."""

from __future__ import annotations

import ast

from tests.house.sources import python
from tests.waiting import SECONDS_MAX

AT_ONCE = 1.0
"""What is shorter is no limit: it is the time itself that is tried."""
SHORTER = {
    # Less than the thirty seconds for which the claim would wait by itself.
    "tests/gateway/test_events.py: 25",
    # A payment of LND's, which answers at once or is refused; the real one may need a while.
    "tests/rails/lightning/real_network.py: 20",
}


def limits(source: str) -> list[float]:
    """Numbers of seconds after which something is given up: `timeout(…)`, `wait_for(…, …)`, `timeout=…`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg in ("timeout", "seconds_max")]
        match node:
            case ast.Call(func=ast.Attribute(attr="timeout"), args=[limit]):
                given.append(limit)
            case ast.Call(func=ast.Attribute(attr="wait_for"), args=[_, limit]):
                given.append(limit)
        found += [
            limit.value
            for limit in given
            if isinstance(limit, ast.Constant) and isinstance(limit.value, int | float)
        ]
    return [limit for limit in found if AT_ONCE < limit < SECONDS_MAX]


def test_nobody_is_waited_for_a_few_seconds() -> None:
    found = {f"{source.path}: {limit:g}" for source in python("tests") for limit in limits(source.text)}
    assert found - SHORTER == set(), "a machine may stall for seconds: SECONDS_MAX of tests/waiting.py"


def test_the_check_sees_what_it_is_for() -> None:
    assert limits("async with asyncio.timeout(5): pass") == [5]
    assert limits("await asyncio.wait_for(one(), 10)") == [10]
    assert limits("httpx.get(url, timeout=2.5)") == [2.5]
    assert limits("httpx.get(url, timeout=0.2)") == []
    assert limits("asyncio.timeout(SECONDS_MAX)") == []
    assert limits("subprocess.run(x, timeout=120)") == []
