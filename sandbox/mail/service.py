"""How the supervisor starts the stand-in mail server, and what the gateway needs to send by it."""

from __future__ import annotations

from pathlib import Path

from sandbox.service import HttpReady, PortBook, Service


def describe(data_dir: Path, port: PortBook) -> Service:
    """The process, its settings and its readiness."""
    own, smtp = port("mail"), port("smtp")
    address = f"http://127.0.0.1:{own}"
    return Service(
        name="mail",
        argv=(
            *("-m", "sandbox.mail", "--port", str(own), "--smtp-port", str(smtp)),
            *("--data", str(data_dir / "mail")),
        ),
        environment={
            "LLAMASKETCH_SMTP_URL": f"smtp+plain://127.0.0.1:{smtp}",
            "LLAMASKETCH_MAIL_FROM": "LlamaSketch <mail@llamasketch.example>",
            "SANDBOX_MAIL_CONTROL_URL": address,
        },
        ready=HttpReady(f"{address}/sandbox/health"),
    )
