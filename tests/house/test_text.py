"""House rules that can be seen in the text of tracked files."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator

from tests.house.sources import PRODUCT, ROOT, Source, python, tracked

BINARY = (".png", ".webp", ".jpg", ".jpeg", ".ico", ".woff2", ".ttf", ".gz", ".pdf")

RAIL_WORDS = re.compile(r"stripe|\blnd\b|lnd_|_lnd|elements[d_]|elements_rpc|lndgrpc", re.IGNORECASE)
"""What a rail is made of. Its public name (card, lightning, liquid) is data and may be anywhere."""
RAIL_NAMES_ALLOWED = (
    # The rail itself, its stand-in, its tests.
    "rails/stripe/", "rails/lightning/", "rails/liquid/", "sandbox/", "tests/", "bench/",
    # Where people read about it and where it is configured.
    "docs/", "README.md", "CHANGELOG.md", "deploy/", "docker-compose.yml", ".env.example",
    # Where it is declared: the entry point, the packages, their locks.
    "pyproject.toml", "requirements/",
)  # fmt: skip

REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|npmjs\.com|yarnpkg\.com|proxy\.golang\.org|crates\.io"
)
# Each has a class of one letter so that this file does not itself contain what it looks for.
MACHINE_PATHS = re.compile(r"/[r]oot/|/[h]ome/[a-z]|/[w]ork/(main|shared)|/[U]sers/[A-Za-z]|/[o]pt/wheels")

OLD_NAMES = {
    # Each has a plain term of the field in docs/glossary.md.
    *("wish", "wishes", "hands", "crew", "painters", "box", "boxes", "companion", "companions", "teller"),
    *("claimdesk", "caretaker", "heart", "patience", "leftover", "leftovers", "returning", "termination"),
    *("told", "said", "heard", "tell", "tells"),
}
OLD_ALONE = {"piece", "standing", "draft", "proof", "hint", "painter"}
"""Plain words in a longer name; alone, names of the past."""
OLD_WORDS = re.compile(
    r"\b(purses?|wish(es)?|crew|hands|tellers?|caretakers?|claimdesk|leftovers?|companions?|patience|termination)\b",
    re.IGNORECASE,
)
"""Words of the past that prose, scripts and styles have no other use for."""
OLD_EVERYWHERE = re.compile(r"\bpainters?\b|\bways? to pay\b", re.IGNORECASE)
"""What neither code nor prose nor a page says any more: a worker, a payment request."""
COMMENTS = ("generation/store/tables.py",)
"""Has the comment of a column, word for word as a migration wrote it."""
OLD_NAMES_ALLOWED = {
    "sandbox/comfyui/painting/colouring.py:box": "a rectangle",
    "sandbox/elementsd/render.py:proof": "a range proof",
    "sandbox/lnd/requests.py:hint": "a route hint: LND's word",
    "sandbox/lnd/services.py:hint": "a route hint: LND's word",
    "tests/ledger/test_journal.py:hint": "a type hint",
}


def texts() -> list[tuple[str, str]]:
    return [
        (name, (ROOT / name).read_text(errors="replace")) for name in tracked() if not name.endswith(BINARY)
    ]


def lines_with(pattern: re.Pattern[str], name: str, text: str) -> list[str]:
    return [f"{name}:{number}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


def test_only_a_rails_own_folder_names_what_it_is_made_of() -> None:
    pages = [
        place
        for name, text in texts()
        if not name.startswith(RAIL_NAMES_ALLOWED) and name.endswith((".html", ".js", ".sql"))
        for place in lines_with(RAIL_WORDS, name, text)
    ]
    code = [
        f"{source.path} ({line.strip()[:60]})"
        for source in python(*PRODUCT)
        if not source.path.startswith(RAIL_NAMES_ALLOWED) and RAIL_WORDS.search(source.text)
        for line in code_alone(source).splitlines()
        if RAIL_WORDS.search(line)
    ]
    assert not pages + code, "a rail is a folder and one entry point: " + ", ".join(pages + code)


def code_alone(source: Source) -> str:
    """The code without comments and docstrings, which may give examples."""
    tree = copy.deepcopy(source.tree)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not is_docstring(each)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def is_docstring(node: ast.AST) -> bool:
    """A string that stands alone as a statement."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_no_package_registry_is_named() -> None:
    offences = [place for name, text in texts() for place in lines_with(REGISTRIES, name, text)]
    assert not offences, "locks and documents name no registry: " + ", ".join(offences)


def test_no_path_of_one_persons_machine_is_left() -> None:
    offences = [place for name, text in texts() for place in lines_with(MACHINE_PATHS, name, text)]
    assert not offences, "paths of one machine: " + ", ".join(offences)


def test_the_locks_have_a_hash_for_everything() -> None:
    lists = sorted((ROOT / "requirements").glob("*.in"))
    assert lists
    for named in lists:
        text = named.with_suffix(".txt").read_text()
        pinned = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\n]*(?:\n    .*)*", text, re.MULTILINE)
        assert pinned
        assert not [block.splitlines()[0] for block in pinned if "--hash=sha256:" not in block]


def test_no_file_holds_a_merge_that_was_not_finished() -> None:
    # Underlines of seven signs are text in some formats, so only the two ends count.
    markers = re.compile(r"^(<{7}|>{7}) ")
    assert not [place for name, text in texts() for place in lines_with(markers, name, text)]


def test_the_names_of_the_past_are_gone() -> None:
    found = {
        f"{source.path}:{name}": f"{source.at(node)} {name}"
        for source in python(*PRODUCT, "bench", "tests")
        if "/migrations/" not in source.path
        for node, name in declared(source)
        if not name.startswith("test_")  # a sentence
        and (OLD_NAMES & set(name_words(name)) or name.lower() in OLD_ALONE)
    }
    paths = [
        source.path
        for source in python(*PRODUCT, "bench")
        if OLD_NAMES & set(name_words(source.path.removesuffix(".py")))
    ]
    left = [place for key, place in found.items() if key not in OLD_NAMES_ALLOWED] + paths
    assert not left, "say it in the words of docs/glossary.md: " + ", ".join(left)
    assert OLD_NAMES_ALLOWED.keys() <= found.keys()


def test_prose_and_pages_use_no_word_of_the_past() -> None:
    left = [
        place
        for name, text in texts()
        if name.endswith((".md", ".js", ".css", ".html")) and name != "CHANGELOG.md"
        for place in lines_with(OLD_WORDS, name, text)
    ]
    assert not left, "say it in the words of docs/glossary.md: " + ", ".join(left)


def test_no_text_says_worker_or_payment_request_otherwise() -> None:
    left = [
        place
        for name, text in texts()
        if name not in ("CHANGELOG.md", "tests/house/test_text.py", *COMMENTS) and "/migrations/" not in name
        for place in lines_with(OLD_EVERYWHERE, name, text)
    ]
    assert not left, "say it in the words of docs/glossary.md: " + ", ".join(left)


def declared(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every name that a file gives to something."""
    for node in ast.walk(source.tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node, name
            case (
                ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
            ):
                yield node, name


def name_words(name: str) -> list[str]:
    """The words of `snake_case` and `CamelCase`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
