"""Blocks by themselves: quickly while a payment lacks confirmations, slowly otherwise."""

from __future__ import annotations

import asyncio

import structlog

from sandbox.elementsd.node import Node
from sandbox.elementsd.server import Server

CONFIRMATIONS = 2


class Miner:
    """Mines `pending_seconds` after a transaction entered the mempool until it has 2 confirmations, and else
    every `block_seconds`. Zero switches either off."""

    def __init__(self, node: Node, server: Server, *, block_seconds: int, pending_seconds: int) -> None:
        self._node, self._server = node, server
        self._block_seconds, self._pending_seconds = block_seconds, pending_seconds
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """For ever."""
        owed = CONFIRMATIONS if self._node.mempool else 0
        while True:
            if owed and self._pending_seconds:
                await asyncio.sleep(self._pending_seconds)
                owed = CONFIRMATIONS if self._node.mempool else owed
            elif not await self._wait():
                owed = CONFIRMATIONS if self._pending_seconds else 0
                continue
            self._server.changed.clear()
            mined = await self._server.run(self._node.mine)
            owed = max(owed - 1, 0)
            self._log.info("block_mined", hash=mined[0])

    async def _wait(self) -> bool:
        """Until a slow block is due (True) or a transaction entered the mempool (False)."""
        try:
            async with asyncio.timeout(self._block_seconds or None):
                await self._server.changed.wait()
        except TimeoutError:
            return True
        self._server.changed.clear()
        return False
