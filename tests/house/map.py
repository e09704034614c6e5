"""`python -m tests.house.map`: the rooms of each package, and the imports between them.

A room is a folder; what stands beside the folders of a package is its entrance (".": what others use of it,
and the few words that all its rooms use). An arrow is drawn from room to room, however many files import
each other. It runs back up if two rooms import each other.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

from tests.house.sources import PRODUCT, Source, python

ENTRANCE = "."


@cache
def arrows() -> Mapping[str, Counter[tuple[str, str]]]:
    """By package: how many imports lead from one room to another."""
    modules = {_module(source): source for source in python(*PRODUCT)}
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for source in modules.values():
        for target in {name for name in _imported(source, modules) if name.package == source.package}:
            here, there = room_of(source), room_of(target)
            if here != there:
                found[source.package][here, there] += 1
    return found


def room_of(source: Source) -> str:
    """The folder of a file below its package."""
    parts = source.path.split("/")
    return parts[1] if len(parts) > 2 else ENTRANCE


def files(package: str) -> Sequence[Source]:
    """All of its files but those that only make a folder a package."""
    return [source for source in python(package) if not source.path.endswith("__init__.py")]


def rooms(package: str) -> Sequence[str]:
    """By name; the entrance is one if anything stands beside the folders."""
    return sorted({room_of(source) for source in files(package)})


def back_up(found: Counter[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Pairs of rooms that import each other. An entrance is above all and below all: it is left out."""
    return sorted(
        pair for pair in found if pair[::-1] in found and pair[0] < pair[1] and ENTRANCE not in pair
    )


def _module(source: Source) -> str:
    return source.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported(source: Source, modules: Mapping[str, Source]) -> Sequence[Source]:
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    named = [modules[name] for name in names if name in modules]
    # A package's __init__ is named on the way to its modules; it hands nothing on here.
    return [module for module in named if not module.path.endswith("__init__.py")]


def main() -> None:
    """Print the map."""
    found = arrows()
    for package in PRODUCT:
        pairs = found.get(package, Counter())
        circles = back_up(pairs)
        print(
            f"{package}: {len(files(package))} files, {len(rooms(package))} rooms, {len(pairs)} arrows, {len(circles)} back up"
        )
        for room in rooms(package):
            leads = sorted(there for here, there in pairs if here == room)
            print(f"    {room:14} → {', '.join(leads) or 'nothing here'}")


if __name__ == "__main__":
    main()
