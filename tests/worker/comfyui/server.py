"""Starts the ComfyUI stand-in as its own process, as production would meet a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX, eventually


class ComfyServer:
    """One server process; `start` may be called again after it died."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.kill()
        command = [
            sys.executable,
            "-m",
            "sandbox.comfyui",
            "--port",
            str(self.port),
            "--data",
            str(self.folder),
        ]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await eventually(self.healthy, "the stand-in answers")

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/sandbox/health").status_code == 200
        except httpx.TransportError:
            return False

    def dead(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(SECONDS_MAX)

    async def forget(self) -> None:
        """Drop loaded models and results, as before the next prompt."""
        async with httpx.AsyncClient() as http:
            await http.post(f"{self.url}/free", json={"unload_models": True, "free_memory": True})

    def history(self) -> str:
        return httpx.get(f"{self.url}/history").text

    def faults(self, **arguments: Any) -> None:
        answer = httpx.post(f"{self.url}/sandbox/faults", json=arguments)
        assert answer.status_code == 200, answer.text
