"""No parser of outside data is forgotten: whatever decodes, or calls an answer unreadable, is in the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.fuzzing import ROOT
from tests.fuzz.parsers import OTHERWISE, PARSERS

PACKAGES = ("rails", "generation", "gateway", "worker")
NOT_THERE = {"testing", "commands", "migrations"}
"""What authors of rails use, and what operators call: no stranger reaches it."""
DECODERS = frozenset(
    {
        "base64.b64decode",
        "base64.urlsafe_b64decode",
        "bytes.fromhex",
        "Image.open",
        "json.loads",
        "jwt.decode",
        "jwt.get_unverified_header",
        "jwt.PyJWK",
        "msgspec.convert",
        "msgspec.json.decode",
        "pickle.loads",
        "struct.unpack",
        "struct.unpack_from",
        "tomllib.loads",
    }
)
METHODS = (".json", ".FromString", ".model_validate_json", ".decompress")
REFUSALS = frozenset(
    {
        "AnswerUnreadable",
        "FeedFailed",
        "NotificationRejected",
        "RailProtocolError",
        "SketchUnreadable",
        "Unreadable",
    }
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, within: str = "") -> Iterator[tuple[str, Function]]:
    """Every function of a module, methods too, by its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield within + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{within}{child.name}.")


def parses(function: Function) -> bool:
    """Whether it decodes something, or says that something cannot be read."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in DECODERS or called.endswith(METHODS):
                return True
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if ast.unparse(raised) in REFUSALS:
                return True
    return False


def found() -> set[str]:
    """Every parser of the code, as `file:name`."""
    files = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not NOT_THERE.intersection(path.relative_to(ROOT).parts)
    ]
    return {
        f"{path.relative_to(ROOT)}:{name}"
        for path in files
        for name, function in functions(ast.parse(path.read_text()))
        if parses(function)
    }


def test_every_parser_is_fuzzed_or_says_why_not() -> None:
    fuzzed = {name for reached in PARSERS.values() for name in reached}
    assert sorted(found() - fuzzed - set(OTHERWISE)) == [], (
        "fuzz them, and name them in tests/fuzz/parsers.py"
    )
    assert sorted(set(OTHERWISE) - found()) == [], "no such parser any more"
    assert not fuzzed & set(OTHERWISE)


def test_every_test_of_the_table_exists() -> None:
    tests = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name, function in functions(ast.parse(path.read_text()))
        if any("fuzzed" in ast.unparse(one) for one in function.decorator_list)
    }
    assert tests == set(PARSERS)
