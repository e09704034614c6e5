"""What can be made to go wrong, and how often. Every count is used up; 0 means healthy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Faults:
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
    wallet_state: str = "SERVER_ACTIVE"
    """What State.GetState says: LOCKED, UNLOCKED, RPC_ACTIVE, SERVER_ACTIVE, WAITING_TO_START, NON_EXISTING."""
    synced: bool = True
    """What GetInfo says about synced_to_chain."""
    network: str = "regtest"
    """What GetInfo says about the chain."""

    def change(self, wanted: dict[str, Any]) -> None:
        """Set the named faults. Raises `ValueError` for an unknown name or a wrong type."""
        known = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        for name, value in wanted.items():
            if known.get(name) is not type(value):
                raise ValueError(f"no fault {name!r} with such a value")
        for name, value in wanted.items():
            setattr(self, name, value)

    def take(self, name: str) -> bool:
        """Use up one of a counted fault; False if there is none left."""
        left: int = getattr(self, name)
        if left <= 0:
            return False
        setattr(self, name, left - 1)
        return True

    def hits(self, name: str, method: str) -> bool:
        """Use up one of a counted fault that is limited to a method."""
        return (not self.method or method.endswith("/" + self.method)) and self.take(name)

    async def copies(self) -> int:
        """How many copies of the next stream message to send, after its delay."""
        if self.delay_ms:
            seconds, milliseconds = divmod(self.delay_ms, 1000)
            await asyncio.sleep(seconds + milliseconds * 0.001)
        if self.take("drop"):
            return 0
        return 2 if self.take("duplicate") else 1

    def as_dict(self) -> dict[str, Any]:
        """All faults by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
