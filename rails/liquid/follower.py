"""Following the chain: which outputs pay us, and how deep they are buried.

One poll asks for the mempool and the tip, and then only for what is new. Its cost does not
depend on how many payments are open. A reorganisation is noticed because our newest block
is no longer the chain's at its height: we walk back to the fork and forward again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from ledger.clock import Clock
from rails.contract import Following, Observation, RailError, RailProtocolError, RailUnavailable
from rails.liquid.book import ScriptBook
from rails.liquid.chain import Block, ChainSource, Pulse, Unspent
from rails.liquid.changes import Subscription
from rails.liquid.cursor import Cursor, make
from rails.liquid.integrity import is_transaction
from rails.liquid.judging import KnownChain
from rails.liquid.sightings import Sighting, Sightings
from rails.liquid.unblind import Content, Output, outputs, unblind

RECENT_BLOCKS: Final = 12
"""Blocks read again on a start and before a cursor; the largest reorganisation of Liquid was one block."""
MAX_REORG: Final = 288
_TXS_AT_ONCE: Final = 50
_ATTEMPTS: Final = 8
_PROGRESS_BLOCKS: Final = 1_000

Snapshot = Callable[[bytes], Observation]
"""What is so now about one of our scripts."""
Worth = Callable[[Content], bool]
"""Whether an output is worth crediting: an asset that is taken, and not next to nothing of it."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest block we have dealt with."""

    height: int
    hash: str


class Follower:
    """Keeps `Sightings` true. `refresh` may be called by any number of tasks at once."""

    def __init__(
        self,
        chain: ChainSource,
        known: KnownChain,
        book: ScriptBook,
        clock: Clock,
        *,
        confirmations: int,
        worth: Worth,
        snapshot: Snapshot,
    ) -> None:
        self._chain = chain
        self._known = known
        self._book = book
        self._clock = clock
        self._confirmations = confirmations
        self._worth = worth
        self._snapshot = snapshot
        self._log = structlog.get_logger()
        self._lock = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self._polls = 0
        self._fault: RailError | None = None
        self._blocks: deque[Tip] = deque(maxlen=MAX_REORG)
        self._mempool: frozenset[str] = frozenset()
        self._subscribers: set[Subscription] = set()
        self._changed: dict[bytes, None] = {}
        """Scripts whose money changed since the last whole poll."""
        self.as_of: datetime | None = None
        """The chain and what waits were so then, or later, as of the newest poll."""
        self._failing = ""
        """Why the newest poll failed; empty if it did not."""
        self._whole_as_of: datetime | None = None
        """The same as of the newest poll that succeeded."""
        self._base = 0
        self._begin_at: int | None = None
        self._pulse: Pulse | None = None
        self.sightings = Sightings()

    # --- reading ---

    @property
    def tip(self) -> Tip:
        """The newest block dealt with. Only after the first `refresh`."""
        return self._blocks[-1]

    @property
    def base(self) -> int:
        """Every block from this height on has been read."""
        return self._base

    def depth(self, sighting: Sighting) -> int:
        """Confirmations: 0 while it waits."""
        return 0 if sighting.height is None else self.tip.height - sighting.height + 1

    def is_final(self, sighting: Sighting) -> bool:
        """Whether it is buried deeply enough to be ours."""
        return self.depth(sighting) >= self._confirmations

    def cursor(self) -> Cursor:
        """Where we are now."""
        waiting = [sighting for sighting in self.sightings.young if not sighting.gone]
        return make(self.tip.height, self.tip.hash, waiting, self._known.genesis)

    @property
    def mempool_whole(self) -> bool:
        """Whether the newest poll saw all that waits."""
        return self._pulse is not None and self._pulse.mempool_whole

    def subscribe(self) -> Subscription:
        """Be told of every script whose money changes from now on, with what is so after a whole poll: what a poll
        has found so far may be half a reorganisation."""
        subscription = Subscription(self._subscribers)
        self._subscribers.add(subscription)
        return subscription

    # --- polling ---

    async def refresh(self) -> None:
        """Come up to date with the chain as it is after this call began.

        Callers that wait together share one poll. Raises what the poll raised.
        """
        before = self._polls
        async with self._lock:
            if self._polls > before:
                if self._fault is not None:
                    raise self._fault
                return
            self._polls += 1
            self._fault = None
            try:
                await self._poll()
            except (RailUnavailable, RailProtocolError) as error:
                self._fault, self._failing = error, str(error)
                raise
            self._whole_as_of, self._failing = self.as_of, ""
            self._publish()

    def _publish(self) -> None:
        changed, self._changed = self._changed, {}
        if self._subscribers:
            for script in changed:
                seen = self._snapshot(script)
                for subscriber in self._subscribers:
                    subscriber.put(script, seen)

    def announce(self, scripts: Iterable[bytes]) -> None:
        """Tell of these after the next poll, too, as if they had changed."""
        self._changed.update(dict.fromkeys(scripts))

    def following(self) -> Following:
        """What the newest poll found."""
        height = self.tip.height if self._blocks else None
        known = 0 if self._pulse is None else self._pulse.height
        return Following(
            height=height,
            behind=max(known - (self._known.height if height is None else height), 0),
            as_of=self._whole_as_of,
            fault=self._failing,
        )

    @property
    def progress(self) -> str:
        """How far the chain was read, for a sentence; empty before the first block."""
        if self._pulse is None or not self._blocks:
            return ""
        return f": it has read block {self.tip.height:,} of {self._pulse.height:,}"

    async def _poll(self) -> None:
        """Read until what was read is one state of the chain: half a reorganisation would look like a loss."""
        missing = None
        for _ in range(_ATTEMPTS):
            pulse = await self._believed_pulse()
            if not self._blocks:
                await self._known.check_genesis(self._chain)
                await self._begin(pulse.height)
            if pulse.tip != self.tip.hash:
                await self._known.check_genesis(self._chain)
                missing = await self._advance(pulse)
            if pulse.tip == self.tip.hash and await self._read_mempool(pulse):
                return
        if missing is not None:
            raise _missing(missing)
        raise RailUnavailable("the chain changes faster than it can be read")

    async def _believed_pulse(self) -> Pulse:
        asked_at = self._clock()
        pulse = await self._chain.pulse()
        self._known.judge(pulse)
        self._pulse, self.as_of = pulse, asked_at
        return pulse

    def begin_from(self, height: int) -> None:
        """Read every block from this height on, if reading has not begun."""
        if not self._blocks:
            self._begin_at = max(height - 1, 0)

    async def _begin(self, tip_height: int) -> None:
        height = max(tip_height - RECENT_BLOCKS, 0)
        if self._begin_at is not None:
            height, self._begin_at = min(height, self._begin_at), None
        block_hash = await self._chain.block_hash(height)
        if block_hash is None:
            raise RailUnavailable("the chain became shorter while we looked at it")
        self._blocks.append(Tip(height, block_hash))
        self._known.expect(height, None)
        self._base = height + 1

    async def _advance(self, pulse: Pulse) -> int | None:
        """Returns the height of a block that was there and could not be had."""
        forked = False
        while await self._chain.block_hash(self.tip.height) != self.tip.hash:
            forked = True
            self._drop_tip()
            if not self._blocks:
                await self._begin(pulse.height)
        if forked:
            self._notice_lost_depth()
        while True:
            block_hash = await self._chain.block_hash(self.tip.height + 1)
            block = None if block_hash is None else await self._chain.block(block_hash)
            if block_hash is not None and block is None:
                return self.tip.height + 1
            if block is None or block.previous != self.tip.hash:
                return None  # At the tip, or in the middle of a reorganisation.
            await self._read_block(block)
            self._blocks.append(Tip(block.height, block.hash))
            self._known.expect(block.height, None)
            self._notice_depth()
            if block.height % _PROGRESS_BLOCKS == 0:
                self._log.info("liquid_blocks_read", height=block.height, of=pulse.height)

    def _drop_tip(self) -> None:
        dropped = self._blocks.pop()
        self._log.warning("liquid_block_disconnected", height=dropped.height, hash=dropped.hash)
        for sighting in self.sightings.everything():
            if sighting.block_hash == dropped.hash:
                sighting.height = sighting.block_hash = None
                self.sightings.rejuvenate(sighting)
                self._notify(sighting.script)
        if not self._blocks:
            self._forget_places(max(dropped.height - MAX_REORG, 0))

    def _forget_places(self, height: int) -> None:
        """The fork is older than the blocks we remember: read everything after `height` anew."""
        self._log.error("liquid_reorganisation_too_deep", reading_from=height)
        self._mempool = frozenset()
        self._begin_at = height
        for sighting in self.sightings.everything():
            if sighting.height is not None and sighting.height > height:
                sighting.height = sighting.block_hash = None
                self.sightings.rejuvenate(sighting)

    def _notice_lost_depth(self) -> None:
        for sighting in self.sightings.everything():
            if sighting.height is not None and not self.is_final(sighting):
                self.sightings.rejuvenate(sighting)
                self._notify(sighting.script)

    def _notice_depth(self) -> None:
        for sighting in self.sightings.young:
            if sighting.height is not None:
                self._notify(sighting.script)
                if self.is_final(sighting):
                    self.sightings.ripen(sighting)

    # --- reading blocks and the mempool ---

    async def _read_block(self, block: Block) -> None:
        new = [txid for txid in block.txids if txid not in self._mempool or self.sightings.knows(txid)]
        unknown = [txid for txid in new if not self.sightings.knows(txid)]
        await self._look_at_all(unknown, block.hash, block.time)
        for txid in new:
            for sighting in self.sightings.of_transaction(txid):
                sighting.height, sighting.block_hash, sighting.gone = block.height, block.hash, False
                self.sightings.rejuvenate(sighting)
                self._notify(sighting.script)

    async def _read_mempool(self, pulse: Pulse) -> bool:
        """False if the chain moved meanwhile."""
        new = pulse.mempool - self._mempool
        unread = await self._look_at([txid for txid in new if not self.sightings.knows(txid)], None, None)
        # What was mined before it could be read has not been looked at: its block is where we find it.
        self._mempool = pulse.mempool - unread
        for txid in new:
            for sighting in self.sightings.of_transaction(txid):
                if sighting.gone:
                    self._set_gone(sighting, gone=False)
        missing = [s for s in self.sightings.young if s.height is None and s.txid not in pulse.mempool]
        return not missing or await self._give_up(missing)

    async def _give_up(self, missing: Sequence[Sighting]) -> bool:
        """Outputs in no block and not waiting are gone, unless the chain moved while we looked, or the source does
        not know yet what waits."""
        pulse = await self._believed_pulse()
        if pulse.tip != self.tip.hash:
            return False  # They may be in blocks not read yet.
        if not pulse.mempool_whole:
            return True
        for sighting in missing:
            if sighting.txid not in pulse.mempool:
                self._log.warning("liquid_payment_vanished", txid=sighting.txid, vout=sighting.vout)
                self._set_gone(sighting, gone=True)
        return True

    def _set_gone(self, sighting: Sighting, *, gone: bool) -> None:
        sighting.gone = gone
        if gone:
            self.sightings.ripen(sighting)
        else:
            self.sightings.rejuvenate(sighting)
        self._notify(sighting.script)

    async def _look_at(
        self, txids: Sequence[str], block_hash: str | None, block_time: datetime | None
    ) -> set[str]:
        """Returns what could not be read."""
        unread = set(txids)
        for start in range(0, len(txids), _TXS_AT_ONCE):
            part = txids[start : start + _TXS_AT_ONCE]
            for txid, raw in (await self._chain.transactions(part, block_hash)).items():
                hits = self._hits(txid, raw)
                if hits is None:
                    continue
                unread.discard(txid)
                if hits:
                    await self._keep(txid, hits, block_time)
        return unread

    async def _look_at_all(self, txids: Sequence[str], block_hash: str, block_time: datetime) -> None:
        """A block counts as read only if all of it was: nobody comes back to it."""
        if await self._look_at(txids, block_hash, block_time):
            raise RailUnavailable("not every transaction of a block can be read")

    def _hits(self, txid: str, raw: bytes) -> list[Output] | None:
        """Outputs that are ours; None if these bytes are another transaction's, which is asked for again."""
        try:
            if not is_transaction(raw, txid):
                self._log.error("liquid_transaction_of_another_id", txid=txid)
                return None
            return [output for output in outputs(raw) if output.script in self._book]
        except ValueError:
            self._log.error("liquid_transaction_unreadable", txid=txid)
            return []

    async def _keep(self, txid: str, hits: Sequence[Output], block_time: datetime | None) -> None:
        seen_at = block_time or await self._chain.seen_at(txid) or self._clock()
        for output in hits:
            key = self._book.blinding_key(output.script)
            content = await asyncio.to_thread(unblind, output, key)
            if content is None:
                self._log.warning("liquid_output_not_unblindable", txid=txid, vout=output.vout)
            sighting = Sighting(
                txid=txid,
                vout=output.vout,
                script=output.script,
                content=content,
                first_seen_at=seen_at,
                other=content is None or not self._worth(content),
            )
            if self.sightings.add(sighting):
                self._notify(sighting.script)
            elif sighting.other and self.sightings.is_full(output.script):
                self._log.warning(
                    "liquid_too_many_other_outputs", txid=txid, vout=output.vout, script=output.script.hex()
                )

    # --- what was before ---

    @property
    def scans_all(self) -> bool:
        """Whether `find_unspent` costs the same for one script and for thousands."""
        return self._chain.scans_all

    async def find_unspent(self, scripts: Sequence[bytes]) -> None:
        """Read every unspent output of these scripts, however old; each block once."""
        by_height: dict[int, list[Unspent]] = {}
        async with self._scanning:  # a node scans for one caller at a time
            found = await self._chain.unspent(scripts)
        for unspent in found:
            if not self.sightings.knows(unspent.txid):
                by_height.setdefault(unspent.height, []).append(unspent)
        for height, group in sorted(by_height.items(), reverse=True):
            block_hash = await self._chain.block_hash(height)
            if block_hash is None:
                continue
            txids = list(dict.fromkeys(unspent.txid for unspent in group))
            try:
                await self._read_old(height, block_hash, txids)
            except RailUnavailable:
                if await self._chain.block(block_hash) is not None:
                    raise
                self._keep_unreadable(group, height, block_hash)

    def _keep_unreadable(self, group: Sequence[Unspent], height: int, block_hash: str) -> None:
        """Outputs of ours in a block that the node does not keep: somebody has to look what they hold."""
        for unspent in group:
            sighting = Sighting(
                txid=unspent.txid,
                vout=unspent.vout,
                script=unspent.script,
                content=None,
                first_seen_at=self._clock(),
                other=True,
                height=height,
                block_hash=block_hash,
            )
            self._log.error(
                "liquid_output_in_a_block_that_is_missing",
                txid=unspent.txid,
                vout=unspent.vout,
                height=height,
            )
            if self.sightings.add(sighting):
                self._notify(sighting.script)
                if self.is_final(sighting):
                    self.sightings.ripen(sighting)

    def look_again(self) -> None:
        """Look at the whole mempool anew with the next poll: a script was added."""
        self._mempool = frozenset()

    async def read_back(self, height: int) -> None:
        """Read the blocks from `height` on that were before our beginning."""
        for past in range(max(height, 1), self._base):
            block_hash = await self._chain.block_hash(past)
            if block_hash is not None:
                await self._read_old(past, block_hash, None)
        self._base = min(self._base, max(height, 1))

    async def _read_old(self, height: int, block_hash: str, txids: Sequence[str] | None) -> None:
        async with self._lock:
            block = await self._chain.block(block_hash)
            if await self._chain.block_hash(height) != block_hash:
                return
            if block is None:
                raise _missing(height)
            wanted = [txid for txid in txids or block.txids if not self.sightings.knows(txid)]
            try:
                await self._look_at_all(wanted, block_hash, block.time)
            finally:  # What was read has its place, also if the rest was not: it is not looked at again.
                for txid in wanted:
                    for sighting in self.sightings.of_transaction(txid):
                        sighting.height, sighting.block_hash = block.height, block_hash
                        if self._blocks and self.is_final(sighting):
                            self.sightings.ripen(sighting)

    async def resume(self, cursor: Cursor) -> bool:
        """Learn what became of the money that was known at a cursor. False if its chain is not this one."""
        for carried in cursor.carried:
            was = carried.sighting()
            for known in self.sightings.of_transaction(was.txid):
                known.first_seen_at = min(known.first_seen_at, was.first_seen_at)
            if was.script in self._book and self.sightings.add(was):
                self._notify(was.script)
        block_hash: str = cursor.block_hash
        found_all = True
        for _ in range(MAX_REORG):
            block = await self._chain.block(block_hash)
            if block is None:
                found_all = False
                break
            if await self._chain.block_hash(block.height) == block_hash:
                break
            await self._look_at(self._unknown(block.txids), block_hash, block.time)  # a stale block
            block_hash = block.previous
        await self.refresh()
        return found_all

    def _unknown(self, txids: Iterable[str]) -> list[str]:
        return [txid for txid in txids if not self.sightings.knows(txid)]

    def _notify(self, script: bytes) -> None:
        self._changed[script] = None


def _missing(height: int) -> RailUnavailable:
    return RailUnavailable(f"block {height:,} cannot be read: the node may have pruned it")
