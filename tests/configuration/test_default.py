"""Whoever sets nothing, or the database alone, is in production: no program takes itself for the try-out stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli import command_line
from gateway.commands.running import RunningStack, announce
from gateway.configuration import findings_of, is_production
from rails.payments.registry import installed_plugins
from sandbox.embedded.ports import free_port
from sandbox.supervisor.folder import DataFolder
from tests.gateway.stack import SECRET_KEY
from tests.house.sources import ROOT

KEPT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
WORKER, JOB = "wrk_01jzzzzzzzzzzzzzzzzzzzzzzz", "job_01jzzzzzzzzzzzzzzzzzzzzzzz"
READS_THE_DATABASE = {
    "verify": (),
    "seal": (),
    "rebuild": (),
    "jobs": (JOB,),
    "followups": (),
    "mail": (),
    "mail again": (),
    "queue": (),
    "workers": (),
    "workers drain": (WORKER,),
    "workers trust": (WORKER,),
    "workers revoke": (WORKER,),
}
"""They want the database alone, and do the same in production and while trying out."""
WHO = ("--actor", "grace", "--reason", "a test")
PAYMENT = "pay_01jzzzzzzzzzzzzzzzzzzzzzzz"
MONEY = {
    "payments": (),
    "payments list": (),
    "payments show": (PAYMENT,),
    "payments reconcile": (),
    "payments differences": (),
    "payments refund": (PAYMENT, *WHO),
    "payments refund-sent": (PAYMENT, "ref_1", "--reference", "txid", *WHO),
    "payments refund-failed": (PAYMENT, "ref_1", *WHO),
    "suspense": (),
    "suspense list": (),
    "suspense accept": (PAYMENT, "x:1", *WHO),
    "suspense assign": (PAYMENT, "x:1", "--credits", "1", *WHO),
    "suspense return": (PAYMENT, "x:1", *WHO),
    "disputes": (),
    "disputes list": (),
    "debts": (),
    "debts list": (),
    "adjust": ("acct_1", "--credits", "1", *WHO),
    "forgive": ("acct_1", "--credits", "1", *WHO),
    "operators": (),
    "operators list": (),
    "operators add": ("ada@example.com", "--actor", "grace"),
    "operators remove": ("ada@example.com", "--actor", "grace"),
}
WANTS_ALL = {
    "erase": ("acct_01jzzzzzzzzzzzzzzzzzzzzzzz", "--yes"),
    "objects": (),
    "mail test": ("ada@llamas.art",),
    **MONEY,
    "check-config": (),
    "workers token": (),
    "prepare-database": (),
    "run": (),
}
ITS_OWN = {"demo", "bench", "stripe", "stripe sync"}
"""These start a stack of their own, or ask nobody but Stripe: `tests/cli/test_demo.py`, `tests/rails/stripe/test_catalogue.py`."""


def _names(app: typer.Typer, before: str = "") -> Iterator[str]:
    for command in app.registered_commands:
        yield before + (command.name or getattr(command.callback, "__name__", ""))
    for group in app.registered_groups:
        yield before + str(group.name)
        if group.name != "bench" and group.typer_instance is not None:
            yield from _names(group.typer_instance, f"{before}{group.name} ")


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A program in a folder without settings."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**KEPT, "PYTHONPATH": str(ROOT), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


Invoke = Callable[..., tuple[int, str]]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A command in a folder without settings: its exit code, and all that it printed."""
    monkeypatch.chdir(tmp_path)
    nothing = dict.fromkeys(os.environ, None)

    def call(name: str, **environ: str) -> tuple[int, str]:
        arguments = [*name.split(), *{**READS_THE_DATABASE, **WANTS_ALL}[name]]
        done = CliRunner(env=nothing).invoke(command_line(), arguments, env={**KEPT, **environ})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    return call


def nowhere() -> str:
    """A sound address at which no database answers."""
    return f"postgresql://llama:kW8sLp2xQz@127.0.0.1:{free_port()}/x"


def test_every_command_is_tried_here() -> None:
    assert {*_names(command_line())} == {*READS_THE_DATABASE, *WANTS_ALL, *ITS_OWN}


@pytest.mark.parametrize("name", [name for name in (*READS_THE_DATABASE, *WANTS_ALL) if name != "run"])
def test_with_nothing_set_a_command_says_what_it_misses(name: str, invoke: Invoke) -> None:
    code, text = invoke(name)
    assert code == (1 if name == "check-config" else 2)
    assert "LLAMASKETCH_SECRET_KEY is missing" if name == "workers token" else "DATABASE_URL" in text


@pytest.mark.parametrize("name", READS_THE_DATABASE)
def test_a_database_that_does_not_answer_is_said_in_one_line(name: str, invoke: Invoke) -> None:
    code, text = invoke(name, DATABASE_URL=nowhere())
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith("The database ")


@pytest.mark.parametrize("name", ["erase", "objects", "mail test", "check-config"])
def test_with_the_database_alone_a_command_names_all_that_production_misses(
    name: str, invoke: Invoke
) -> None:
    url = nowhere()
    code, text = invoke(name, DATABASE_URL=url)
    assert code == (1 if name == "check-config" else 2)
    lines = [line for line in text.splitlines() if line.startswith("WRONG: ")]
    assert lines == [f"WRONG: {line}" for line in missing(url)]
    assert "LLAMASKETCH_OIDC_ISSUER is missing: production needs it" in text


def missing(url: str) -> list[str]:
    environ = {"DATABASE_URL": url}
    assert is_production(environ)
    return [finding.problem for finding in findings_of(environ, installed_plugins())]


def test_no_token_is_made_without_the_secret_that_signs_it(invoke: Invoke) -> None:
    code, text = invoke("workers token", DATABASE_URL=nowhere())
    assert (code, "WRONG: LLAMASKETCH_SECRET_KEY is missing" in text) == (2, True)


def test_the_database_is_prepared_by_its_owner_alone(invoke: Invoke) -> None:
    code, text = invoke("prepare-database", DATABASE_URL=nowhere())
    assert (code, text.splitlines()) == (
        2,
        ["WRONG: DATABASE_OWNER_URL is missing: the address with which tables may be made"],
    )


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"DATABASE_URL": "postgresql://db.example/x"}, "LLAMASKETCH_ENVIRONMENT=embedded"),
        ({"LLAMASKETCH_ENVIRONMENT": "production"}, "docs/operators.md"),
    ],
    ids=["a database of one's own", "production"],
)
def test_make_run_serves_nobodys_database_with_stand_ins_unasked(
    environ: dict[str, str], reason: str, invoke: Invoke, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, text = invoke("run", **environ)
    assert code == 2
    assert reason in text + capfd.readouterr().err
    assert [*tmp_path.iterdir()] == [], "nothing was begun"


def test_the_api_with_the_database_alone_names_all_that_production_misses(tmp_path: Path) -> None:
    url = nowhere()
    done = run(tmp_path, "gateway.serve", "--port", str(free_port()), DATABASE_URL=url)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"WRONG: {line}" for line in missing(url)]


def test_a_worker_with_nothing_set_names_all_that_it_misses(tmp_path: Path) -> None:
    done = run(tmp_path, "worker", DATABASE_URL=nowhere())
    assert done.returncode == 2
    assert {"LLAMASKETCH_API_URL", "COMFYUI_URL"} <= set(re.findall(r"[A-Z_]{4,}", done.stderr))
    assert [*tmp_path.iterdir()] == []


def test_what_a_stack_for_trying_out_knows_is_not_mixed_with_another_database(
    tmp_path: Path, invoke: Invoke
) -> None:
    own, other = nowhere(), nowhere()
    folder = DataFolder(tmp_path / "var")
    folder.acquire()
    settings = {
        "DATABASE_URL": own,
        "REDIS_URL": "redis://127.0.0.1:1",
        "LLAMASKETCH_ENVIRONMENT": "embedded",
        "LLAMASKETCH_SECRET_KEY": SECRET_KEY,
    }
    announce(folder.path, RunningStack("http://127.0.0.1:8000", settings))
    try:
        for given in ({}, {"DATABASE_URL": own}):
            assert "embedded" in invoke("check-config", **given)[1]
            assert invoke("workers token", **given)[0] == 0
        assert invoke("workers token", DATABASE_URL=other)[0] == 2
        code, text = invoke("objects", DATABASE_URL=other)
        assert code == 2
        assert [line for line in text.splitlines() if line.startswith("WRONG: ")] == [
            f"WRONG: {line}" for line in missing(other)
        ]
    finally:
        folder.release()
