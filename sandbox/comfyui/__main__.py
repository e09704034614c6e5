"""`python -m sandbox.comfyui --port N --data DIR [--paint-seconds 2.0] [--boot-seconds 0] [--fail-word WORD] [--plain]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import structlog
from aiohttp import web

from sandbox.comfyui.nodeclass import Folders, Settings
from sandbox.comfyui.server import ComfyServer
from sandbox.common.process import HOST, log_as_json


def main(argv: list[str]) -> int:
    """Serve on loopback until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="sandbox.comfyui", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    pace = float(os.environ.get("SANDBOX_COMFYUI_PAINT_SECONDS", "2.0"))
    parser.add_argument("--paint-seconds", type=float, default=pace, help="pace of one picture (0: no pause)")
    parser.add_argument(
        "--fail-word", default="sandbox-fail", help="a prompt with this word fails in its sampler"
    )
    boot = float(os.environ.get("SANDBOX_COMFYUI_BOOT_SECONDS", "0"))
    parser.add_argument("--boot-seconds", type=float, default=boot, help="the port stays closed this long")
    parser.add_argument(
        "--plain", action="store_true", help="tint the sketch instead of painting it: no processor time"
    )
    options = parser.parse_args(argv)
    log_as_json()
    # As the original, which imports its nodes for a minute before it listens.
    time.sleep(options.boot_seconds)
    settings = Settings(
        folders=make_folders(options.data),
        paint_seconds=options.paint_seconds,
        fail_word=options.fail_word,
        plain=options.plain,
    )
    app = ComfyServer(settings, ["main.py", "--listen", HOST, "--port", str(options.port)]).application()
    structlog.get_logger("sandbox.comfyui").info("listening", port=options.port, pace=options.paint_seconds)
    web.run_app(app, host=HOST, port=options.port, print=None, access_log=None, shutdown_timeout=1.0)
    return 0


def make_folders(data: Path) -> Folders:
    """Create the input, output and temp folders under `data`."""
    folders = Folders(data / "input", data / "output", data / "temp")
    for folder in (folders.input, folders.output, folders.temp):
        folder.mkdir(parents=True, exist_ok=True)
    return folders


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
