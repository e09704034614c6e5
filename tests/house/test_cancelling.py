"""Nobody cancels a task once and then waits for it without a limit: it may swallow the one cancellation."""

from __future__ import annotations

import ast

from tests.house.sources import ROOT

PACKAGES = ("ledger", "rails", "generation", "mail", "processes", "projections", "gateway", "worker")
WAITS = {"gather", "wait"}


def waits_after_a_cancellation(source: str) -> list[int]:
    """Lines of functions that call `….cancel()` on a task and wait by themselves afterwards."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        cancelled: set[str] = set()
        for node in sorted(
            (n for n in ast.walk(function) if isinstance(n, ast.expr)), key=lambda n: (n.lineno, n.col_offset)
        ):
            match node:
                case ast.Call(func=ast.Attribute(value=cancels, attr="cancel"), args=[]):
                    cancelled.add(ast.unparse(cancels))
                case ast.Await(value=awaited) if cancelled and _waits_for(awaited, cancelled):
                    found.append(node.lineno)
    return found


def _waits_for(awaited: ast.expr, cancelled: set[str]) -> bool:
    match awaited:
        case ast.Call(func=ast.Attribute(attr=name), keywords=keywords) if name in WAITS:
            return not any(keyword.arg == "timeout" for keyword in keywords)
        case _:
            return ast.unparse(awaited) in cancelled


def test_tasks_are_ended_by_the_one_helper() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "cancelling.py"
        for line in waits_after_a_cancellation(path.read_text())
    }
    assert found == set()


def test_the_check_sees_what_it_is_for() -> None:
    once = "async def f(t):\n    t.cancel()\n    await asyncio.gather(t, return_exceptions=True)\n"
    direct = "async def f(t):\n    t.cancel()\n    await t\n"
    limited = "async def f(t):\n    t.cancel()\n    await asyncio.wait([t], timeout=3)\n"
    alone = "async def f(t):\n    t.cancel()\n"
    assert [waits_after_a_cancellation(s) for s in (once, direct, limited, alone)] == [[3], [3], [], []]
