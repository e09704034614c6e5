"""House rules that can be seen in the text of tracked files."""

from __future__ import annotations

import ast
import copy
import re

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
        if not source.path.startswith(RAIL_NAMES_ALLOWED)
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
    for name in ("bootstrap", "run", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        pinned = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\n]*(?:\n    .*)*", text, re.MULTILINE)
        assert pinned
        assert not [block.splitlines()[0] for block in pinned if "--hash=sha256:" not in block]
