"""How much can arrive at the node now, with a credential of its own that can do nothing else.

Protocol source: `lnrpc.Channel` of LND. What the other side of a channel has, less what it must keep there, can come to
us. Payments may come in parts, over all channels.
"""

from __future__ import annotations

from typing import Any

from lndgrpc.compiled import lightning_pb2 as ln

from rails.lightning.connection import Connection
from rails.lightning.errors import AnswerUnreadable
from rails.reading import MISREAD

KEPT_PER_MILLE = 10
"""Of each channel: whoever sends a part also pays for the larger transaction that carries it."""
MSAT_PER_SAT = 1_000
SAT_MAX = 21 * 10**14


class Channels:
    """The channels of one node."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def close(self) -> None:
        """Let go of the channel to the node."""
        await self._connection.close()

    async def receivable_msat(self) -> int:
        """What all active channels can receive now. Raises `RailUnavailable` or an `LndRefused`."""
        answer = await self._connection.call(
            lambda stubs: stubs.lightning.ListChannels,
            ln.ListChannelsRequest(active_only=True),
            method="ListChannels",
        )
        try:
            return sum(_receivable_sat(channel) for channel in answer.channels) * MSAT_PER_SAT
        except MISREAD:
            raise AnswerUnreadable("ListChannels: the answer cannot be read") from None


def _receivable_sat(channel: Any) -> int:
    theirs, kept = int(channel.remote_balance), int(channel.remote_chan_reserve_sat)
    if not 0 <= theirs <= SAT_MAX or not 0 <= kept <= SAT_MAX:
        raise ValueError("more than there is")
    free = max(theirs - kept, 0)
    return free - free * KEPT_PER_MILLE // 1_000
