"""What an operator types, and what a newcomer gets wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
from typer.testing import CliRunner

from gateway.cli import command_line
from gateway.derived_secrets import WORKER_REGISTRATION, derive_secret
from generation.fleet.tokens import RegistrationTokens
from ledger.clock import system_clock
from processes.followups import KINDS
from tests.cli.conftest import Lived, Llamasketch
from tests.gateway.stack import SECRET_KEY

COMMANDS = tuple("run demo verify seal rebuild erase jobs queue objects followups workers bench".split())


def test_help_names_every_command() -> None:
    returned = CliRunner().invoke(command_line(), ["--help"]).output
    assert [command for command in COMMANDS if command not in returned] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "run"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(command_line(), [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output


@pytest.mark.parametrize(
    "name",
    [
        "ledger",
        "crash",
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in ("dispatch", "chaos", "sketchers", "journey", "hostile", "pictures")
        ),
    ],
)
def test_every_bench_is_listed_and_is_a_program_of_its_own(name: str) -> None:
    listed = CliRunner().invoke(command_line(), ["bench", "--help"]).output
    assert any(line.split()[:1] == [name] for line in listed.splitlines())
    program = (sys.executable, "-c", "from gateway.cli import main; main()", "bench", name, "--help")
    returned = subprocess.run(program, capture_output=True, text=True, check=False)
    assert returned.returncode == 0
    assert returned.stdout.startswith("usage: ")
    assert name in returned.stdout.splitlines()[0]
    assert "--json" in returned.stdout


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'sqlalchemy', 'fastapi', 'psycopg', 'eventsourcing', 'httpx', 'PIL'}"
    program = f"import sys, gateway.cli; sys.exit(sorted({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("command", ["verify", "seal", "rebuild", "queue", "followups", "jobs", "workers"])
def test_without_a_stack_a_command_says_where_it_looked(
    llamasketch: Llamasketch, tmp_path_factory: pytest.TempPathFactory, command: str
) -> None:
    empty = str(tmp_path_factory.mktemp("empty"))
    reported = llamasketch(command, environment={"DATABASE_URL": "", "LLAMASKETCH_DATA": empty})
    assert reported.code == 2
    assert f"No stack is running on {empty}" in reported.text


def test_a_database_that_is_away_is_one_sentence(llamasketch: Llamasketch) -> None:
    reported = llamasketch("verify", environment={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert reported.code == 2
    assert reported.text.startswith("The database cannot be read: ")


def test_a_database_without_a_ledger_is_one_sentence(llamasketch: Llamasketch, postgres_url: str) -> None:
    reported = llamasketch("verify", environment={"DATABASE_URL": postgres_url})
    assert (reported.code, reported.text) == (2, "This database has no ledger in it.\n")


def test_follow_ups_are_listed_by_kind_with_what_is_wrong(llamasketch: Llamasketch, lived: Lived) -> None:
    with psycopg.connect(lived.database) as connection:
        connection.execute(
            "INSERT INTO account_merges (account_id, into_account, due_at, attempts, last_problem)"
            " VALUES ('acct_1', 'acct_2', now() + interval '1 hour', 3, 'TooBusy')"
        )
    kinds = {row["kind"]: row for row in llamasketch("followups", "--json").json["followups"]}
    assert list(kinds) == [kind.kind for kind in KINDS]
    assert kinds["guest_merge"] == {
        "kind": "guest_merge",
        "waiting": 1,
        "failing": 1,
        "oldest": None,
        "attempts": 3,
        "problem": "TooBusy",
    }
    returned = llamasketch("followups").text.splitlines()
    assert returned[0].split() == ["kind", "waiting", "failing", "oldest", "attempts", "problem"]
    assert returned[1].split() == ["guest_merge", "1", "1", "-", "3", "TooBusy"]
    with psycopg.connect(lived.database) as connection:
        connection.execute("DELETE FROM account_merges")


def test_notifications_that_were_set_aside_are_listed_and_dealt_with_again(
    llamasketch: Llamasketch, lived: Lived
) -> None:
    with psycopg.connect(lived.database) as connection:
        (first,), (second,) = (
            connection.execute(
                "INSERT INTO rail_notifications (rail, notification_id, reference, state, attempts, due_at,"
                " received_at, last_problem) VALUES ('nowhere', %s, 'sub_1', 'unmatched', 12, now(), now(),"
                " 'rail_protocol_broken') RETURNING id",
                (name,),
            ).fetchone()
            or ()
            for name in ("evt_parked_1", "evt_parked_2")
        )
    parked = llamasketch("followups", "--parked", "--json").json["parked"]
    assert [(row["id"], row["reference"], row["last_problem"]) for row in parked] == [
        (first, "sub_1", "rail_protocol_broken"),
        (second, "sub_1", "rail_protocol_broken"),
    ]
    assert "rail_protocol_broken" in llamasketch("followups", "--parked").text
    assert llamasketch("followups", "--replay", str(first), "--json").json == {"replayed": [first]}
    assert "1 will be dealt with again" in llamasketch("followups", "--replay-all").text
    with psycopg.connect(lived.database) as connection:
        rows = connection.execute(
            "DELETE FROM rail_notifications WHERE rail = 'nowhere' RETURNING state, attempts"
        ).fetchall()
    assert rows == [("waiting", 0)] * 2
    assert "No notification is set aside." in llamasketch("followups", "--parked").text


def test_stored_objects_are_counted_and_only_deleted_if_asked(llamasketch: Llamasketch, lived: Lived) -> None:
    found = llamasketch("objects", "--json").json
    assert found["seen"] >= 3, "a sketch, an image and its thumbnail"
    assert (found["unreferenced"], found["deleted"]) == (0, False)
    lost = lived.data / "objects/sketches/of-nobody.png"
    lost.write_bytes(b"x")
    os.utime(lost, (0, 0))
    assert "1 older than a day" in llamasketch("objects").text
    assert lost.exists()
    assert llamasketch("objects", "--delete", "--json").json["unreferenced"] == 1
    assert not lost.exists()


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


def test_workers_are_listed_drained_and_trusted_again(llamasketch: Llamasketch) -> None:
    (scripted,) = llamasketch("workers", "--json").json["workers"]
    assert (scripted["name"], scripted["state"], scripted["present"]) == ("worker", "active", True)
    assert "token" not in str(scripted)
    assert (scripted["gpu_milliseconds_per_image"], scripted["images_per_gpu_hour"]) == (1200, 3000)
    assert "3000" in llamasketch("workers").text
    for command, state in (("drain", "draining"), ("trust", "active")):
        assert llamasketch("workers", command, scripted["worker_id"]).code == 0
        assert llamasketch("workers", "--json").json["workers"][0]["state"] == state
    assert llamasketch("workers", "drain", "wrk_nobody").code == 1


def test_a_minted_token_lets_one_worker_in(llamasketch: Llamasketch) -> None:
    reported = llamasketch("workers", "token", "--hours", "1")
    tokens = RegistrationTokens(derive_secret(SECRET_KEY, WORKER_REGISTRATION), system_clock)
    assert tokens.genuine(reported.text.strip())


def test_a_revoked_worker_is_gone_for_good(llamasketch: Llamasketch) -> None:
    worker = llamasketch("workers", "--json").json["workers"][0]["worker_id"]
    assert llamasketch("workers", "revoke", worker).code == 0
    assert llamasketch("workers", "--json").json["workers"][0]["state"] == "gone"
    assert llamasketch("workers", "trust", worker).code == 1, "it may register anew"
