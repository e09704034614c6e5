"""The world outside of the Liquid rail: a node in a process of its own, moved by HTTP."""

from __future__ import annotations


import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from ledger.clock import Clock, system_clock
from ledger.identifiers import Identifiers
from ledger.money import USDT, Asset, Money, format_decimal
from rails.contract import Instructions, Order, Rail, RailContext, ReferenceBook
from rails.liquid.plugin import plugin
from tests.rails.contract import Impossible

PATIENCE_SECONDS = 20


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SandboxNode:
    """The sandbox node as a process."""

    def __init__(self, data: Path, port: int, *options: str) -> None:
        self.data, self.port = data, port
        self.url = f"http://127.0.0.1:{port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        argv = ["-m", "sandbox.elementsd", "--port", str(self.port), "--data", str(self.data), *self._options]
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, *argv], stderr=log, stdout=log
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        with httpx.Client(transport=httpx.HTTPTransport(retries=100)) as client:
            while time.monotonic() < deadline:
                assert self._process.poll() is None, (self.data / "log").read_text()
                try:
                    client.get(self.url + "/sandbox/health").raise_for_status()
                except httpx.HTTPError:
                    continue
                return
        raise AssertionError("the sandbox node did not start")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it by a signal; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_SECONDS)

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """Ask the control API. Raises `httpx.HTTPStatusError`."""
        response = httpx.post(f"{self.url}/sandbox/{path}", json=body, timeout=PATIENCE_SECONDS)
        response.raise_for_status()
        return dict(response.json())

    def info(self) -> dict[str, Any]:
        """Height, assets, balances."""
        return dict(httpx.get(f"{self.url}/sandbox/info").json())

    def call(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call; the result, or the error's object as a `NodeError`."""
        response = httpx.post(
            self.url, json={"id": 1, "method": method, "params": params}, auth=("sandbox", "sandbox")
        )
        answer = response.json()
        if answer["error"] is not None:
            raise NodeError(answer["error"]["code"], answer["error"]["message"], response.status_code)
        return answer["result"]


class NodeError(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, status: int) -> None:
        super().__init__(code, message, status)
        self.code, self.message, self.status = code, message, status


def environment(node: SandboxNode) -> dict[str, str]:
    """What the gateway would be given."""
    assets = node.info()["assets"]
    return {
        "ELEMENTS_RPC_URL": f"http://sandbox:sandbox@127.0.0.1:{node.port}",
        "LIQUID_NETWORK": "liquidregtest",
        "LIQUID_DESCRIPTOR": str(node.data / "descriptor.txt"),
        "LIQUID_USDT_ASSET": assets["USDT"],
        "LIQUID_LBTC_ASSET": assets["L-BTC"],
        "LIQUID_POLL_SECONDS": "0.1",
    }


@dataclass
class LiquidWorld:
    """The contract suite's world."""

    node: SandboxNode
    environ: Mapping[str, str]
    clock: Clock = system_clock

    async def start(self, references: ReferenceBook) -> Rail:
        """A fresh rail on the same chain."""
        context = RailContext(clock=self.clock, references=references, production=False)
        return plugin.build(self.environ, context)

    async def pay(
        self, instructions: Instructions, amount: int | None = None, asset: Asset | None = None
    ) -> None:
        """From the sandbox's purse."""
        body: dict[str, Any] = {"uri": instructions.uri}
        if amount is not None:
            body["amount"] = format_decimal(amount, 8)
        if asset is not None:
            body["assetid"] = self.asset_id(asset)
        try:
            self.node.control("pay", **body)
        except httpx.HTTPStatusError as error:
            raise Impossible(error.response.text) from error

    def asset_id(self, asset: Asset) -> str:
        """The chain's name of an asset."""
        ids = {"USDT": self.environ["LIQUID_USDT_ASSET"], "L-BTC": self.environ["LIQUID_LBTC_ASSET"]}
        return ids.get(asset.code, asset.code)

    async def settle_world(self) -> None:
        """Two confirmations."""
        self.node.control("mine", blocks=2)

    async def expire(self, instructions: Instructions) -> None:
        """An address never closes."""

    @property
    def foreign_asset(self) -> Asset:
        """An asset of the chain that no one asked for."""
        return Asset(self.node.info()["assets"]["JUNK"], 8)

    async def reverse(self, instructions: Instructions) -> None:
        """Reorganise the last blocks away and double-spend what was in them."""
        self.node.control("reorg", depth=3, drop=True)

    async def break_down(self) -> None:
        """Every call is cut off."""
        self.node.control("faults", down=True)

    async def restore(self) -> None:
        """It answers again."""
        self.node.control("faults")

    async def lose_next_answer(self) -> None:
        """One call is done and its answer lost."""
        self.node.control("faults", drop=1)


def an_order(rail: Rail, ordinal: int, *, minor: int = 5_00000000, asset: Asset = USDT) -> Order:
    """A plain order."""
    ids = Identifiers(system_clock)
    return Order(
        payment_id=ids.payment(),
        account_id=ids.account(),
        ordinal=ordinal,
        amount_due=Money(minor, asset),
        description="500 images",
        expires_at=datetime.now(UTC),
        return_url="https://llamasketch.test/topups/return",
    )


