"""The files with which the product is deployed fit their formats and each other."""

from __future__ import annotations

import ast
import configparser
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli import command_line
from tests.deploy.images import read_image
from tests.house.sources import PRODUCT, ROOT, Source, python

SETTING = re.compile(
    r"DATABASE_URL|REDIS_URL|RATE_FEEDS|ESPLORA_URL"
    r"|(?:LLAMASKETCH|STRIPE|LND|LIGHTNING|LIQUID|ELEMENTS|COMFYUI|SANDBOX)_[A-Z][A-Z_]*[A-Z]"
)

OF_THE_SYSTEM = {"PATH", "HOME", "LC_ALL", "TMPDIR"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def explained() -> set[str]:
    """The settings in `.env.example`."""
    return set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_the_compose_file_fits_the_compose_specification() -> None:
    # The package check-jsonschema carries the specification's own JSON schema: no network.
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            "docker-compose.yml",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_volume_is_declared_and_used(compose: dict[str, Any]) -> None:
    mounted = {
        mount.partition(":")[0]
        for service in compose["services"].values()
        for mount in service.get("volumes", [])
    }
    assert mounted == set(compose["volumes"])


def test_whoever_is_waited_for_can_say_that_it_is_healthy(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{other} has no health check"


def test_what_is_done_once_is_waited_for_to_its_end_and_not_started_again(compose: dict[str, Any]) -> None:
    services = compose["services"]
    once = {name for name, service in services.items() if service["restart"] == "no"}
    ended = {
        other
        for service in services.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert once == ended


def test_the_check_of_the_api_asks_the_port_that_its_image_serves_and_compose_publishes(
    compose: dict[str, Any],
) -> None:
    api, image = compose["services"]["api"], read_image("api")
    [published] = api["ports"]
    served = image.program[image.program.index("--port") + 1]
    assert published.rpartition(":")[2] == served
    kind, program, *arguments = api["healthcheck"]["test"]
    assert (kind, program) == ("CMD", image.program[0])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asked = [text.replace(served, str(listening.getsockname()[1])) for text in arguments]
        assert asked != arguments
        command = [sys.executable, *asked]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_what_our_services_run_is_a_command_of_ours(compose: dict[str, Any]) -> None:
    own = {name: service for name, service in compose["services"].items() if "build" in service}
    assert {*own} == {"database", "api", "worker"}
    for service in own.values():
        assert (ROOT / service["build"]["dockerfile"]).exists()
        program, *words = service.get("command", ["llamasketch", "--help"])
        assert program == "llamasketch"
        shown = CliRunner().invoke(command_line(), [*words, "--help"])
        assert shown.exit_code == 0, shown.output


def test_our_services_may_write_where_their_volumes_are(compose: dict[str, Any]) -> None:
    for name in ("api", "worker"):
        service = compose["services"][name]
        text = (ROOT / service["build"]["dockerfile"]).read_text()
        user = re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1]
        own = set(re.findall(rf"install -d -o {user} -g {user} (\S+)", text))
        written = {
            at for at, *more in (mount.split(":")[1:] for mount in service["volumes"]) if more != ["ro"]
        }
        assert written
        assert written <= own, f"{name} may not write to {written - own}"
        environment = service["environment"]
        places = [environment.get("LLAMASKETCH_DATA"), environment.get("LLAMASKETCH_WORKER_DATA_DIR")]
        assert {place for place in places if place} == written


def test_nothing_but_loopback_is_published(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_every_variable_of_the_compose_file_is_explained() -> None:
    assert of_compose() <= explained()


def constants(source: Source) -> Iterator[tuple[str, bool]]:
    """Every string of a file; and whether it is only a key under which something is written down."""
    written = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Dict):
            written |= {id(key) for key in node.keys}
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            written.add(id(node.slice))
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, id(node) in written


def from_environment(source: Source) -> set[str]:
    """The names that a file asks its process's environment for."""
    asked = re.findall(r"""\b(?:environ(?:\.get\(|\[)|getenv\()\s*["']([A-Za-z_]+)""", source.text)
    return set(asked)


def by_settings() -> set[str]:
    """What the settings of the API and of the worker are called in the environment."""
    from gateway.settings import Settings
    from worker.config import ENVIRONMENT

    api = {
        str(field.validation_alias or f"LLAMASKETCH_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    return api | set(ENVIRONMENT)


def of_compose() -> set[str]:
    """The variables of the compose file."""
    return set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))


def test_every_setting_in_the_code_is_explained() -> None:
    used = {text for source in python(*PRODUCT) for text, _ in constants(source) if SETTING.fullmatch(text)}
    missing = (used | by_settings()) - explained()
    assert not missing, "explain in .env.example: " + ", ".join(sorted(missing))


def test_everything_that_is_explained_is_read_by_a_program() -> None:
    # The tests of the whole stack drive it from outside, as any program may.
    read = {
        text
        for source in python(*PRODUCT, "tests/e2e")
        for text, only_written in constants(source)
        if not only_written
    }
    idle = explained() - read - by_settings() - of_compose()
    assert not idle, "nothing reads what .env.example explains: " + ", ".join(sorted(idle))


def test_what_a_program_asks_its_environment_for_is_explained_there_or_in_the_documents() -> None:
    documents = "\n".join(path.read_text() for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
    asked = set().union(*(from_environment(source) for source in python(*PRODUCT, "bench", "tests")))
    named = explained() | set(re.findall(r"[A-Z][A-Z_]+", documents))
    missing = asked - named - OF_THE_SYSTEM
    assert not missing, "explain in .env.example or docs/: " + ", ".join(sorted(missing))


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.worker"])
def test_a_container_file_copies_only_what_exists(name: str) -> None:
    text = (ROOT / "deploy" / name).read_text()
    copies = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    assert copies
    for line in copies:
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), f"{name} copies {source}"


def test_the_unit_of_the_worker_is_complete() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy" / "worker.service")
    assert unit["Service"]["ExecStart"].endswith("python -m worker")
    assert unit["Service"]["KillSignal"] == "SIGTERM"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_every_field_of_the_settings_is_used() -> None:
    from gateway.settings import Settings

    used = {
        node.attr
        for source in python(*PRODUCT)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute)
    }
    unused = {*Settings.model_fields} - used
    assert not unused, "nothing asks for: " + ", ".join(sorted(unused))
