"""How the supervisor starts the Stripe stand-in, and what the gateway needs to talk to it."""

from __future__ import annotations

import secrets
from pathlib import Path

from sandbox.common.files import keep
from sandbox.service import HttpReady, PortBook, Service


def describe(data_dir: Path, port: PortBook) -> Service:
    """The process, its settings and its readiness. Keys are made once per data folder."""
    folder = data_dir / "stripe"
    own, gateway = port("stripe"), port("gateway")
    address = f"http://127.0.0.1:{own}"
    secret_file = folder / "webhook-secret"
    webhook_secret = keep(secret_file, lambda: f"whsec_sandbox_{secrets.token_hex(16)}")
    api_key = keep(folder / "api-key", lambda: f"sk_test_sandbox_{secrets.token_hex(16)}")
    argv = (
        *("-m", "sandbox.stripe", "--port", str(own), "--data", str(folder)),
        *("--webhook-url", f"http://127.0.0.1:{gateway}/v1/hooks/card"),
        *("--webhook-secret-file", str(secret_file)),
    )
    return Service(
        name="stripe",
        argv=argv,
        environment={
            "STRIPE_API_BASE": address,
            "STRIPE_SECRET_KEY": api_key,
            "STRIPE_WEBHOOK_SECRET": webhook_secret,
            "SANDBOX_STRIPE_CONTROL_URL": address,
        },
        ready=HttpReady(f"{address}/sandbox/health"),
    )
