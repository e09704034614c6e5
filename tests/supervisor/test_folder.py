"""What the supervisor keeps in the data folder, and what it decides to start."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from gateway.commands.running import RunningStack, announce, find
from sandbox.service import Describe, PortBook, Service, TcpReady
from sandbox.supervisor import folder as folders
from sandbox.supervisor import plan as plans
from sandbox.supervisor.errors import AlreadyRunning
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.plan import make_plan
from sandbox.supervisor.ports import PortFile
from sandbox.supervisor.process import Plan
from sandbox.supervisor.secrets import GENERATED, default_secrets


def test_a_port_is_the_same_on_every_start(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    assert PortFile(path)("lamp") == PortFile(path)("lamp")
    assert PortFile(path)("lamp") != PortFile(path)("desk")


def test_a_port_taken_by_another_program_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.supervisor.ports.WAIT_SECONDS_MAX", 0.0)
    path = tmp_path / "ports.json"
    before = PortFile(path)("lamp")
    with socket.create_server(("127.0.0.1", before)):
        after = PortFile(path)("lamp")
    assert after != before
    assert PortFile(path)("lamp") == after


def test_a_fixed_port_is_given_as_it_is(tmp_path: Path) -> None:
    assert PortFile(tmp_path / "ports.json", {"api": 8000})("api") == 8000


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = default_secrets(path, {})
    assert set(made) == set(GENERATED)
    assert len(set(made.values())) == len(GENERATED)
    assert default_secrets(path, {}) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_that_is_given_is_not_replaced(tmp_path: Path) -> None:
    given = {GENERATED[0]: "mine"}
    assert GENERATED[0] not in default_secrets(tmp_path / "secrets.json", given)


def test_a_long_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LOG_BYTES_MAX", 10)
    folder = DataFolder(tmp_path)
    (tmp_path / "log").mkdir()
    folder.log_file("lamp").write_text("more than ten bytes")
    assert not folder.log_file("lamp").exists()
    assert (tmp_path / "log" / "lamp.log.1").read_text() == "more than ten bytes"


def test_only_one_instance_holds_a_folder(tmp_path: Path) -> None:
    first, second = DataFolder(tmp_path), DataFolder(tmp_path)
    first.acquire()
    with pytest.raises(AlreadyRunning, match="already running"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def lamp(data_dir: Path, port: PortBook) -> Service:
    """A sandbox of these tests."""
    number = port("lamp")
    return Service(
        name="lamp",
        argv=("-m", "sandbox.lamp", "--port", str(number), "--data", str(data_dir)),
        environment={"LAMP_URL": f"http://127.0.0.1:{number}", "SANDBOX_LAMP_CONTROL_URL": "…"},
        ready=TcpReady(number),
    )


@pytest.fixture
def only_the_lamp(monkeypatch: pytest.MonkeyPatch) -> None:
    def descriptions() -> list[tuple[Describe, str]]:
        return [(lamp, "lamp")]

    monkeypatch.setattr(plans, "_descriptions", descriptions)


SERVERS = {"DATABASE_URL": "postgresql://elsewhere/db", "REDIS_URL": "redis://elsewhere"}


def planned(tmp_path: Path, **settings: str) -> Plan:
    return make_plan(DataFolder(tmp_path), {**SERVERS, **settings}, "127.0.0.1", 8000)


def names(plan: Plan) -> list[str]:
    return [spec.name for spec in plan.specs]


@pytest.mark.usefixtures("only_the_lamp")
def test_a_sandbox_is_started_and_the_api_told_of_it(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert names(plan) == ["lamp", "api", "worker"]
    assert plan.specs[1].environment["LAMP_URL"] == plan.environment["LAMP_URL"]
    assert "lamp" not in plan.specs[1].depends_on  # the API bears that it comes up later


@pytest.mark.usefixtures("only_the_lamp")
def test_what_is_served_elsewhere_is_not_started(tmp_path: Path) -> None:
    plan = planned(tmp_path, LAMP_URL="https://lamp.example")
    assert names(plan) == ["api", "worker"]
    assert plan.environment["LAMP_URL"] == "https://lamp.example"
    assert "SANDBOX_LAMP_CONTROL_URL" not in plan.environment


@pytest.mark.usefixtures("only_the_lamp")
def test_an_empty_setting_counts_as_not_given(tmp_path: Path) -> None:
    assert "lamp" in names(planned(tmp_path, LAMP_URL=""))


@pytest.mark.usefixtures("only_the_lamp")
def test_a_stand_in_sees_none_of_our_secrets(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    (service, *_) = plan.specs
    assert not {*GENERATED, "DATABASE_URL", "REDIS_URL"} & set(service.environment)


def test_every_sandbox_in_the_tree_describes_itself(tmp_path: Path) -> None:
    described = plans._descriptions()
    ports = PortFile(tmp_path / "ports.json", {"api": 8000, "gateway": 8000})
    assert {"lnd", "elementsd", "stripe"} <= {name for _, name in described}
    for describe, name in described:
        service = describe(tmp_path / name, ports)
        assert service.argv[:2] == ("-m", f"sandbox.{name}")


def test_a_running_stack_is_found_by_others_and_a_killed_one_is_not(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    folder = DataFolder(tmp_path)
    folder.acquire()
    announce(tmp_path, RunningStack("http://127.0.0.1:8000", {"LAMP_URL": "…"}))
    assert stat.S_IMODE((tmp_path / "running.json").stat().st_mode) == 0o600
    found = find(tmp_path)
    assert found is not None
    assert found.environment == {"LAMP_URL": "…"}
    folder.release()
    assert find(tmp_path) is None


def test_what_a_killed_instance_announced_does_not_speak_for_the_next_one(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.acquire()
    announce(tmp_path, RunningStack("http://127.0.0.1:8000", {}))
    assert find(tmp_path) is not None
    reported = json.loads((tmp_path / "running.json").read_text())
    beyond_every_pid = 2**22 + 1
    (tmp_path / "running.json").write_text(json.dumps({**reported, "pid": beyond_every_pid}))
    assert find(tmp_path) is None
    folder.release()


@pytest.mark.parametrize(
    ("settings", "gate"),
    [({}, "invert@1"), ({"COMFYUI_URL": "http://127.0.0.1:8188"}, None)],
    ids=["the stand-in", "a real one"],
)
def test_the_worker_proves_what_is_sold_unless_its_comfyui_is_the_stand_in(
    tmp_path: Path, settings: dict[str, str], gate: str | None
) -> None:
    (worker,) = [spec for spec in planned(tmp_path, **settings).specs if spec.name == "worker"]
    assert worker.environment.get("LLAMASKETCH_WORKER_GATE_GRAPH") == gate
