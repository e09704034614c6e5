"""Settings of a worker: one TOML file, overridden by the environment."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from worker.models import ModelFiles


class ConfigurationFault(Exception):
    """The worker's configuration is not usable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Everything a worker needs to know. Names in the file are these; seconds and megabytes as said."""

    api_url: str
    comfyui_url: str
    environment: str = "production"
    """`embedded` only beside the try-out stack; in production what leaves the machine uses TLS."""
    registration_token: str | None = None
    data_dir: Path = Path("worker-data")
    name: str = "worker"
    graphs: tuple[str, ...] = ()
    """Labels to offer, each of which must work; empty: every graph that is sold, and what else fits."""
    graphs_folder: Path | None = None
    """Graph files of the operator's own, beside those that ship with the worker."""
    comfyui_folder: Path | None = None
    """ComfyUI's base folder (with input/ and output/), to prune its files; None leaves them."""
    models_folder: Path | None = None
    """ComfyUI's models folder, to compare files with the digests that graphs declare; None: only their names."""
    comfyui_restart_command: tuple[str, ...] = ()
    """How to restart ComfyUI, e.g. ["systemctl", "restart", "comfyui"]; empty: something else does."""
    gate_graph: str | None = None
    """The only graph that makes a picture at the gate; None: each one that is sold."""
    gate_seconds: float = 120.0
    cold_seconds: float = 600.0
    """How long the models may take to load after ComfyUI has started, beyond the other limits."""
    upload_seconds: float = 20.0
    """Within which two megabytes must reach the object store."""
    job_seconds: float = 300.0
    stall_seconds: float = 90.0
    heartbeat_seconds: float = 5.0
    claim_seconds: float = 20.0
    grace_seconds: float = 10.0
    recycle_jobs: int = 500
    recycle_rss_mb: int = 0
    """Restart ComfyUI above this resident size; 0 never."""
    webp_quality: int = 0
    """From 1 to 100: images are uploaded as WebP of this quality. 0: as ComfyUI wrote them, as PNG."""
    keep_files: int = 0
    """How many files that a crash left in ComfyUI's folder stay there; they are people's pictures."""

    @property
    def models(self) -> ModelFiles | None:
        """The models folder, with what is remembered about it."""
        return None if self.models_folder is None else ModelFiles(self.models_folder, self.data_dir)


BOUNDS: Mapping[str, tuple[float, float]] = {
    "gate_seconds": (1, 3600),
    "cold_seconds": (0, 7200),
    "upload_seconds": (1, 3600),
    "job_seconds": (1, 86_400),
    "stall_seconds": (1, 3600),
    "heartbeat_seconds": (0.05, 60),
    "claim_seconds": (0.05, 300),
    "grace_seconds": (0, 3600),
    "recycle_jobs": (0, 1_000_000),
    "recycle_rss_mb": (0, 10_000_000),
    "webp_quality": (0, 100),
    "keep_files": (0, 1_000_000),
}
"""Least and most of every number."""
_ENVIRONMENTS = ("production", "embedded")

ENVIRONMENT = {
    "LLAMASKETCH_ENVIRONMENT": "environment",
    "LLAMASKETCH_API_URL": "api_url",
    "LLAMASKETCH_WORKER_REGISTRATION_TOKEN": "registration_token",
    "COMFYUI_URL": "comfyui_url",
    "COMFYUI_FOLDER": "comfyui_folder",
    **{
        f"LLAMASKETCH_WORKER_{field.name.upper()}": field.name
        for field in fields(WorkerConfig)
        if field.name not in {"environment", "api_url", "registration_token", "comfyui_url", "comfyui_folder"}
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
    values.update(
        {field: environment[name] for name, field in ENVIRONMENT.items() if environment.get(name, "").strip()}
    )
    known = {field.name for field in fields(WorkerConfig)}
    unknown = set(values) - known
    if unknown:
        raise ConfigurationFault(f"unknown settings: {', '.join(sorted(unknown))}")
    wrong = [name for name in ("api_url", "comfyui_url") if not _is_address(str(values.get(name, "")))]
    if wrong:
        named = {field: name for name, field in ENVIRONMENT.items()}
        sentences = (f"{field} ({named[field]}) is missing or not an http(s) address" for field in wrong)
        raise ConfigurationFault("; ".join(sentences))
    try:
        config = WorkerConfig(**{name: _converted(name, value) for name, value in values.items()})
    except (TypeError, ValueError) as fault:
        raise ConfigurationFault(str(fault)) from fault
    problems = [*_out_of_bounds(config), *_refused_in_production(config)]
    if problems:
        raise ConfigurationFault("; ".join(problems))
    return config


def _is_address(value: str) -> bool:
    address = urlparse(value)
    return address.scheme in {"http", "https"} and bool(address.hostname)


def _out_of_bounds(config: WorkerConfig) -> Iterator[str]:
    if config.environment not in _ENVIRONMENTS:
        yield f"environment must be {' or '.join(_ENVIRONMENTS)}"
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(config, name) <= most:
            yield f"{name} must be from {least:g} to {most:g}"


def _refused_in_production(config: WorkerConfig) -> Iterator[str]:
    """A token and people's pictures travel over the first address, pictures over the second."""
    if config.environment != "production":
        return
    for name, inside in (("api_url", _is_loopback), ("comfyui_url", _is_inside)):
        address = urlparse(getattr(config, name))
        if address.scheme != "https" and not inside(address.hostname or ""):
            yield f"{name} must begin with https:// in production: what is sent there must not be read on the way"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_inside(host: str) -> bool:
    """This machine, a private network, or a name that only a private network resolves."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local", ".localhost"))


def _converted(name: str, value: Any) -> Any:
    match name:
        case "data_dir" | "graphs_folder" | "comfyui_folder" | "models_folder":
            return Path(value)
        case "graphs" | "comfyui_restart_command":
            separator = "," if name == "graphs" else None
            parts = value.split(separator) if isinstance(value, str) else value
            return tuple(str(part).strip() for part in parts)
        case "recycle_jobs" | "recycle_rss_mb" | "webp_quality" | "keep_files":
            return int(value)
        case _ if name.endswith("_seconds"):
            return float(value)
        case "api_url" | "comfyui_url":
            return str(value).rstrip("/")
        case _:
            return str(value)
