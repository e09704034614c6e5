"""How the supervisor starts the ComfyUI stand-in."""

from __future__ import annotations

from pathlib import Path

from sandbox.service import HttpReady, PortBook, Service


def describe(data_dir: Path, port: PortBook) -> Service:
    """How to start it with its pictures under `data_dir`."""
    number = port("comfyui")
    url = f"http://127.0.0.1:{number}"
    return Service(
        name="comfyui",
        argv=("-m", "sandbox.comfyui", "--port", str(number), "--data", str(data_dir)),
        environment={
            "COMFYUI_URL": url,
            "COMFYUI_FOLDER": str(data_dir),
            "SANDBOX_COMFYUI_CONTROL_URL": url,
        },
        ready=HttpReady(f"{url}/sandbox/health"),
    )
