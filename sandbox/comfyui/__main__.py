"""`python -m sandbox.comfyui --port N --data DIR [--paint-seconds 2.0] [--fail-word WORD]`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import structlog
from aiohttp import web

from sandbox.comfyui.nodeclass import Folders, Settings
from sandbox.comfyui.server import ComfyServer


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
    wish = parser.parse_args(argv)
    _log_as_json()
    settings = Settings(
        folders=make_folders(wish.data), paint_seconds=wish.paint_seconds, fail_word=wish.fail_word
    )
    app = ComfyServer(settings, ["main.py", "--listen", "127.0.0.1", "--port", str(wish.port)]).application()
    structlog.get_logger("sandbox.comfyui").info(
        "listening", port=wish.port, paint_seconds=wish.paint_seconds
    )
    web.run_app(app, host="127.0.0.1", port=wish.port, print=None, access_log=None, shutdown_timeout=1.0)
    return 0


def make_folders(data: Path) -> Folders:
    """Create the input, output and temp folders under `data`."""
    folders = Folders(data / "input", data / "output", data / "temp")
    for folder in (folders.input, folders.output, folders.temp):
        folder.mkdir(parents=True, exist_ok=True)
    return folders


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
