"""What the documents name is there: files, settings, commands, routes, problems."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gateway.cli import command_line as cli
from gateway.http.codes import OWN
from gateway.http.problems import FRAMEWORK_CODES, STANDS_FOR
from gateway.reference.openapi import EXAMPLES, problem_codes
from gateway.routes import (
    account,
    auto_topups,
    events,
    generations,
    health,
    l402,
    live,
    mail,
    operator,
    refunds,
    session,
    sign_in_links,
    subscriptions,
    topup_links,
    topups,
    worker,
)
from gateway.routes.shapes import PROBLEMS_FIELD
from gateway.settings import Settings
from gateway.wiring.foundation import CATEGORIES
from tests.docs.texts import DOCUMENTS, ROOT, anchors, code, name

ROUTERS = [
    module.router
    for module in (
        account,
        events,
        generations,
        health,
        l402,
        live,
        mail,
        refunds,
        operator,
        session,
        auto_topups,
        subscriptions,
        sign_in_links,
        topup_links,
        topups,
        worker,
    )
]
ROUTES: list[Any] = [route for router in ROUTERS for route in router.routes]
RAIL_SETTING = re.compile(r'"((?:STRIPE|LND|LIGHTNING|ELEMENTS|ESPLORA|LIQUID)_[A-Z_]+)"')


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_setting_is_explained_in_the_example_file() -> None:
    explained = set(re.findall(r"^([A-Z][A-Z_0-9]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    wanted = {
        str(field.validation_alias or f"LLAMASKETCH_{title.upper()}")
        for title, field in Settings.model_fields.items()
    }
    for file in (ROOT / "rails").rglob("*.py"):
        wanted |= set(RAIL_SETTING.findall(file.read_text()))
    assert wanted <= explained, f"not in .env.example: {sorted(wanted - explained)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_that_is_named_exists(document: Path) -> None:
    known: Any = typer.main.get_command(cli())
    named = set(re.findall(r"\bllamasketch ([a-z][a-z-]*)(?: ([a-z]+))?", code(document)))
    for command, below in named:
        assert command in known.commands, f"llamasketch {command}"
        group = getattr(known.commands[command], "commands", {})
        assert not below or not group or below in group, f"llamasketch {command} {below}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = set(re.findall(r"\bmake ([a-z]+)\b", code(document)))
    assert made <= targets


def test_the_operators_page_names_every_command() -> None:
    known: Any = typer.main.get_command(cli())
    text = (ROOT / "docs/operators.md").read_text()
    table = text.partition("| Command | What it does |")[2].partition("\n\n")[0].replace("\\|", "|")
    rows = re.findall(r"`([a-z][^`]*)`", table)
    for command, group in known.commands.items():
        rows_of_it = " ".join(row for row in rows if row.split()[0] == command)
        words = set(re.findall(r"[a-z][a-z-]*", rows_of_it))
        assert command in words, f"llamasketch {command}"
        below = set(getattr(group, "commands", {}))
        assert below <= words, f"llamasketch {command}: {sorted(below - words)}"


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text()
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {name for name in there - {"README.md"} if f"({name})" not in index} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_route_that_is_named_exists(document: Path) -> None:
    known = {f"{method} {_plain(route.path)}" for route in ROUTES for method in route.methods}
    named = re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) (/(?:v1|health)[A-Za-z0-9_/{}.…<>-]*)", code(document))
    assert {f"{method} {_plain(path)}" for method, path in named} <= known


def _plain(path: str) -> str:
    return re.sub(r"{[^}]*}|<[^>]*>|…", "{}", path).rstrip("./")


def test_every_problem_that_the_code_knows_is_described() -> None:
    raised = set()
    for file in (ROOT / "gateway").rglob("*.py"):
        raised |= set(re.findall(r'Problem\(\s*"([a-z_]+)"', file.read_text()))
    described = {problem.code for problem in problem_codes()}
    assert raised <= described, f"not in gateway/http/codes.py: {sorted(raised - described)}"
    elsewhere = {"unauthenticated", *FRAMEWORK_CODES.values(), *(code for _, code in STANDS_FOR)}
    # What names its code itself: errors of generation, and what is refused before there is a route.
    files = [*(ROOT / "generation").rglob("*.py"), *(ROOT / "gateway").rglob("*.py")]
    texts = [file.read_text() for file in files if file.name != "codes.py" and file.parent.name != "routes"]
    elsewhere |= {code for code in OWN if any(f'"{code}"' in text for text in texts)}
    assert set(OWN) - raised <= elsewhere, f"nobody answers with {sorted(set(OWN) - raised - elsewhere)}"


def test_routes_name_only_problems_that_are_described() -> None:
    described = {problem.code for problem in problem_codes()}
    named = {code for route in ROUTES for code in (route.openapi_extra or {}).get(PROBLEMS_FIELD, ())}
    assert named <= described


def test_every_body_of_the_reference_is_one_that_is_taken() -> None:
    with_body = {
        f"{method} {route.path}": route for route in ROUTES if route.body_field for method in route.methods
    }
    assert set(EXAMPLES) == set(with_body)
    for operation, example in EXAMPLES.items():
        _, errors = with_body[operation].body_field.validate(example, {}, loc=("body",))
        assert not errors, f"{operation}: {errors}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_event_that_is_named_is_one(document: Path) -> None:
    known = {stored for category in CATEGORIES for stored in category.events}
    named = set(re.findall(r"\b(?:ledger|rails|generation)\.[a-z_]+\.v\d+\b", code(document)))
    old = {"ledger.subscription_started.v1"}  # read by an upcast
    assert named <= known | old
