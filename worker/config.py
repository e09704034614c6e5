"""Settings of a worker: one TOML file, overridden by the environment."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from generation.worker.models import ModelFiles


class ConfigurationFault(Exception):
    """The worker's configuration is not usable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Everything a worker needs to know. Names in the file are these; seconds and megabytes as said."""

    api_url: str
    comfyui_url: str
    registration_token: str | None = None
    data_dir: Path = Path("worker-data")
    name: str = "worker"
    graphs: tuple[str, ...] = ()
    """Labels to offer; empty means every graph that this ComfyUI can run."""
    comfyui_folder: Path | None = None
    """ComfyUI's base folder (with input/ and output/), to prune its files; None leaves them."""
    models_folder: Path | None = None
    """ComfyUI's models folder, to compare files with the digests that graphs declare; None: only their names."""
    comfyui_restart_command: tuple[str, ...] = ()
    """How to restart ComfyUI, e.g. ["systemctl", "restart", "comfyui"]; empty: something else does."""
    gate_graph: str | None = None
    """The graph of the boot gate's test generation; None takes the first offered."""
    gate_seconds: float = 120.0
    job_seconds: float = 300.0
    stall_seconds: float = 90.0
    heartbeat_seconds: float = 5.0
    claim_seconds: float = 20.0
    grace_seconds: float = 10.0
    recycle_jobs: int = 500
    recycle_rss_mb: int = 0
    """Restart ComfyUI above this resident size; 0 never."""
    keep_files: int = 0
    """How many files that a crash left in ComfyUI's folder stay there; they are people's pictures."""

    @property
    def models(self) -> ModelFiles | None:
        """The models folder, with what is remembered about it."""
        return None if self.models_folder is None else ModelFiles(self.models_folder, self.data_dir)


_ENVIRONMENT = {
    "LLAMASKETCH_API_URL": "api_url",
    "LLAMASKETCH_WORKER_REGISTRATION_TOKEN": "registration_token",
    "COMFYUI_URL": "comfyui_url",
    "COMFYUI_FOLDER": "comfyui_folder",
    **{
        f"LLAMASKETCH_WORKER_{field.name.upper()}": field.name
        for field in fields(WorkerConfig)
        if field.name not in {"api_url", "registration_token", "comfyui_url", "comfyui_folder"}
    },
}


def load_config(environment: Mapping[str, str], file: Path | None = None) -> WorkerConfig:
    """Read the file, then the environment. Raises `ConfigurationFault` with one clear sentence.

    Lists in the environment are separated by commas (graphs) or blanks (the restart command).
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values.update(tomllib.loads(file.read_text("utf-8")))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise ConfigurationFault(f"cannot read {file}: {fault}") from fault
    values.update({field: environment[name] for name, field in _ENVIRONMENT.items() if environment.get(name)})
    known = {field.name for field in fields(WorkerConfig)}
    unknown = set(values) - known
    if unknown:
        raise ConfigurationFault(f"unknown settings: {', '.join(sorted(unknown))}")
    for name in ("api_url", "comfyui_url"):
        if urlparse(str(values.get(name, ""))).scheme not in {"http", "https"}:
            raise ConfigurationFault(f"{name} is missing or not an http(s) address")
    try:
        return WorkerConfig(**{name: _converted(name, value) for name, value in values.items()})
    except (TypeError, ValueError) as fault:
        raise ConfigurationFault(str(fault)) from fault


def _converted(name: str, value: Any) -> Any:
    match name:
        case "data_dir" | "comfyui_folder" | "models_folder":
            return Path(value)
        case "graphs" | "comfyui_restart_command":
            separator = "," if name == "graphs" else None
            parts = value.split(separator) if isinstance(value, str) else value
            return tuple(str(part).strip() for part in parts)
        case "recycle_jobs" | "recycle_rss_mb" | "keep_files":
            return int(value)
        case _ if name.endswith("_seconds"):
            return float(value)
        case "api_url" | "comfyui_url":
            return str(value).rstrip("/")
        case _:
            return str(value)
