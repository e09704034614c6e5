"""The chain itself: mempool, blocks, reorganisations. One thread at a time, no network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sandbox.elementsd.blocks import Header, coinbase, genesis, merkle_root
from sandbox.elementsd.confidential import Randomness
from sandbox.elementsd.store import Coin, Store
from sandbox.elementsd.transactions import (
    BadTransaction,
    OutPoint,
    Output,
    Tx,
    check_amounts,
    check_signatures,
    parse,
)

MIN_RELAY_SATOSHI_PER_KVB = 100
MAX_MEMPOOL = 10_000
MAX_BLOCKS_PER_CALL = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolEntry:
    """A transaction in the mempool."""

    tx: Tx
    time: int
    height: int


class Node:
    """A regtest node. `now` gives seconds since 1970."""

    def __init__(self, store: Store, now: Callable[[], int], random: Randomness) -> None:
        self.store = store
        self._now = now
        self._random = random
        self.mempool: dict[str, MempoolEntry] = {}
        self._spent_by: dict[OutPoint, str] = {}
        self.mempool_sequence = 1
        self.started_at = now()
        self.syncing = False
        """Says that it is behind the network."""
        self.mempool_loading = False
        """Has not read yet what waited before a restart: it shows no waiting transaction."""
        self.pruned_below = 0
        """Has thrown away the data of all blocks below this height."""
        self._taken_off: list[str] = []
        if store.tip() is None:
            self._start_chain()
        for raw, time, height in store.mempool():
            self._remember(MempoolEntry(tx=parse(raw), time=time, height=height))

    def _start_chain(self) -> None:
        header, tx = genesis()
        with self.store.transaction():
            self._connect(header, [tx])

    # --- reading ---

    @property
    def tip(self) -> tuple[str, int]:
        """Hash and height of the best block."""
        tip = self.store.tip()
        assert tip is not None
        return tip

    def median_time(self, height: int) -> int:
        """The median time of the last 11 blocks."""
        times = sorted(self.store.times_before(height))
        return times[len(times) >> 1]

    def output(self, outpoint: OutPoint) -> Output | None:
        """An output that may be spent now: unspent in the chain or made in the mempool."""
        if outpoint in self._spent_by:
            return None
        return self._output(outpoint)

    def _output(self, outpoint: OutPoint) -> Output | None:
        coin = self.store.coin(outpoint)
        if coin is not None:
            return coin.output
        entry = self.mempool.get(outpoint.txid)
        if entry is None or outpoint.vout >= len(entry.tx.outputs):
            return None
        return entry.tx.outputs[outpoint.vout]

    # --- the mempool ---

    def accept(self, raw: bytes, *, dry_run: bool = False) -> Tx:
        """Check a transaction as a node does and keep it. Raises `BadTransaction`."""
        tx = parse(raw)
        if tx.coinbase:
            raise BadTransaction("coinbase")
        if tx.txid in self.mempool:
            if dry_run:
                raise BadTransaction("txn-already-in-mempool")
            return tx
        if any(self.store.coin(OutPoint(tx.txid, n)) for n in range(len(tx.outputs))):
            raise BadTransaction("Transaction outputs already in utxo set", -27)
        if len(self.mempool) >= MAX_MEMPOOL:
            raise BadTransaction("mempool full")
        replaced = self._conflicts(tx)
        spent = self._spent_outputs(tx, replaced)
        if tx.fee_satoshi * 1000 < MIN_RELAY_SATOSHI_PER_KVB * tx.discount_vsize:
            raise BadTransaction("min relay fee not met")
        check_amounts(tx, spent)
        check_signatures(tx, spent)
        if not dry_run:
            self._keep(tx, replaced)
        return tx

    def _conflicts(self, tx: Tx) -> list[str]:
        """Transactions of the mempool that this one replaces. Raises `BadTransaction` if it may not."""
        direct = {self._spent_by[i.outpoint] for i in tx.inputs if i.outpoint in self._spent_by}
        if not direct:
            return []
        if not all(self.mempool[txid].tx.replaceable for txid in direct):
            raise BadTransaction("txn-mempool-conflict")
        replaced = self._with_descendants(direct)
        if tx.fee_satoshi <= sum(self.mempool[txid].tx.fee_satoshi for txid in replaced):
            raise BadTransaction("insufficient fee")
        return replaced

    def _with_descendants(self, roots: Collection[str]) -> list[str]:
        found = list(roots)
        for txid in found:
            children = {
                self._spent_by.get(OutPoint(txid, n)) for n in range(len(self.mempool[txid].tx.outputs))
            }
            found += [child for child in sorted(filter(None, children)) if child not in found]
        return found

    def _spent_outputs(self, tx: Tx, replaced: Collection[str]) -> list[Output]:
        spent: list[Output] = []
        outpoints = [item.outpoint for item in tx.inputs]
        if len(set(outpoints)) != len(outpoints):
            raise BadTransaction("bad-txns-inputs-duplicate")
        for outpoint in outpoints:
            output = None if outpoint.txid in replaced else self._output(outpoint)
            if output is None:
                raise BadTransaction("bad-txns-inputs-missingorspent", -25)
            spent.append(output)
        return spent

    def _keep(self, tx: Tx, replaced: Sequence[str]) -> None:
        with self.store.transaction():
            for txid in replaced:
                self._evict(txid)
            entry = MempoolEntry(tx=tx, time=self._now(), height=self.tip[1])
            self._remember(entry)
            self.store.add_to_mempool(tx.txid, tx.raw, entry.time, entry.height, self.mempool_sequence)

    def _remember(self, entry: MempoolEntry) -> None:
        self.mempool[entry.tx.txid] = entry
        self._spent_by.update((item.outpoint, entry.tx.txid) for item in entry.tx.inputs)
        self.mempool_sequence += 1

    def _evict(self, txid: str) -> None:
        entry = self.mempool.pop(txid)
        for item in entry.tx.inputs:
            self._spent_by.pop(item.outpoint, None)
        self.store.remove_from_mempool(txid)
        self.mempool_sequence += 1

    # --- blocks ---

    def mine(self, blocks: int = 1, *, empty: bool = False) -> list[str]:
        """Mine; the first block takes the whole mempool unless `empty`. Returns the hashes."""
        hashes = []
        for _ in range(min(blocks, MAX_BLOCKS_PER_CALL)):
            with self.store.transaction():
                hashes.append(self._mine_one([] if empty else [w.tx for w in self.mempool.values()]))
        return hashes

    def _mine_one(self, transactions: Sequence[Tx]) -> str:
        self._taken_off.clear()  # whose place this block takes
        previous, height = self.tip
        fees = sum(tx.fee_satoshi for tx in transactions)
        first = coinbase(height + 1, fees, transactions, self._random(8))
        block = [first, *transactions]
        header = Header(
            previous=previous,
            merkle_root=merkle_root([tx.txid for tx in block]),
            time=max(self._now(), self.median_time(height) + 1),
            height=height + 1,
        )
        for tx in transactions:
            self._evict(tx.txid)
        self._connect(header, block)
        return header.hash

    def _connect(self, header: Header, block: Sequence[Tx]) -> None:
        self.store.add_block(header, [(tx.txid, tx.raw) for tx in block])
        self._apply(header, block)

    def _apply(self, header: Header, block: Sequence[Tx]) -> None:
        for tx in block:
            for item in () if tx.coinbase else tx.inputs:
                self.store.remove_coin(item.outpoint)
            self._add_coins(tx, header.height)

    def _add_coins(self, tx: Tx, height: int) -> None:
        for n, output in enumerate(tx.outputs):
            if output.script and not output.script.startswith(b"\x6a"):
                coin = Coin(outpoint=OutPoint(tx.txid, n), height=height, coinbase=tx.coinbase, output=output)
                self.store.add_coin(coin)

    def disconnect(self, depth: int) -> list[str]:
        """Take the newest blocks off; their transactions return to the mempool. Returns those transactions' ids."""
        depth = min(depth, self.tip[1])
        entries = list(self.mempool.values())
        returned: list[Tx] = []
        with self.store.transaction():
            for txid in list(self.mempool):
                self._evict(txid)
            for _ in range(depth):
                returned = self._disconnect_tip() + returned
            for tx in [*returned, *(entry.tx for entry in entries)]:
                try:
                    self.accept(tx.raw)
                except BadTransaction:
                    continue  # Its parent was a coinbase of a block that is gone.
        return [tx.txid for tx in returned if tx.txid in self.mempool]

    def _disconnect_tip(self) -> list[Tx]:
        block_hash = self.tip[0]
        block = [parse(self._raw(txid)) for txid in self.store.block_txids(block_hash)]
        self.store.deactivate_block(block_hash)
        for tx in reversed(block):
            for n in range(len(tx.outputs)):
                self.store.remove_coin(OutPoint(tx.txid, n))
            for item in () if tx.coinbase else tx.inputs:
                self._restore_coin(item.outpoint)
        return [tx for tx in block if not tx.coinbase]

    def rewind(self, depth: int) -> None:
        """Know so many blocks less, and nothing of what waits: a node restored from an older copy of its data."""
        with self.store.transaction():
            for txid in list(self.mempool):
                self._evict(txid)
            for _ in range(min(depth, self.tip[1])):
                self._taken_off.append(self.tip[0])
                self._disconnect_tip()

    def catch_up(self) -> None:
        """Learn the blocks again that `rewind` took off."""
        with self.store.transaction():
            while self._taken_off:
                block_hash = self._taken_off.pop()
                found = self.store.header(block_hash)
                assert found is not None
                self.store.reactivate_block(block_hash)
                block = [parse(self._raw(txid)) for txid in self.store.block_txids(block_hash)]
                self._apply(found[0], block)

    def _restore_coin(self, outpoint: OutPoint) -> None:
        block_hash = self.store.active_block_of(outpoint.txid)
        if block_hash is None:
            return  # Made in the block being disconnected: it goes as well.
        stored = self.store.header(block_hash)
        assert stored is not None
        tx = parse(self._raw(outpoint.txid))
        coin = Coin(
            outpoint=outpoint,
            height=stored[0].height,
            coinbase=tx.coinbase,
            output=tx.outputs[outpoint.vout],
        )
        self.store.add_coin(coin)

    def _raw(self, txid: str) -> bytes:
        raw = self.store.raw(txid)
        assert raw is not None
        return raw
