"""The stand-in node passes the suite that real nodes pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest

from tests.rails.lightning.node import SandboxNode
from tests.rails.lightning.node_suite import NodeContract, Raw


@dataclass
class SandboxPayee:
    """The stand-in node, and a payer's wallet."""

    node: SandboxNode

    async def pay(self, bolt11: str) -> None:
        """See `Payee`."""
        await self.node.pay(bolt11)

    async def end(self) -> None:
        """See `Payee`."""
        await self.node.stop()

    async def begin(self) -> None:
        """See `Payee`."""
        await self.node.start()


class TestSandboxNode(NodeContract):
    @pytest.fixture
    async def raw(self, node: SandboxNode) -> AsyncIterator[Raw]:
        credentials = grpc.ssl_channel_credentials((node.folder / "tls.cert").read_bytes())
        options = [("grpc.max_reconnect_backoff_ms", 50), ("grpc.initial_reconnect_backoff_ms", 20)]
        async with grpc.aio.secure_channel(node.address, credentials, options) as channel:
            yield Raw(SandboxPayee(node), channel, (node.folder / "admin.macaroon").read_bytes().hex())
