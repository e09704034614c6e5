"""What can be made to go wrong, and how often. Every count is used up; 0 means healthy."""

from __future__ import annotations

import asyncio
from typing import Literal

from sandbox.common import faults


class Faults(faults.Faults):
    """Set by `POST /sandbox/faults`; read by the servicers and streams."""

    drop: int = 0
    """That many stream messages are not sent."""
    duplicate: int = 0
    """That many stream messages are sent twice."""
    delay_ms: int = 0
    """Every stream message waits this long."""
    unavailable: int = 0
    """That many calls fail with UNAVAILABLE; nothing is done."""
    timeout_after_commit: int = 0
    """That many unary calls do their work and never answer."""
    method: str = ""
    """Only calls whose method name is this (`AddInvoice`) suffer the two above."""
    settle_index_gap: int = 0
    """The next settlement skips that many settle indexes."""
    settle_without_money: int = 0
    """That many SettleInvoice calls report success although the HTLCs were lost (LND #4587)."""
    payment_stuck: int = 0
    """That many outgoing payments stay in flight until `/sandbox/payments/resolve`."""
    wallet_state: Literal[
        "SERVER_ACTIVE", "LOCKED", "UNLOCKED", "RPC_ACTIVE", "WAITING_TO_START", "NON_EXISTING"
    ] = "SERVER_ACTIVE"
    """What State.GetState reports."""
    remote_sat: int = 100_000_000
    """What the other side of the only channel has: so much, less its reserve, can arrive. It never runs down by itself."""
    channel_active: bool = True
    """Whether that channel's other side is there."""
    private_channel: bool = False
    """Whether the node has a channel that nobody knows of: invoices that ask for it then tell the way."""
    synced: bool = True
    """What GetInfo reports about synced_to_chain."""
    network: str = "regtest"
    """What GetInfo reports about the chain."""

    def hits(self, name: str, method: str) -> bool:
        """Use up one of a counted fault that is limited to a method."""
        return (not self.method or method.endswith("/" + self.method)) and self.take(name)

    async def copies(self) -> int:
        """How many copies of the next stream message to send, after its delay."""
        if self.delay_ms:
            await asyncio.sleep(self.delay_ms * 0.001)
        if self.take("drop"):
            return 0
        return 2 if self.take("duplicate") else 1
