"""A rail from outside, as `docs/adding-a-rail.md` shows it: found, held to the contract, and paid with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.database.schema import migrate_async
from ledger.clock import system_clock
from rails.payments.registry import installed_plugins
from tests.gateway.stack import Gateway, running, settings_for, soon

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/adding-a-rail.md"
NAMED_BLOCK = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINES_MAX = 150
PASSED_AT_LEAST = 20


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The page's files in a folder, with what an installer would write beside them."""
    for name, text in NAMED_BLOCK.findall(PAGE.read_text()):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return tmp_path


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) < LINES_MAX


def test_a_rail_from_outside_passes_the_suite(outside: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "test_cash.py"]
    paths = os.pathsep.join([str(outside), str(ROOT)])
    run = subprocess.run(
        command,
        cwd=outside,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= PASSED_AT_LEAST, run.stdout


async def test_a_gateway_starts_with_it_and_is_paid_with_it(
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_database: Callable[..., str],
    valkey_url: str,
) -> None:
    monkeypatch.syspath_prepend(str(outside))
    desk = outside / "desk"
    desk.touch()
    url = make_database()
    await migrate_async(url.replace("postgresql://", "postgresql+psycopg://", 1))
    settings = settings_for(url, valkey_url, outside / "data")
    async with running(
        settings, plugins=installed_plugins(), environ={"CASH_DESK_FILE": str(desk)}
    ) as gateway:
        await _pays_cash(gateway, desk)


async def _pays_cash(gateway: Gateway, desk: Path) -> None:
    client = await gateway.visitor()
    assert [rail["name"] for rail in (await client.get("/v1/rails")).json()["rails"]] == ["cash"]
    opened = (await client.post("/v1/topups", json={"rail": "cash", "credits": 500})).json()
    line = {"slip": opened["instructions"]["text"], "cents": 500, "at": system_clock().isoformat()}
    desk.write_text(json.dumps(line) + "\n")

    async def paid() -> bool:
        return bool((await client.get(f"/v1/topups/{opened['id']}")).json()["credited"] == 500)

    await soon(paid, "the cash was never credited")
