"""The tracked source files, parsed once."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = (
    "ledger",
    "rails",
    "generation",
    "mail",
    "worker",
    "processes",
    "projections",
    "gateway",
    "sandbox",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file."""

    path: str
    """Relative to the root, with slashes."""
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    def at(self, node: ast.AST) -> str:
        """Where, for a person: `ledger/money.py:12`."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@cache
def tracked() -> Sequence[str]:
    """Every file under version control that is present; in an unpacked archive, every file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    ignored = {".venv", "node_modules", "var", ".git", "__pycache__", "build", "dist"}
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path.as_posix() for path in files if not ignored & set(path.parts)]


@cache
def python(*folders: str) -> Sequence[Source]:
    """The tracked Python files below these folders."""
    return [source for source in _all() if source.path.startswith(tuple(f"{folder}/" for folder in folders))]


@cache
def _all() -> Sequence[Source]:
    names = [name for name in tracked() if name.endswith(".py")]
    return [Source(name, (text := (ROOT / name).read_text()), ast.parse(text)) for name in names]


def nodes(source: Source, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """Every node of these kinds."""
    return (node for node in walked(source) if isinstance(node, kinds))


@cache
def walked(source: Source) -> Sequence[ast.AST]:
    """All nodes of a file, looked for once."""
    return tuple(ast.walk(source.tree))


def dotted(node: ast.AST) -> str:
    """`datetime.now` for the expression of that shape; empty for others."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := dotted(node.value)) else ""
    return ""


def called(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what is called."""
    for node in nodes(source, ast.Call):
        assert isinstance(node, ast.Call)
        yield node, dotted(node.func)
