"""Several processes share the tests out by groups, so that what a group needs is started once."""

from __future__ import annotations

import pytest

from tests.conftest import group_of

RUN: list[str] = []


@pytest.mark.parametrize("number", range(6))
def test_the_tests_of_a_file_stay_in_one_process(number: int, request: pytest.FixtureRequest) -> None:
    # Every process knows all tests, and runs some.
    mine = [item.name for item in request.session.items if item.path == request.path]
    assert mine[: mine.index(request.node.name)] == RUN
    RUN.append(request.node.name)


def test_what_shares_a_stack_is_one_group() -> None:
    names = [
        "tests/e2e/test_a.py::test_it[a::b]",
        "tests/e2e/test_b.py::test_it",
        "tests/ledger/test_a.py::test_it",
    ]
    assert [group_of(name) for name in names] == ["tests/e2e", "tests/e2e", "tests/ledger/test_a.py"]
