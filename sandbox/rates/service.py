"""How the supervisor starts the stand-in price feeds."""

from __future__ import annotations

from pathlib import Path

from sandbox.service import HttpReady, PortBook, Service


def describe(data_dir: Path, port: PortBook) -> Service:
    """Three feeds, each of bitcoin and USDT, behind one port; they keep nothing, so `data_dir` stays empty."""
    own = port("rates")
    address = f"http://127.0.0.1:{own}"
    feeds = ",".join(f"{kind}={address}" for kind in ("coinbase", "kraken", "bitstamp"))
    return Service(
        name="rates",
        argv=("-m", "sandbox.rates", "--port", str(own)),
        environment={"RATE_FEEDS": feeds, "USDT_FEEDS": feeds},
        ready=HttpReady(f"{address}/sandbox/health"),
    )
