"""How the supervisor starts this sandbox, and what the others need to talk to it."""

from __future__ import annotations

from pathlib import Path

from sandbox.elementsd.params import CHAIN, LBTC_ASSET
from sandbox.elementsd.treasury import DESCRIPTOR_FILE
from sandbox.elementsd.wallet import usdt_asset
from sandbox.service import HttpReady, PortBook, Service

_USER = "sandbox"
_PASSWORD = "sandbox"


def describe(data_dir: Path, port: PortBook) -> Service:
    """The Liquid sandbox node. Its data and the merchant's descriptor live under `data_dir`."""
    number = port("elementsd")
    address = f"http://127.0.0.1:{number}"
    return Service(
        name="elementsd",
        argv=("-m", "sandbox.elementsd", "--port", str(number), "--data", str(data_dir)),
        environment={
            "ELEMENTS_RPC_URL": f"http://{_USER}:{_PASSWORD}@127.0.0.1:{number}",
            "LIQUID_NETWORK": CHAIN,
            "LIQUID_DESCRIPTOR": str(data_dir / DESCRIPTOR_FILE),
            "LIQUID_USDT_ASSET": usdt_asset(),
            "LIQUID_LBTC_ASSET": LBTC_ASSET,
            "SANDBOX_ELEMENTS_CONTROL_URL": address,
        },
        ready=HttpReady(f"{address}/sandbox/health"),
    )
