"""What to start: everything that the settings do not say is served elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import sandbox
from gateway.derived_secrets import WORKER_REGISTRATION, derive_secret
from generation.fleet.tokens import RegistrationTokens
from ledger.clock import system_clock
from sandbox.embedded.command import EmbeddedError, ServerCommand, bound_to_parent
from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.valkey import EmbeddedValkey
from sandbox.service import Describe, PortBook, Ready, Service, TcpReady
from sandbox.supervisor.catalogue import CATALOGUE, catalogue
from sandbox.supervisor.errors import SetupMissing, SupervisorError
from sandbox.supervisor.folder import DataFolder
from sandbox.supervisor.ports import PortFile
from sandbox.supervisor.process import ChildSpec, Plan
from sandbox.supervisor.secrets import default_secrets

ENVIRONMENT, EMBEDDED = "LLAMASKETCH_ENVIRONMENT", "embedded"
"""As in `gateway.configuration`, which loads more than this process needs."""
EVERY_INTERFACE = frozenset({"0.0.0.0", "::"})
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONUNBUFFERED")
SERVERS = ("postgres", "valkey")
QUICK_GATE = "invert@1"
"""What the worker paints at its gate beside our stand-in, which paints everything. A real one proves what is sold."""
WORKER_TOKEN_LIFETIME = timedelta(days=30)
ROOT = Path(__file__).resolve().parents[2]


def make_plan(folder: DataFolder, given: Mapping[str, str], host: str, port: int) -> Plan:
    """Prepare the data of what will run (the first time: about a second) and say what to start."""
    ports = PortFile(folder.path / "ports.json", fixed={"api": port, "gateway": port})
    plan = Plan(environment={name: value for name, value in given.items() if value})
    plan.environment |= default_secrets(folder.path / "secrets.json", given)
    # The port of the API is passed to it, and everything it writes goes below the same folder.
    plan.environment["LLAMASKETCH_DATA"] = str(folder.path)
    url = f"http://{'127.0.0.1' if host in EVERY_INTERFACE else host}:{port}"
    plan.environment.setdefault("LLAMASKETCH_PUBLIC_URL", url)
    plan.environment.setdefault("LLAMASKETCH_API_URL", f"http://127.0.0.1:{port}")
    # This is the try-out stack, and it says so: nothing else takes itself for one.
    plan.environment.setdefault(ENVIRONMENT, EMBEDDED)
    plan.environment["PYTHONUNBUFFERED"] = "1"
    plan.environment.setdefault(CATALOGUE, catalogue())
    _add_servers(plan, folder, ports)
    _add_sandboxes(plan, folder, ports)
    _add_product(plan, folder, host, port)
    return plan


def _add_servers(plan: Plan, folder: DataFolder, ports: PortBook) -> None:
    try:
        if "DATABASE_URL" not in plan.environment:
            _add_server(plan, EmbeddedPostgres(folder.path, ports("postgres")).command())
        if "REDIS_URL" not in plan.environment:
            _add_server(plan, EmbeddedValkey(folder.path, ports("valkey")).command())
    except EmbeddedError as error:
        raise SetupMissing(str(error)) from error


def _add_server(plan: Plan, command: ServerCommand) -> None:
    plan.environment |= command.environment
    plan.notes += [note for note in command.notes if note not in plan.notes]
    plan.specs.append(
        ChildSpec(
            name=command.name,
            argv=command.argv,
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            ready=command.ready,
            stop_signal=command.stop_signal,
        )
    )


def _add_sandboxes(plan: Plan, folder: DataFolder, ports: PortBook) -> None:
    configured = dict(plan.environment)
    for describe, name in _descriptions():
        service = describe(folder.service_folder(name), ports)
        if _is_served_elsewhere(service, configured):
            plan.notes.append(f"{service.name}: using the real one from your settings.")
            continue
        plan.environment |= service.environment
        outside, after = _outsider(configured), service.depends_on
        plan.specs.append(_python(service.name, service.argv, outside, ready=service.ready, after=after))


def _outsider(environment: Mapping[str, str]) -> dict[str, str]:
    """What a stand-in may see: as little as the real service would. `SANDBOX_*` are its own settings."""
    return {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name == "LLAMASKETCH_PUBLIC_URL" or name.startswith("SANDBOX_")
    }


def _is_served_elsewhere(service: Service, configured: Mapping[str, str]) -> bool:
    """Whether any address or credential that this sandbox would provide is already given."""
    return any(configured.get(name) for name in service.environment if not name.startswith("SANDBOX_"))


def _descriptions() -> list[tuple[Describe, str]]:
    """Every `sandbox/<name>/service.py`."""
    found = []
    for module in pkgutil.iter_modules(sandbox.__path__):
        if module.ispkg and (Path(sandbox.__path__[0]) / module.name / "service.py").exists():
            described = importlib.import_module(f"sandbox.{module.name}.service")
            found.append((described.describe, module.name))
    return found


def _add_product(plan: Plan, folder: DataFolder, host: str, port: int) -> None:
    serve = ("-m", "gateway.serve", "--host", host, "--port", str(port))
    # The API waits for its database, rails bear that what they talk to comes up later, and a worker that the API does:
    # so all load at the same time.
    api = _python("api", serve, plan.environment, ready=TcpReady(port), after=SERVERS)
    plan.specs.append(replace(api, waits_itself=True))
    worker = _worker(plan.environment, folder.service_folder("worker"))
    plan.specs.append(_python("worker", ("-m", "worker"), worker))


def _worker(environment: dict[str, str], data: Path) -> dict[str, str]:
    """What the worker may know: no more than a rented worker would. It gets a one-time token of its own."""
    names = ("LLAMASKETCH_ENVIRONMENT", "LLAMASKETCH_API_URL", "COMFYUI_URL", "COMFYUI_FOLDER")
    worker = {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name in names or name.startswith("LLAMASKETCH_WORKER_")
    }
    secret = derive_secret(environment["LLAMASKETCH_SECRET_KEY"], WORKER_REGISTRATION)
    token = RegistrationTokens(secret, system_clock).mint(valid_for=WORKER_TOKEN_LIFETIME)
    return {
        "LLAMASKETCH_WORKER_REGISTRATION_TOKEN": token,
        "LLAMASKETCH_WORKER_DATA_DIR": str(data),
        "LLAMASKETCH_WORKER_NAME": "first-worker",
        **({"LLAMASKETCH_WORKER_GATE_GRAPH": QUICK_GATE} if _is_stand_in(environment) else {}),
        **worker,
    }


def _is_stand_in(environment: Mapping[str, str]) -> bool:
    """Whether the worker's ComfyUI is the one that this tree starts."""
    url = environment.get("COMFYUI_URL")
    return url is not None and url == environment.get("SANDBOX_COMFYUI_CONTROL_URL")


def _python(
    name: str,
    argv: Sequence[str],
    environment: dict[str, str],
    *,
    ready: Ready | None = None,
    after: Sequence[str] = (),
) -> ChildSpec:
    # KILL, because our own processes are made to bear it, and a polite signal may be waited out.
    bound = bound_to_parent([sys.executable, *argv], signal.SIGKILL, None)
    return ChildSpec(name=name, argv=bound, environment=environment, ready=ready, depends_on=after, cwd=ROOT)


def require_setup() -> None:
    """Say in one sentence that set-up is missing, before anything fails less clearly. Raises `SetupMissing`."""
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("psycopg") is None:
        raise SetupMissing("The Python packages are not installed: run `make setup` first.")
    if (ROOT / "package-lock.json").exists() and not (ROOT / "node_modules").is_dir():
        raise SetupMissing("The browser packages are not installed: run `make setup` first.")


def require_trying_out(given: Mapping[str, str]) -> None:
    """A database of somebody's own is served with stand-ins only if that is asked for. Raises `SupervisorError`."""
    environment = given.get(ENVIRONMENT)
    if environment not in (None, "", EMBEDDED):
        raise SupervisorError(
            f"{ENVIRONMENT} is {environment}, and `make run` starts the try-out stack: docs/operators.md says how to "
            "start each program."
        )
    if given.get("DATABASE_URL") and not environment:
        raise SupervisorError(
            "DATABASE_URL names a database of your own, and `make run` would serve it with built-in sign-in and "
            f"stand-ins for payments. Leave it empty, or say {ENVIRONMENT}={EMBEDDED} if this is what you want."
        )


def require_linux() -> None:
    """The tree relies on the kernel's parent-death signal. Raises `SupervisorError` elsewhere."""
    if not sys.platform.startswith("linux"):
        raise SupervisorError("`make run` needs Linux; use docker-compose.yml on other systems.")
