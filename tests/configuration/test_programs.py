"""The programs as they are started: without settings, with wrong ones, and with the files that we hand out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from dotenv import dotenv_values
from typer.testing import CliRunner

from gateway.cli import command_line
from gateway.configuration import SETTINGS, tables
from gateway.database.privileges import APPEND_ONLY, make_role
from gateway.database.schema import migrate
from gateway.database.startup_retry import NotTheOwner, migrate_when_there
from gateway.findings import all_findings
from gateway.settings import Settings
from ledger.clock import system_clock
from rails.configuration import given
from rails.contract import RailContext
from rails.payments.registry import build_rails, installed_plugins
from rails.testing.memory_references import MemoryReferences
from sandbox.embedded.ports import free_port
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.plan import make_plan
from tests.configuration.environments import SOUND
from tests.configuration.table import document
from tests.house.sources import ROOT
from worker.config import BOUNDS, ConfigurationFault, WorkerConfig, load_config

KEPT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
FILLED = "Vb7mQ2xKp9LzRt4wHn3cYd8sWq6JfUa1"
"""What somebody who follows `.env.example` puts wherever `(compose)` asks for something."""


def serve(environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.serve", "--port", str(free_port()), "--startup-timeout", "0.1"]
    return subprocess.run(
        command, env={**KEPT, **environ}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def check_config(environ: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    runner = CliRunner(env=dict.fromkeys(os.environ, None))
    done = runner.invoke(command_line(), ["check-config", *arguments], env={**KEPT, **environ})
    return done.exit_code, done.output


def test_the_api_without_settings_is_production_and_does_not_start() -> None:
    done = serve({"DATABASE_URL": "postgresql://a@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1",
                  "LLAMASKETCH_SECRET_KEY": SOUND["LLAMASKETCH_SECRET_KEY"]})  # fmt: skip
    assert done.returncode == 2
    assert "WRONG: LLAMASKETCH_OIDC_ISSUER is missing: production needs it" in done.stderr
    assert "WRONG: LLAMASKETCH_PUBLIC_URL is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_and_check_config_say_the_same(tmp_path: Path) -> None:
    wrong = {**SOUND, "STRIPE_WEBHOOK_SECRET": "x", "RATE_FEEDS": "", "LIGHTNING_NETWORK": "signet",
             "LLAMASKETCH_TRUSTED_PROXIES": "0.0.0.0/0", "LLAMASKETCH_DATA": str(tmp_path)}  # fmt: skip
    code, text = check_config(wrong)
    done = serve(wrong)
    assert (code, done.returncode) == (1, 2)
    wrong_lines = [line for line in text.splitlines() if line.startswith("WRONG: ")]
    assert wrong_lines == done.stderr.splitlines()
    names = {line.split()[1].rstrip(":") for line in wrong_lines}
    assert names == {"LLAMASKETCH_TRUSTED_PROXIES", "STRIPE_WEBHOOK_SECRET", "LIGHTNING_NETWORK"}


def test_check_config_answers_programs_too(tmp_path: Path) -> None:
    sound = {
        **SOUND,
        "LLAMASKETCH_DATA": str(tmp_path),
        "DATABASE_URL": "postgresql://a:kW8sLp2xQz@127.0.0.1:1/x",
    }
    code, text = check_config(sound, "--json")
    reported = json.loads(text)
    assert (code, reported["ok"], reported["environment"]) == (0, True, "production")
    assert "does not answer" in reported["unchecked"][0]
    code, text = check_config({**sound, "REDIS_URL": ""}, "--json")
    assert code == 1
    assert json.loads(text)["findings"] == [
        {"setting": "REDIS_URL", "rule": "missing", "problem": "REDIS_URL is missing"}
    ]


def test_a_superuser_does_not_serve_in_production(postgres_url: str, tmp_path: Path) -> None:
    environ = {**SOUND, "DATABASE_URL": postgres_url, "LLAMASKETCH_DATA": str(tmp_path)}
    code, text = check_config(environ)
    assert code == 1
    assert "its role must not have super" in text
    done = serve(environ)
    assert done.returncode == 2
    assert "its role must not have super" in done.stderr
    assert "prepare-database" in done.stderr


def test_the_role_that_is_made_for_the_api_can_serve_and_cannot_change_the_log(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    owner = make_database()
    name, password = f"api_{free_port()}", "pT8wLm2xQzRk5"
    role = re.sub(r"//[^@]*@", f"//{name}:{password}@", owner)
    environ = {**SOUND, "DATABASE_URL": role, "LLAMASKETCH_DATA": str(tmp_path)}
    runner = CliRunner()
    for _ in range(2):
        done = runner.invoke(
            command_line(), ["prepare-database"], env={**environ, "DATABASE_OWNER_URL": owner}
        )
        assert done.exit_code == 0, done.output
    assert check_config(environ) == (0, "Nothing is wrong with the settings for production.\n")
    with psycopg.connect(role, autocommit=True) as connection:
        for table in APPEND_ONLY:
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET ctid = ctid", f"TRUNCATE {table}"):
                with pytest.raises(psycopg.Error, match=r"permission denied|cannot assign"):
                    connection.execute(statement.encode())
        for forbidden in ("CREATE TABLE mine (n int)", "DROP TABLE balances", "CREATE ROLE other",
                          "ALTER TABLE balances ADD n int", "DELETE FROM alembic_version"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden.encode())
    migrate_when_there(role, production=True, wait_seconds_max=5)
    _drop_role(owner, name)


def test_a_role_that_may_not_migrate_says_who_may(make_database: Callable[..., str]) -> None:
    owner, name = make_database(), f"late_{free_port()}"
    migrate(owner.replace("postgresql://", "postgresql+psycopg://", 1), "0003")
    role = re.sub(r"//[^@]*@", f"//{name}:pT8wLm2xQzRk5@", owner)
    make_role(owner, role)
    with pytest.raises(NotTheOwner, match="prepare-database"):
        migrate_when_there(role, production=True, wait_seconds_max=5)
    _drop_role(owner, name)


def _drop_role(owner: str, name: str) -> None:
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}".encode())
        connection.execute(f"DROP ROLE {name}".encode())


def example() -> dict[str, str]:
    """`.env.example` as docker compose reads it: what is not filled in is empty."""
    return {
        name: value or "" for name, value in dotenv_values(ROOT / ".env.example", interpolate=False).items()
    }


def filled() -> dict[str, str]:
    needed = ("LLAMASKETCH_SECRET_KEY", "LLAMASKETCH_WORKER_REGISTRATION_TOKEN", "POSTGRES_PASSWORD",
              "POSTGRES_API_PASSWORD", "BITCOIN_RPC_PASSWORD", "ELEMENTS_RPC_PASSWORD",
              "LLAMASKETCH_OBJECT_STORE_ACCESS_KEY", "LLAMASKETCH_OBJECT_STORE_SECRET_KEY")  # fmt: skip
    return {**example(), **dict.fromkeys(needed, FILLED)}


def composed(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment that compose gives a service: its env_file, and its own on top."""
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]
    own = {name: substituted(str(value), variables) for name, value in described["environment"].items()}
    return {**(variables if "env_file" in described else {}), **own}


def substituted(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME:?why}` and `${NAME:-default}`, as the specification of compose says."""

    def value(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        if variables.get(name):
            return variables[name]
        assert kind != ":?", f"compose refuses: {name} is not set"
        return default or ""

    return re.sub(r"\$\{([A-Z_]+)(?:(:\?|:-)([^}]*))?\}", value, text)


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], dict[str, str]]]:
    """Puts the paths inside the containers below a folder, with what the node leaves there."""
    for name in ("credentials", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "credentials" / "tls.cert").write_text("certificate")
    (tmp_path / "credentials" / "invoice.macaroon").write_bytes(b"\x02not one")
    (tmp_path / "credentials").chmod(0o555)

    def moved(environ: dict[str, str]) -> dict[str, str]:
        places = {"/credentials/": f"{tmp_path}/credentials/", "/var/lib/llamasketch": f"{tmp_path}/data"}
        return {
            name: next(
                (to + value.removeprefix(at) for at, to in places.items() if value.startswith(at)), value
            )
            for name, value in environ.items()
        }

    yield moved
    (tmp_path / "credentials").chmod(0o755)


async def test_the_api_of_the_compose_file_reads_its_settings_and_builds_its_rails(
    volumes: Callable[[dict[str, str]], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = volumes(composed("api", filled()))
    assert findings_without_rails(environ) == []
    settings = settings_from(environ, monkeypatch)
    assert settings.embedded
    assert settings.requests_per_minute == 600
    context = RailContext(clock=system_clock, references=MemoryReferences(), production=False)
    rails = build_rails(installed_plugins(), given(environ), context)
    assert {*rails} == {"lightning"}
    assert Path(environ["LIGHTNING_PREIMAGE_KEY"]).stat().st_mode & 0o777 == 0o600
    for rail in rails.values():
        await rail.close()


def findings_without_rails(environ: Mapping[str, str]) -> list[Any]:
    from gateway.configuration import findings_of

    return findings_of(environ, installed_plugins())


def settings_from(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in {*os.environ} & {setting.name for setting in SETTINGS}:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Settings.model_validate({})


def test_the_worker_of_the_compose_file_reads_its_settings() -> None:
    config = load_config(composed("worker", filled()))
    assert (config.api_url, config.environment) == ("http://api:8000", "embedded")
    assert config.data_dir == Path("/var/lib/llamasketch")


def test_the_compose_file_makes_the_role_that_its_api_uses() -> None:
    api, maker = composed("api", filled()), composed("database", filled())
    assert api["DATABASE_URL"] == maker["DATABASE_URL"] != maker["DATABASE_OWNER_URL"]


def test_the_settings_that_are_handed_out_empty_count_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {name: SOUND[name] for name in ("DATABASE_URL", "REDIS_URL", "LLAMASKETCH_SECRET_KEY")}
    environ = {**example(), **needed, "LLAMASKETCH_ENVIRONMENT": "embedded"}
    assert all_findings(environ) == []
    settings = settings_from(environ, monkeypatch)
    plain = Settings.model_validate(
        {**needed, "secret_key": needed["LLAMASKETCH_SECRET_KEY"], "environment": "embedded"}
    )
    assert settings == plain


@pytest.mark.parametrize(
    "written",
    [
        "https://sketch.llamas.art/",
        "HTTPS://Sketch.LLAMAS.art",
        " https://sketch.llamas.art ",
        "https://sketch.llamas.art:443",
    ],
)
def test_the_address_of_the_pages_is_what_browsers_call_it_however_it_is_written(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from({**SOUND, "LLAMASKETCH_PUBLIC_URL": written}, monkeypatch)
    assert settings.public_url == "https://sketch.llamas.art"


def test_the_worker_takes_the_settings_that_are_handed_out(tmp_path: Path) -> None:
    addresses = {"LLAMASKETCH_API_URL": "https://sketch.llamas.art", "COMFYUI_URL": "http://127.0.0.1:8188"}
    assert load_config({**example(), **addresses}) == load_config(addresses)


def test_make_run_takes_the_settings_that_are_handed_out(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.acquire()
    try:
        plan = make_plan(folder, example(), "127.0.0.1", free_port())
    finally:
        folder.release()
    assert plan.environment["LLAMASKETCH_ENVIRONMENT"] == "embedded"
    assert all_findings(plan.environment) == [] or _only_files(plan.environment)
    worker = next(spec for spec in plan.specs if spec.name == "worker")
    assert load_config(worker.environment).environment == "embedded"


def _only_files(environ: Mapping[str, str]) -> bool:
    """What the stand-ins write when they start is not there before."""
    return {finding.rule for finding in all_findings(environ)} <= {"refused_by_rail"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLAMASKETCH_API_URL", "http://sketch.llamas.art"),
        ("LLAMASKETCH_API_URL", "http://10.0.0.7:8000"),
        ("COMFYUI_URL", "http://gpu.llamas.art:8188"),
        ("LLAMASKETCH_WORKER_JOB_SECONDS", "-1"),
        ("LLAMASKETCH_WORKER_HEARTBEAT_SECONDS", "nan"),
        ("LLAMASKETCH_WORKER_RECYCLE_JOBS", "-5"),
        ("LLAMASKETCH_ENVIRONMENT", "staging"),
    ],
)
def test_a_worker_in_production_refuses_what_can_be_read_on_the_way_and_numbers_out_of_bounds(
    name: str, value: str
) -> None:
    sound = {"LLAMASKETCH_API_URL": "https://sketch.llamas.art", "COMFYUI_URL": "http://127.0.0.1:8188"}
    assert load_config(sound).environment == "production"
    with pytest.raises(ConfigurationFault):
        load_config({**sound, name: value})


def test_every_number_of_the_worker_has_its_bounds() -> None:
    assert {field.name for field in fields(WorkerConfig) if field.type in ("int", "float")} == {*BOUNDS}


def test_every_field_of_the_settings_has_its_rules_declared() -> None:
    fields = {
        str(field.validation_alias or f"LLAMASKETCH_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    assert fields <= {setting.name for setting in SETTINGS}


def test_every_declared_setting_is_explained_and_the_document_is_what_is_checked() -> None:
    assert {s.name for _, settings in tables() for s in settings} <= {*example()}
    assert (ROOT / "docs" / "settings.md").read_text() == document()
