"""`llamasketch demo` against a stack that runs: what it shows, and what it says when something does not add up."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.cli.test_demo import STEPS
from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow
ROW = ("acct_nobody", 5, 0, 0, 1)


@pytest.fixture
def balance_that_lies(stack: Stack) -> Iterator[str]:
    """The account of a balance that no event explains."""
    with psycopg.connect(stack.setting("DATABASE_URL"), autocommit=True) as connection:
        connection.execute("INSERT INTO balances VALUES (%s, %s, %s, %s, %s)", ROW)
        yield ROW[0]
        connection.execute("DELETE FROM balances WHERE account_id = %s", ROW[:1])


@pytest.mark.thorough  # Commands on a running stack are tried in `cli`.
async def test_on_a_running_stack_a_balance_that_lies_is_a_discrepancy(
    stack: Stack, balance_that_lies: str
) -> None:
    code, returned = await stack.llamasketch("demo")
    assert [step["step"] for step in returned["steps"]] == STEPS
    assert (code, returned["ok"], returned["own_stack"]) == (1, False, False)
    (problem,) = returned["problems"]
    assert f"{balance_that_lies} of balances is not what a fresh replay gives" in problem
