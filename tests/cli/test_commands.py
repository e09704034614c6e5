"""What an operator types, and what a newcomer gets wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings import WORKER_REGISTRATION, derive_secret
from generation.workers import RegistrationTokens
from ledger.clock import system_clock
from tests.cli.conftest import Lived, Llamasketch
from tests.gateway.stack import SECRET_KEY

COMMANDS = ("run", "demo", "verify", "seal", "rebuild", "erase", "jobs", "queue", "workers", "bench")


def test_help_names_every_command() -> None:
    told = CliRunner().invoke(app, ["--help"]).output
    assert [command for command in COMMANDS if command not in told] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "run"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output


@pytest.mark.parametrize("name", ["ledger", "dispatch", "crash", "chaos", "sketchers", "journey"])
def test_every_bench_is_listed_and_is_a_program_of_its_own(name: str) -> None:
    listed = CliRunner().invoke(app, ["bench", "--help"]).output
    assert any(line.split()[:1] == [name] for line in listed.splitlines())
    program = (sys.executable, "-c", "from gateway.cli import main; main()", "bench", name, "--help")
    told = subprocess.run(program, capture_output=True, text=True, check=False)
    assert told.returncode == 0
    assert told.stdout.startswith("usage: ")
    assert name in told.stdout.splitlines()[0]
    assert "--json" in told.stdout


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'sqlalchemy', 'fastapi', 'psycopg', 'eventsourcing', 'httpx', 'PIL'}"
    program = f"import sys, gateway.cli; sys.exit(sorted({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("command", ["verify", "seal", "rebuild", "queue", "jobs", "workers"])
def test_without_a_stack_a_command_says_where_it_looked(
    llamasketch: Llamasketch, tmp_path_factory: pytest.TempPathFactory, command: str
) -> None:
    empty = str(tmp_path_factory.mktemp("empty"))
    said = llamasketch(command, environment={"DATABASE_URL": "", "LLAMASKETCH_DATA": empty})
    assert said.code == 2
    assert f"No stack is running on {empty}" in said.text


def test_a_database_that_is_away_is_one_sentence(llamasketch: Llamasketch) -> None:
    said = llamasketch("verify", environment={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert said.code == 2
    assert said.text.startswith("The database cannot be read: ")


def test_a_database_without_a_ledger_is_one_sentence(llamasketch: Llamasketch, postgres_url: str) -> None:
    said = llamasketch("verify", environment={"DATABASE_URL": postgres_url})
    assert (said.code, said.text) == (2, "This database has no ledger in it.\n")


def test_the_queue_says_who_waits(llamasketch: Llamasketch, lived: Lived) -> None:
    summary = llamasketch("queue", "--json").json
    assert (summary["queued"], summary["running"]) == (1, 0)
    assert summary["most_in_flight"] == [{"account_id": lived.account, "jobs": 1}]
    assert "1 waiting" in llamasketch("queue").text
    # One image for one credit in 1.2 s of GPU time.
    hour = summary["last_hour"]
    assert (hour["images"], hour["credits"], hour["gpu_milliseconds"]) == (1, 1, 1200)
    assert (hour["gpu_milliseconds_per_image"], hour["credits_per_gpu_hour"]) == (1200, 3000)
    assert "3000 credits per GPU hour" in llamasketch("queue").text


def test_jobs_are_listed_and_one_is_told_from_its_events(llamasketch: Llamasketch, lived: Lived) -> None:
    shown = llamasketch("jobs", "--json").json
    assert [job["state"] for job in shown["in_flight"]] == ["queued"]
    assert [job["job_id"] for job in shown["delivered"]] == [lived.painted]
    history = llamasketch("jobs", lived.failed, "--json").json["events"]
    names = ["generation.job_requested.v1", "generation.job_started.v1", "generation.job_failed.v1"]
    assert [event["event"] for event in history] == names
    assert "bad_prompt" in llamasketch("jobs", lived.failed).text
    assert llamasketch("jobs", "job_01m82kasyes5e01jt4bjsj4qbg").code == 1
    assert llamasketch("jobs", "nonsense").code == 2


def test_boxes_are_listed_drained_and_trusted_again(llamasketch: Llamasketch) -> None:
    (box,) = llamasketch("workers", "--json").json["workers"]
    assert (box["name"], box["state"], box["present"]) == ("box", "active", True)
    assert "token" not in str(box)
    assert (box["gpu_milliseconds_per_image"], box["images_per_gpu_hour"]) == (1200, 3000)
    assert "3000" in llamasketch("workers").text
    for command, state in (("drain", "draining"), ("trust", "active")):
        assert llamasketch("workers", command, box["worker_id"]).code == 0
        assert llamasketch("workers", "--json").json["workers"][0]["state"] == state
    assert llamasketch("workers", "drain", "wrk_nobody").code == 1


def test_a_minted_token_lets_one_box_in(llamasketch: Llamasketch) -> None:
    said = llamasketch("workers", "token", "--hours", "1")
    tokens = RegistrationTokens(derive_secret(SECRET_KEY, WORKER_REGISTRATION), system_clock)
    assert tokens.genuine(said.text.strip())


def test_a_revoked_box_is_gone_for_good(llamasketch: Llamasketch) -> None:
    worker = llamasketch("workers", "--json").json["workers"][0]["worker_id"]
    assert llamasketch("workers", "revoke", worker).code == 0
    assert llamasketch("workers", "--json").json["workers"][0]["state"] == "gone"
    assert llamasketch("workers", "trust", worker).code == 1, "it may register anew"
