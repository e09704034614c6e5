"""Which mutants are made: mutmut's own, with one change of a text instead of three, and changes of order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import libcst as cst
import libcst.matchers as m
from mutmut.mutation import mutators

_LEAVES = m.Return() | m.Raise() | m.Break() | m.Continue() | m.Pass()


def use(*, order_alone: bool) -> None:
    """Set mutmut's operators. With `order_alone`, steps are swapped or left out, and nothing else is changed.

    Elsewhere steps are not swapped: where nothing is written down, most orders mean the same.
    """
    others = [] if order_alone else [_once(pair) for pair in mutators.mutation_operators]
    swaps = [(cst.BaseSuite, swapped)] if order_alone else []
    mutators.mutation_operators[:] = [*others, *swaps, (cst.SimpleStatementLine, left_out)]


def _once(pair):
    """A text that nobody compares survives three times; once says as much."""
    kind, operator = pair
    return (kind, _first_of_text) if operator is mutators.operator_string else pair


def _first_of_text(node: cst.BaseString) -> Iterator[cst.BaseString]:
    for mutant in mutators.operator_string(node):
        yield mutant
        return


def swapped(block: cst.BaseSuite) -> Iterator[cst.BaseSuite]:
    """Two neighbouring steps the other way round: a crash between them shows which came first."""
    body = list(block.body)
    for place, (first, second) in enumerate(pairwise(body)):
        if _acts(first) and _acts(second) and not _names_set(first) & _names_read(second):
            yield block.with_changes(body=[*body[:place], second, first, *body[place + 2 :]])


def left_out(line: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """A step that is called for what it does is not taken."""
    if m.matches(line, m.SimpleStatementLine(body=[m.Expr(m.Call() | m.Await())])):
        yield line.with_changes(body=[cst.Pass()])


def _acts(statement: cst.CSTNode) -> bool:
    """Whether it calls something, and whatever follows it is still reached."""
    return bool(m.findall(statement, m.Call())) and not m.findall(statement, _LEAVES)


def _names_set(statement: cst.CSTNode) -> set[str]:
    targets = [*m.findall(statement, m.AssignTarget()), *m.findall(statement, m.AnnAssign())]
    return {name for target in targets for name in _names_read(target.target)}


def _names_read(node: cst.CSTNode) -> set[str]:
    return {name.value for name in m.findall(node, m.Name())}
