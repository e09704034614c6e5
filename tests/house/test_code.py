"""House rules that can be seen in the syntax."""

from __future__ import annotations

import ast

from tests.house.sources import PRODUCT, ROOT, Source, called, dotted, nodes, python, tracked

MONEY = ("ledger", "rails", "mail", "projections")
FLOATS_ALLOWED = {
    # Seconds are not money: time-outs, intervals and durations may be fractions.
    "seconds",
    "timeout",
    "interval",
    "delay",
    "backoff",
    "jitter",
    "pause",
    "sleep",
}
DIVISION_OF_PATHS_ONLY = (
    "a path is joined by `/` only if its left side is named as a folder or made by `Path(…)`"
)
FOLDER_WORDS = ("path", "folder", "dir", "root", "here", "parent", "files", "home")
CLOCKS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "date.today",
    "datetime.date.today",
    "time.time",
    "time.time_ns",
}
CLOCK_OWNERS = ("ledger/clock.py", "worker/clock.py", "sandbox/", "bench/", "tests/")
SLEEPERS = {"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep", "sleep"}
SLEEP_ALLOWED = {
    # The one place that polls for what another process does.
    "tests/waiting.py",
    # A child process that does nothing, as the subject of a test.
    "tests/supervisor/small_stack.py",
}
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500


def test_no_float_touches_money() -> None:
    offences = [
        source.at(node)
        for source in python(*MONEY)
        for node in nodes(source, ast.Constant, ast.Call)
        if _is_float(node) and not _is_about_time(source, node)
    ]
    assert not offences, "no float on money: " + ", ".join(offences)


def test_nothing_is_divided_by_a_slash() -> None:
    offences = [
        source.at(node)
        for source in python(*MONEY)
        for node in nodes(source, ast.BinOp, ast.AugAssign)
        if isinstance(node, ast.BinOp | ast.AugAssign)
        and isinstance(node.op, ast.Div)
        and not (isinstance(node, ast.BinOp) and _is_path(node.left))
    ]
    assert not offences, (
        f"use divmod with a rounding direction ({DIVISION_OF_PATHS_ONLY}): {', '.join(offences)}"
    )


def test_mocks_are_banned() -> None:
    offences = [
        source.at(node)
        for source in python(*PRODUCT, "tests", "bench")
        for node in nodes(source, ast.Import, ast.ImportFrom)
        if any(name.startswith(("unittest.mock", "mock", "pytest_mock")) for name in _imported(node))
    ]
    assert not offences, "write a fake that passes the port's contract suite: " + ", ".join(offences)


def test_tests_wait_for_conditions_and_never_sleep() -> None:
    offences = [
        source.at(call)
        for source in python("tests")
        if source.path not in SLEEP_ALLOWED
        for call, name in called(source)
        if name in SLEEPERS and not _is_zero(call)
    ]
    assert not offences, "use tests.waiting.eventually or await an event: " + ", ".join(offences)


def test_time_comes_from_the_clock() -> None:
    offences = [
        source.at(call)
        for source in python(*PRODUCT)
        if not source.path.startswith(CLOCK_OWNERS)
        for call, name in called(source)
        if name in CLOCKS
    ]
    assert not offences, "take a ledger.clock.Clock as an argument: " + ", ".join(offences)


def test_nothing_is_connected_at_import() -> None:
    openers = (
        "connect",
        "create_engine",
        "Client",
        "AsyncClient",
        "urlopen",
        "get",
        "post",
        "from_url",
        "Popen",
    )
    libraries = {
        "httpx",
        "requests",
        "redis",
        "psycopg",
        "stripe",
        "grpc",
        "urllib",
        "socket",
        "sa",
        "subprocess",
    }
    offences = [
        source.at(call)
        for source in python(*PRODUCT)
        for statement in source.tree.body
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call)
        and (name := dotted(call.func)).rpartition(".")[2] in openers
        and name.partition(".")[0] in libraries
    ]
    assert not offences, "nothing happens at import: " + ", ".join(offences)


def test_what_is_public_says_what_it_is() -> None:
    offences = []
    for source in python(*PRODUCT):
        if ast.get_docstring(source.tree) is None:
            offences.append(source.path)
        offences += [source.at(node) for node in _public(source.tree) if ast.get_docstring(node) is None]
    assert not offences, "a docstring is missing: " + ", ".join(offences)


def test_functions_fit_on_a_screen() -> None:
    offences = [
        f"{source.at(node)} ({length} lines)"
        for source in python(*PRODUCT)
        for node in nodes(source, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not offences, f"longer than {FUNCTION_LINES_MAX} lines: " + ", ".join(offences)


def test_files_can_be_read_in_one_go() -> None:
    offences = [
        f"{source.path} ({lines} lines)"
        for source in python(*PRODUCT, "bench", "tests")
        if (lines := len(source.text.splitlines())) > FILE_LINES_MAX
    ]
    assert not offences, f"longer than {FILE_LINES_MAX} lines: " + ", ".join(offences)


def test_every_folder_with_python_is_a_package() -> None:
    folders = {name.rpartition("/")[0] for name in tracked() if name.endswith(".py")}
    missing = [
        folder
        for folder in sorted(folders)
        if folder.partition("/")[0] in PRODUCT and not (ROOT / folder / "__init__.py").exists()
    ]
    assert not missing, "__init__.py is missing in " + ", ".join(missing)


def _is_float(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    return isinstance(node, ast.Call) and dotted(node.func) == "float"


def _is_about_time(source: Source, node: ast.AST) -> bool:
    """Whether its line, or the function it is in, is named for a duration."""
    number = getattr(node, "lineno", 1)
    words = [source.text.splitlines()[number - 1]]
    words += [
        function.name
        for function in nodes(source, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and function.lineno <= number <= (function.end_lineno or 0)
    ]
    return any(word in text.lower() for word in FLOATS_ALLOWED for text in words)


def _is_path(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _is_path(node.left)
    if isinstance(node, ast.Call):
        return dotted(node.func).rpartition(".")[2] in {
            "Path",
            "files",
            "resolve",
            "joinpath",
            "absolute",
        } or (isinstance(node.func, ast.Attribute) and _is_path(node.func.value))
    if isinstance(node, ast.Subscript):
        return _is_path(node.value)
    return any(word in dotted(node).rpartition(".")[2].lower() for word in FOLDER_WORDS)


def _is_zero(call: ast.Call) -> bool:
    """`sleep(0)` only lets others run."""
    return len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return [module, *(f"{module}.{name.name}" for name in node.names)] if node.level == 0 else []
    return [name.name for name in node.names] if isinstance(node, ast.Import) else []


def _public(body: ast.Module | ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    found: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = []
    for node in body.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            found += [] if _needs_no_words(node) else [node]
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [node, *_public(node)]
    return found


def _needs_no_words(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Overloads, and overrides marked as such, are described where they come from; a test's name is its sentence."""
    return node.name.startswith("test_") or any(
        dotted(decorator).rpartition(".")[2] in {"overload", "override", "setter"}
        for decorator in node.decorator_list
    )
