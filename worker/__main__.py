"""`python -m generation.worker [--config worker.toml] [--check]`; settings also by environment."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import httpx
import structlog

from generation.comfyui.client import ComfyClient, Patience
from generation.comfyui.library import load_graphs
from generation.worker.api import WorkerApi
from generation.worker.config import ConfigurationFault, WorkerConfig, load_config
from generation.worker.credentials import CredentialFile
from generation.worker.files import ComfyFiles
from generation.worker.gate import gpu_health_check
from generation.worker.job import Tools
from generation.worker.loop import RegistrationRefused, Worker
from generation.worker.process import ComfyProcess, LocalProcess, UnmanagedProcess
from ledger.clock import system_clock

EXIT_CONFIGURATION = 2
EXIT_REFUSED = 3
EXIT_UNHEALTHY = 4


def main(argv: list[str]) -> int:
    """Run until SIGTERM or SIGINT; with `--check` only the boot gate."""
    parser = argparse.ArgumentParser(prog="generation.worker", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="a TOML file")
    parser.add_argument("--check", action="store_true", help="run the boot gate, say what it found, exit")
    wish = parser.parse_args(argv)
    _log_as_json()
    log = structlog.get_logger("worker")
    try:
        config = load_config(os.environ, wish.config)
    except ConfigurationFault as fault:
        log.critical("configuration", reason=str(fault))
        return EXIT_CONFIGURATION
    try:
        return asyncio.run(_check(config) if wish.check else _serve(config))
    except RegistrationRefused as fault:
        log.critical("registration_refused", reason=str(fault))
        return EXIT_REFUSED


async def _serve(config: WorkerConfig) -> int:
    shutdown = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shutdown.set)
    # Addresses are taken as they are: proxies of the environment are not meant for them.
    async with httpx.AsyncClient(trust_env=False) as http, httpx.AsyncClient(trust_env=False) as local:
        tools = make_tools(config, http, local)
        worker = Worker(
            tools,
            _process(config),
            CredentialFile(config.data_dir),
            ComfyFiles(config.comfyui_folder, config.keep_files),
            shutdown,
        )
        await worker.run()
    return 0


async def _check(config: WorkerConfig) -> int:
    async with httpx.AsyncClient(trust_env=False) as http:
        tools = make_tools(config, http, http)
        report = await gpu_health_check(
            tools.comfy,
            tools.graphs,
            wanted=config.graphs,
            gate_graph=config.gate_graph,
            models=config.models,
            limit_seconds=config.gate_seconds,
            monotonic=time.monotonic,
        )
    for check in report.checks:
        structlog.get_logger("worker.gate").info(
            "checked", check=check.name, passed=check.passed, seen=check.seen
        )
    return 0 if report.passed else EXIT_UNHEALTHY


def make_tools(config: WorkerConfig, http: httpx.AsyncClient, local: httpx.AsyncClient) -> Tools:
    """Wire the parts: `http` talks to the API and the object store, `local` to ComfyUI."""
    graphs = load_graphs()
    return Tools(
        api=WorkerApi(config.api_url, http),
        comfy=ComfyClient(config.comfyui_url, local, patience=Patience(stall=config.stall_seconds)),
        graphs=graphs.only(config.graphs) if config.graphs else graphs,
        config=config,
        clock=system_clock,
        monotonic=time.monotonic,
        jitter=random.Random(),
    )


def _process(config: WorkerConfig) -> ComfyProcess:
    address = urlparse(config.comfyui_url)
    if address.hostname not in {"127.0.0.1", "localhost", "::1"} or not config.comfyui_restart_command:
        return UnmanagedProcess()
    return LocalProcess(address.port or 8188, config.comfyui_restart_command)


def _log_as_json() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
