"""Nothing is declared without a caller: functions, methods, classes, constants, members, fields, columns.

`vulture` finds what the product never names. A test is no caller of the product. It is one of what stands in
front of tests (`sandbox`, `bench`, the `testing` folders). Words in templates count for `gateway` and `sandbox`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from tests.house.sources import PRODUCT, ROOT, Source, dotted, nodes, python, tracked, walked

SCANNED = (*PRODUCT, "bench")
FOR_TESTS = re.compile(r"(sandbox|bench)/|\w+/testing/")
REPORTED = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): (?P<what>unused (?P<kind>\w+) '(?P<name>\w+)')")
ENTERED_BY_DECORATOR = ("@*router.*", "@*.command", "@*.callback", "@*_validator", "@*.get", "@*.post")
READ_BY_NAME = {
    # Fields of these and of all that derive from them are read by what is outside of the code.
    "BaseModel": "JSON of the API or a tool, held by golden files",
    "BaseSettings": "environment variables",
    "Event": "stored facts, held by golden files",
    "Faults": "switched on by name over HTTP",
}
WORDS = re.compile(r"[A-Za-z_]\w*")

LIBRARIES_READ = {
    "branch_labels": "Alembic",
    "down_revision": "Alembic",
    "model_config": "Pydantic",
    "enable_telemetry": "the Stripe SDK",
    "request_async": "the Stripe SDK's HTTP client",
    "sleep_async": "the Stripe SDK's HTTP client",
    "evalsha": "scripts of redis",
    "itersize": "psycopg",
    "isolation_level": "psycopg",
    "read_only": "psycopg",
    "intercept_service": "grpc",
    "handle_RCPT": "aiosmtpd",
    "handle_DATA": "aiosmtpd",
    "data_received": "asyncio",
    "on_chunk_header": "httptools",
    "timeout_keep_alive_task": "uvicorn",
    "snapshotting_intervals": "eventsourcing",
    "pytest_runtest_protocol": "pytest",
    "pytest_runtest_logreport": "pytest",
    "maxfeerate": "an argument of elementsd's RPC",
    "__cause__": "Python's tracebacks",
    "tempdir": "tempfile",
}
"""Names that somebody else's code reads, in any file."""

ALLOWED = {
    # Fields of records that are compared, sent or printed as a whole.
    "rails/lightning/credentials.py:inode": "which file it is: compared",
    "rails/lightning/credentials.py:modified_ns": "which file it is: compared",
    "ledger/service.py:posted_after": "a line of a statement, for programs on the ledger alone",
    "ledger/service.py:held_after": "a line of a statement, for programs on the ledger alone",
    "ledger/service.py:debt_after": "a line of a statement, for programs on the ledger alone",
    "generation/fleet/statistics.py:gpu_milliseconds_per_image": "the fleet's figures: printed by name",
    "bench/chaos_stack.py:_watching": "keeps a task from being collected",
    "gateway/routes/events.py:FRAMES": "the shapes of the stream's frames: tests hold the stream to them",
    "gateway/auth/sessions.py:STALE_SECONDS_MAX": "a promise that a test measures",
    "rails/stripe/command.py:add_stripe": "an entry point of `llamasketch.commands`",
    # What an issue wires to a route, a command and a page.
    "ledger/domain/periods.py:monthly_period": "issue 11: subscriptions",
    "ledger/domain/journal.py:postings": "issue 14: the books",
    "ledger/domain/journal.py:MOVES_NOTHING": "issue 14: the books",
    # For people who write programs on top.
    "ledger/clock.py:advance": "tests of programs on the ledger",
}


class Finding(NamedTuple):
    """One row of vulture's report."""

    path: str
    line: int
    kind: str
    name: str

    @property
    def key(self) -> str:
        """As in `ALLOWED`."""
        return f"{self.path}:{self.name}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: nothing uses the {self.kind} {self.name}"


def test_everything_that_is_declared_is_used() -> None:
    left = [each for each in found() if each.name not in LIBRARIES_READ and each.key not in ALLOWED]
    assert not left, "call it or delete it:\n" + "\n".join(map(str, left))


def test_every_exception_is_still_needed() -> None:
    reported = {each.name for each in found()} | {each.key for each in found()}
    assert not [name for name in (*LIBRARIES_READ, *ALLOWED) if name not in reported]


def test_every_column_of_a_table_is_used() -> None:
    used = words(*SCANNED)
    left = [f"{source.at(node)} {name}" for source, node, name in columns() if name not in used]
    assert not left, "write and read the column or drop it: " + ", ".join(left)


@cache
def found() -> Sequence[Finding]:
    """What vulture reports, without what is entered or read in a way that it cannot see."""
    names = [source.path for source in python(*SCANNED)]
    ignored = ("--ignore-decorators", ",".join(ENTERED_BY_DECORATOR))
    answer = subprocess.run(
        [sys.executable, "-m", "vulture", *ignored, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode in {0, 3}, answer.stderr
    matches = [REPORTED.match(line) for line in answer.stdout.splitlines()]
    rows = [Finding(m["path"], int(m["line"]), m["kind"], m["name"]) for m in matches if m]
    assert len(rows) == len(matches), answer.stdout
    read_by_name = {place for source in python(*SCANNED) for place in _fields_read_by_name(source)}
    tables = {source.at(node) for source, node in _tables()}
    return [
        row
        for row in rows
        if (row.path, row.line) not in read_by_name
        and f"{row.path}:{row.line}" not in tables
        and not (
            row.path.startswith("sandbox/lnd/") and row.kind == "attribute"
        )  # fields of protobuf messages
        and not (row.path.startswith(("gateway/", "sandbox/")) and row.name in _words_elsewhere())
        and not (FOR_TESTS.match(row.path) and row.name in words(*SCANNED, "tests"))
    ]


@cache
def words(*folders: str) -> frozenset[str]:
    """Every name and every word of a string, but for docstrings, declared columns and migrations."""
    return frozenset(
        word
        for source in python(*folders)
        if "/migrations/" not in source.path and not source.path.startswith("tests/house/")
        for word in _words(source)
    )


@cache
def _words(source: Source) -> frozenset[str]:
    return frozenset(_each_word(source, _silent(source)))


def _each_word(source: Source, silent: set[int]) -> Iterator[str]:
    for node in walked(source):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Load())
                | ast.Attribute(attr=name, ctx=ast.Load())
                | ast.keyword(arg=str(name))
            ):
                yield name
            case ast.alias(name=name):
                yield name.rpartition(".")[2]
            case ast.Constant(value=str(text)) if id(node) not in silent:
                yield from WORDS.findall(text)


def _silent(source: Source) -> set[int]:
    """Strings that declare or explain."""
    alone = {id(node.value) for node in nodes(source, ast.Expr)}  # type: ignore[attr-defined]
    declared = {
        id(argument)
        for node in nodes(source, ast.Call)
        if isinstance(node, ast.Call) and dotted(node.func) in {"sa.Column", "sa.Index"}
        for argument in node.args
    }
    return alone | declared


def columns() -> Iterator[tuple[Source, ast.AST, str]]:
    """Every column that a table declares, with its name."""
    for source in python(*PRODUCT):
        if "/migrations/" in source.path:
            continue
        for node in nodes(source, ast.Call):
            match node:
                case ast.Call(func=what, args=[ast.Constant(value=str(name)), *_]) if (
                    dotted(what) == "sa.Column"
                ):
                    yield source, node, name


def _tables() -> Iterator[tuple[Source, ast.AST]]:
    """Tables whose name stands in the SQL of some file; the variable alone may have no reader."""
    named = words(*PRODUCT)
    for source in python(*PRODUCT):
        for node in nodes(source, ast.Assign):
            match node:
                case ast.Assign(value=ast.Call(func=what, args=[ast.Constant(value=str(name)), *_])):
                    if dotted(what) == "sa.Table" and name in named:
                        yield source, node


@cache
def _words_elsewhere() -> frozenset[str]:
    """Those of templates, and of entry points."""
    names = ["pyproject.toml", *(name for name in tracked() if name.endswith(".html"))]
    return frozenset(word for name in names for word in WORDS.findall((ROOT / name).read_text()))


@cache
def _classes_read_by_name() -> frozenset[str]:
    known = set(READ_BY_NAME)
    classes = [(node, _bases(node)) for source in python(*SCANNED) for node in nodes(source, ast.ClassDef)]
    while more := {node.name for node, bases in classes if bases & known} - known:  # type: ignore[attr-defined]
        known |= more
    return frozenset(known)


def _bases(node: ast.AST) -> set[str]:
    assert isinstance(node, ast.ClassDef)
    return {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def _fields_read_by_name(source: Source) -> Iterator[tuple[str, int]]:
    for node in nodes(source, ast.ClassDef):
        if isinstance(node, ast.ClassDef) and _bases(node) & _classes_read_by_name():
            yield from ((source.path, line.lineno) for line in node.body if isinstance(line, ast.AnnAssign))
