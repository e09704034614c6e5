"""The files with which the product is deployed fit their formats and each other."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.house.sources import PRODUCT, ROOT, python

SETTING = re.compile(
    r"DATABASE_URL|REDIS_URL|RATE_FEEDS|ESPLORA_URL"
    r"|(?:LLAMASKETCH|STRIPE|LND|LIGHTNING|LIQUID|ELEMENTS|COMFYUI|SANDBOX)_[A-Z][A-Z_]*[A-Z]"
)


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


def test_nothing_but_loopback_is_published(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    assert used <= explained()


def test_every_setting_in_the_code_is_explained() -> None:
    used = {
        node.value
        for source in python(*PRODUCT)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SETTING.fullmatch(node.value)
    }
    missing = used - explained()
    assert not missing, "explain in .env.example: " + ", ".join(sorted(missing))


def test_every_field_of_the_settings_is_explained() -> None:
    from gateway.settings import Settings

    names = {
        str(field.validation_alias or f"LLAMASKETCH_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    missing = names - explained()
    assert not missing, "explain in .env.example: " + ", ".join(sorted(missing))


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.worker"])
def test_a_container_file_copies_only_what_exists(name: str) -> None:
    text = (ROOT / "deploy" / name).read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), f"{name} copies {source}"


def test_the_unit_of_the_worker_is_complete() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy" / "worker.service")
    assert unit["Service"]["ExecStart"].endswith("python -m generation.worker")
    assert unit["Service"]["KillSignal"] == "SIGTERM"
    assert unit["Install"]["WantedBy"] == "multi-user.target"
