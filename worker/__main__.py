"""`python -m worker [--config worker.toml] [--check]`; settings also by environment."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import httpx
import structlog

from worker.api import ApiFault, WorkerApi
from worker.clock import system_clock
from worker.comfyui.client import ComfyClient, RetryPause
from worker.comfyui.faults import ComfyFault, GraphUnknown
from worker.comfyui.library import GraphLibrary, load_graphs
from worker.config import ConfigurationFault, WorkerConfig, load_config
from worker.credentials import CredentialFile
from worker.files import ComfyFiles
from worker.job import Tools
from worker.loop import RegistrationRefused, Worker
from worker.process import ComfyProcess, LocalProcess, UnmanagedProcess
from worker.readiness import GateClosed, Readiness
from worker.sole_user import ComfyUITaken, claim_comfyui, owner_id

EXIT_CONFIGURATION = 2
EXIT_REFUSED = 3
EXIT_UNHEALTHY = 4
EXIT_TAKEN = 5


# What is counted as sent should be on its way: without this, megabytes wait in the kernel behind a slow line.
_SEND_WHAT_LEAVES = (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), 128 * 1024)


def main(argv: list[str]) -> int:
    """Run until SIGTERM or SIGINT; with `--check` only the boot gate."""
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="a TOML file")
    parser.add_argument("--check", action="store_true", help="run the boot gate, say what it found, exit")
    arguments = parser.parse_args(argv)
    _log_as_json()
    log = structlog.get_logger("worker")
    try:
        config = load_config(os.environ, arguments.config)
        graphs_of(config)
    except ConfigurationFault as fault:
        log.critical("configuration", reason=str(fault))
        return EXIT_CONFIGURATION
    try:
        held = claim_comfyui(config.comfyui_url)
    except ComfyUITaken as fault:
        log.critical("comfyui_taken", reason=str(fault))
        return EXIT_TAKEN
    try:
        return asyncio.run(_check(config) if arguments.check else _serve(config))
    except RegistrationRefused as fault:
        log.critical("registration_refused", reason=str(fault))
        return EXIT_REFUSED
    finally:
        if held is not None:
            held.close()


async def _serve(config: WorkerConfig) -> int:
    shutdown = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shutdown.set)
    # Addresses are taken as they are: proxies of the environment are not meant for them.
    transport = httpx.AsyncHTTPTransport(trust_env=False, socket_options=[_SEND_WHAT_LEAVES])
    async with (
        httpx.AsyncClient(trust_env=False, transport=transport) as http,
        httpx.AsyncClient(trust_env=False) as local,
    ):
        tools = make_tools(config, http, local)
        files = ComfyFiles(config.comfyui_folder, config.keep_files)
        readiness = Readiness(tools, _process(config), files)
        worker = Worker(tools, readiness, CredentialFile(config.data_dir), shutdown)
        await worker.run()
    return 0


async def _check(config: WorkerConfig) -> int:
    async with httpx.AsyncClient(trust_env=False) as http:
        tools = make_tools(config, http, http)
        files = ComfyFiles(config.comfyui_folder, config.keep_files)
        readiness = Readiness(tools, UnmanagedProcess(), files)
        log = structlog.get_logger("worker.gate")
        mine = CredentialFile(config.data_dir).read(config.api_url)
        try:
            await readiness.prove()
            if mine is None:
                log.info("not_checked", check="upload", reason="this worker is not registered yet")
            else:
                tools.api.token = mine.token
                await readiness.prove_upload()
        except (GateClosed, ComfyFault, ApiFault) as fault:
            log.warning("not_ready", reason=str(fault))
            return EXIT_UNHEALTHY
    return 0


def make_tools(config: WorkerConfig, http: httpx.AsyncClient, local: httpx.AsyncClient) -> Tools:
    """Wire the parts: `http` talks to the API and the object store, `local` to ComfyUI."""
    comfy = ComfyClient(
        config.comfyui_url,
        local,
        wait_max=RetryPause(stall=config.stall_seconds),
        owner=owner_id(config.data_dir),
    )
    return Tools(
        api=WorkerApi(config.api_url, http),
        comfy=comfy,
        graphs=graphs_of(config),
        config=config,
        clock=system_clock,
        monotonic=time.monotonic,
        jitter=random.Random(),
    )


def graphs_of(config: WorkerConfig) -> GraphLibrary:
    """The graphs that ship with the worker, the operator's own, and of these the wanted ones.

    Raises `ConfigurationFault` with what is wrong with a file or a label.
    """
    try:
        graphs = load_graphs()
        if config.graphs_folder is not None:
            graphs = graphs.joined(load_graphs(config.graphs_folder))
        return graphs.only(config.graphs) if config.graphs else graphs
    except (OSError, ValueError, GraphUnknown) as fault:
        raise ConfigurationFault(f"graphs: {fault}") from fault


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
