"""Which address a payment gets: one that nobody has paid before it is given out.

An address may hold money before we hand it out: after a restored backup, which knows less than its payers, or where
the keys serve another purpose too. Whoever were given it would be given that money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from ledger.cancelling import end_tasks
from rails.contract import RailError, RailProtocolError, RailUnavailable
from rails.liquid.book import ScriptBook
from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.follower import Follower

LOOKAHEAD: Final = 1_000
"""Addresses watched beyond the newest one known here: another process may open payments too."""
PLACES: Final = 8
ORDINALS: Final = 1 << 28
"""Each ordinal has so many places: the index that it names, and one in each further range of so many indexes."""
_WAIT_SECONDS: Final = 10
_LARGEST_PAUSE_SECONDS: Final = 5.0


class Addresses:
    """Looks for money of the addresses to come, long before they are needed, and passes over those that hold some.

    A source that is asked about each script by itself is asked about the one that is needed, when it is needed.
    """

    def __init__(
        self, descriptor: WatchOnlyDescriptor, book: ScriptBook, follower: Follower, pause_seconds: float
    ) -> None:
        self._descriptor = descriptor
        self._book = book
        self._follower = follower
        self._pause_seconds = pause_seconds
        self._looked_to = 0
        """What the addresses up to this ordinal hold is known, from the newest one at the start on."""
        self._looking: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    async def remember(self, scripts: Sequence[bytes], newest: int) -> None:
        """Watch the scripts that were given out before, and those to come after the ordinal of the newest."""
        self._book.add(scripts)
        await asyncio.to_thread(self._book.add_range, newest, newest + LOOKAHEAD)
        self._looked_to = newest

    def find_unspent(self, scripts: Sequence[bytes]) -> None:
        """Begin to look for old money of the addresses to come, and then of these, however long that takes."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(self._looked_to, scripts), name="liquid-unspent")

    async def unused(self, ordinal: int) -> int:
        """The index of the address for an ordinal. Raises `RailUnavailable` while it is not known what it holds."""
        if self._follower.scans_all:
            await self._looked_at(ordinal)
        for place in range(PLACES):
            index = ordinal + place * ORDINALS
            script = self._descriptor.script(index)
            if not self._follower.scans_all:
                await self._follower.find_unspent([script])
            await self.watch(script)
            if not self._follower.sightings.of_script(script):
                return index
            self._log.error("liquid_address_was_paid_before", ordinal=ordinal, index=index)
        raise RailProtocolError("every address for this payment was paid before")

    async def watch(self, script: bytes) -> None:
        """A script that no one foresaw: watch it, and look for money that is there already."""
        if script not in self._book:
            self._book.add([script])
            self._follower.look_again()
            await self._follower.find_unspent([script])
            await self._follower.refresh()

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            await end_tasks([self._looking])

    async def _looked_at(self, ordinal: int) -> None:
        idle = self._looking is None or self._looking.done()
        if idle and ordinal + LOOKAHEAD // 2 > self._looked_to:
            self._looking = asyncio.create_task(self._look(ordinal), name="liquid-addresses")
        if ordinal > self._looked_to and self._looking is not None:
            await asyncio.wait([self._looking], timeout=_WAIT_SECONDS)
        if ordinal > self._looked_to:
            raise RailUnavailable("it is not known yet whether the next addresses were paid before")

    async def _look(self, ordinal: int, old: Sequence[bytes] = ()) -> None:
        up_to = ordinal + LOOKAHEAD
        scripts = await asyncio.to_thread(self._book.add_range, self._looked_to, up_to)
        if self._follower.scans_all:
            self._follower.look_again()
            await self._read_unspent(scripts)
            self._looked_to = up_to
        await self._read_unspent(old)

    async def _read_unspent(self, scripts: Sequence[bytes]) -> None:
        pause = self._pause_seconds
        while True:
            try:
                await self._follower.find_unspent(scripts)
            except RailError as error:
                self._log.warning("liquid_chain_unavailable", detail=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LARGEST_PAUSE_SECONDS)
            else:
                self._log.info("liquid_unspent_read", scripts=len(scripts))
                return
