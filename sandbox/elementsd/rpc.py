"""elementsd's JSON-RPC methods that a chain follower needs, and those by which a test checks it.

Results and error codes follow Elements 23 and later. Left out: everything of elementsd's own
wallet (there is none, as with `-disablewallet`), mining calls, fees and peers. Blocks carry a
header from before dynamic federations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sandbox.elementsd.addresses import parse_destination
from sandbox.elementsd.arguments import (
    RPC_INVALID_ADDRESS_OR_KEY,
    RPC_INVALID_PARAMETER,
    RPC_METHOD_NOT_FOUND,
    RPC_MISC_ERROR,
    RPC_TYPE_ERROR,
    RpcError,
    hash_argument,
    held_json,
    scan_argument,
    transaction_argument,
)
from sandbox.elementsd.blocks import Header, serialise_block
from sandbox.elementsd.node import MIN_RELAY_SATOSHI_PER_KVB, MempoolEntry, Node
from sandbox.elementsd.params import CHAIN
from sandbox.elementsd.render import amount, script_json, transaction_json
from sandbox.elementsd.transactions import BadTransaction, OutPoint, parse

_NO_TX = (
    "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain"
    " transaction queries. Use gettransaction for wallet transactions."
)
_NOT_IN_BLOCK = "No such transaction found in the provided block. Use gettransaction for wallet transactions."
_GENESIS = "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved"


class Rpc:
    """The methods, on one node. Not thread-safe: call from one thread."""

    def __init__(self, node: Node, now: Callable[[], int]) -> None:
        self._node = node
        self._store = node.store
        self._now = now
        self._methods: dict[str, Callable[..., Any]] = {
            name: getattr(self, name)
            for name in dir(type(self))
            if not name.startswith("_") and name != "call"
        }

    def call(self, method: str, params: Sequence[Any] | dict[str, Any]) -> Any:
        """Run one method. Raises `RpcError`."""
        handler = self._methods.get(method)
        if handler is None:
            raise RpcError(RPC_METHOD_NOT_FOUND, "Method not found")
        try:
            return handler(**params) if isinstance(params, dict) else handler(*params)
        except TypeError as error:
            # elementsd answers a wrong number of arguments with the help text and code -1.
            raise RpcError(RPC_MISC_ERROR, f"{method}: {error}") from error

    # --- the chain ---

    def getblockchaininfo(self) -> dict[str, Any]:
        """The state of the chain."""
        tip, height = self._node.tip
        header = self._header(tip)[0]
        return {
            "chain": CHAIN,
            "blocks": height,
            "headers": height,
            "bestblockhash": tip,
            "time": header.time,
            "mediantime": self._node.median_time(height),
            "verificationprogress": 1,
            "initialblockdownload": self._node.syncing,
            "size_on_disk": 0,
            "pruned": self._node.pruned_below > 0,
            **({"pruneheight": self._node.pruned_below} if self._node.pruned_below else {}),
            "current_params_root": "00" * 32,
            "current_signblock_asm": "1",
            "current_signblock_hex": "51",
            "max_block_witness": 74,
            "epoch_length": 10,
            "total_valid_epochs": 2,
            "epoch_age": height % 10,
            "extension_space": [],
            "warnings": "",
        }

    def getblockcount(self) -> int:
        """The height of the best block."""
        return self._node.tip[1]

    def getbestblockhash(self) -> str:
        """The hash of the best block."""
        return self._node.tip[0]

    def getblockhash(self, height: Any) -> str:
        """The hash of the active block at a height."""
        if not isinstance(height, int) or isinstance(height, bool):
            raise RpcError(RPC_TYPE_ERROR, "JSON value of type string is not of expected type number")
        found = self._store.hash_at(height)
        if found is None:
            raise RpcError(RPC_INVALID_PARAMETER, "Block height out of range")
        return found

    def getblockheader(self, blockhash: Any, verbose: bool = True) -> Any:
        """A header, of a stale block too (with -1 confirmations)."""
        header, active = self._header(hash_argument("hash", blockhash))
        return self._header_json(header, active=active) if verbose else header.raw.hex()

    def getblock(self, blockhash: Any, verbosity: Any = 1) -> Any:
        """A block: serialised (0), with transaction ids (1), or with transactions (2)."""
        header, active = self._header(hash_argument("blockhash", blockhash))
        if header.height < self._node.pruned_below:
            raise RpcError(RPC_MISC_ERROR, "Block not available (pruned data)")
        txids = self._store.block_txids(header.hash)
        raws = [self._raw(txid) for txid in txids]
        block = serialise_block(header, raws)
        if verbosity in (0, False):
            return block.hex()
        transactions = [parse(raw) for raw in raws]
        weight = len(block) + 3 * (len(header.raw) + 1) + sum(tx.weight - len(tx.raw) for tx in transactions)
        return {
            **self._header_json(header, active=active),
            "strippedsize": (weight - len(block)) // 3,
            "size": len(block),
            "weight": weight,
            "tx": txids if verbosity in (1, True) else [transaction_json(tx) for tx in transactions],
        }

    def _header(self, block_hash: str, unknown: str = "Block not found") -> tuple[Header, bool]:
        found = self._store.header(block_hash)
        if found is None:
            raise RpcError(RPC_INVALID_ADDRESS_OR_KEY, unknown)
        return found

    def _header_json(self, header: Header, *, active: bool) -> dict[str, Any]:
        following = self._store.hash_at(header.height + 1) if active else None
        return {
            "hash": header.hash,
            "confirmations": self._node.tip[1] - header.height + 1 if active else -1,
            "height": header.height,
            "version": 0x20000000,
            "versionHex": "20000000",
            "merkleroot": header.merkle_root,
            "time": header.time,
            "mediantime": self._node.median_time(header.height),
            "nTx": len(self._store.block_txids(header.hash)),
            "signblock_witness_asm": "",
            "signblock_witness_hex": "",
            "signblock_challenge": "51",
            **({"previousblockhash": header.previous} if header.height else {}),
            **({"nextblockhash": following} if following else {}),
        }

    # --- transactions ---

    def getrawtransaction(self, txid: Any, verbose: Any = False, blockhash: Any = None) -> Any:
        """A transaction of the mempool, or one of the named block: there is no transaction index."""
        txid = hash_argument("parameter 1", txid)
        if txid in self._store.block_txids(self.getblockhash(0)):
            raise RpcError(RPC_INVALID_ADDRESS_OR_KEY, _GENESIS)
        if blockhash is None:
            entry = self._waiting.get(txid)
            if entry is None:
                raise RpcError(RPC_INVALID_ADDRESS_OR_KEY, _NO_TX)
            return transaction_json(entry.tx) if verbose else entry.tx.raw.hex()
        header, active = self._header(hash_argument("parameter 3", blockhash), "Block hash not found")
        if header.height < self._node.pruned_below:
            raise RpcError(RPC_MISC_ERROR, "Block not available")
        if txid not in self._store.block_txids(header.hash):
            raise RpcError(RPC_INVALID_ADDRESS_OR_KEY, _NOT_IN_BLOCK)
        raw = self._raw(txid)
        if not verbose:
            return raw.hex()
        times = {"time": header.time, "blocktime": header.time} if active else {}
        return {
            "in_active_chain": active,
            "blockhash": header.hash,
            **transaction_json(parse(raw)),
            "confirmations": self._node.tip[1] - header.height + 1 if active else 0,
            **times,
        }

    def decoderawtransaction(self, hexstring: Any, iswitness: Any = None) -> Any:
        """What a serialised transaction holds."""
        return transaction_json(transaction_argument(hexstring), with_hex=False)

    def sendrawtransaction(self, hexstring: Any, maxfeerate: Any = None, *_: Any) -> str:
        """Offer a transaction to the chain."""
        tx = transaction_argument(hexstring)
        try:
            return self._node.accept(tx.raw).txid
        except BadTransaction as error:
            raise RpcError(error.code, error.reason) from error

    def testmempoolaccept(self, rawtxs: Any, maxfeerate: Any = None) -> list[dict[str, Any]]:
        """Whether transactions would be accepted, one by one."""
        if not isinstance(rawtxs, list) or not 1 <= len(rawtxs) <= 25:
            raise RpcError(RPC_INVALID_PARAMETER, "Array must contain between 1 and 25 transactions.")
        answers = []
        for text in rawtxs:
            tx = transaction_argument(text)
            answer: dict[str, Any] = {"txid": tx.txid, "wtxid": tx.wtxid}
            try:
                self._node.accept(tx.raw, dry_run=True)
                answer |= {"allowed": True, "vsize": tx.vsize, "fees": {"base": amount(tx.fee_satoshi)}}
            except BadTransaction as error:
                missing = "missing-inputs" if error.code == -25 else error.reason
                answer |= {"allowed": False, "reject-reason": missing}
            answers.append(answer)
        return answers

    def gettxout(self, txid: Any, n: Any, include_mempool: bool = True) -> Any:
        """An unspent output, or null."""
        outpoint = OutPoint(hash_argument("txid", txid), int(n))
        coin = self._store.coin(outpoint)
        confirmed = None if coin is None else coin.output
        output = self._node.output(outpoint) if include_mempool else confirmed
        if output is None:
            return None
        tip, height = self._node.tip
        return {
            "bestblock": tip,
            "confirmations": 0 if coin is None else height - coin.height + 1,
            **held_json(output),
            "scriptPubKey": script_json(output.script),
            "coinbase": coin is not None and coin.coinbase,
        }

    def scantxoutset(self, action: Any, scanobjects: Any = None) -> Any:
        """Look for unspent outputs by `raw(<script>)` and `addr(<address>)`; at once, so never under way."""
        if action in ("abort", "status"):
            return False if action == "abort" else None
        if action != "start":
            raise RpcError(RPC_INVALID_PARAMETER, f"Invalid action '{action}'")
        if not isinstance(scanobjects, list):
            raise RpcError(RPC_MISC_ERROR, "scanobjects argument is required for the start action")
        tip, height = self._node.tip
        unspents: list[dict[str, Any]] = []
        for item in scanobjects:
            descriptor, script = scan_argument(item)
            for coin in self._store.coins_of(script):
                unspents.append(
                    {
                        "txid": coin.outpoint.txid,
                        "vout": coin.outpoint.vout,
                        "scriptPubKey": script.hex(),
                        "desc": descriptor,
                        **held_json(coin.output, total="amount"),
                        "coinbase": coin.coinbase,
                        "height": coin.height,
                        "blockhash": self._store.hash_at(coin.height),
                        "confirmations": height - coin.height + 1,
                    }
                )
        return {
            "success": True,
            "txouts": self._store.count_coins(),
            "height": height,
            "bestblock": tip,
            "unspents": unspents,
            "total_unblinded_bitcoin_amount": amount(0),
        }

    # --- the mempool ---

    @property
    def _waiting(self) -> Mapping[str, MempoolEntry]:
        return {} if self._node.mempool_loading else self._node.mempool

    def getmempoolinfo(self) -> dict[str, Any]:
        """The mempool as a whole."""
        waiting = self._waiting.values()
        return {
            "loaded": not self._node.mempool_loading,
            "size": len(waiting),
            "bytes": sum(entry.tx.vsize for entry in waiting),
            "usage": sum(len(entry.tx.raw) for entry in waiting),
            "total_fee": amount(sum(entry.tx.fee_satoshi for entry in waiting)),
            "maxmempool": 300_000_000,
            "mempoolminfee": amount(MIN_RELAY_SATOSHI_PER_KVB),
            "minrelaytxfee": amount(MIN_RELAY_SATOSHI_PER_KVB),
            "incrementalrelayfee": amount(MIN_RELAY_SATOSHI_PER_KVB),
            "unbroadcastcount": 0,
            "fullrbf": True,
        }

    def getrawmempool(self, verbose: bool = False, mempool_sequence: bool = False) -> Any:
        """The transactions of the mempool."""
        if verbose:
            if mempool_sequence:
                text = "Verbose results cannot contain mempool sequence values."
                raise RpcError(RPC_INVALID_PARAMETER, text)
            return {txid: self._entry(entry) for txid, entry in self._waiting.items()}
        txids = list(self._waiting)
        return (
            {"txids": txids, "mempool_sequence": self._node.mempool_sequence} if mempool_sequence else txids
        )

    def getmempoolentry(self, txid: Any) -> dict[str, Any]:
        """One transaction of the mempool."""
        entry = self._waiting.get(hash_argument("txid", txid))
        if entry is None:
            raise RpcError(RPC_INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
        return self._entry(entry)

    def _entry(self, entry: MempoolEntry) -> dict[str, Any]:
        tx = entry.tx
        depends = sorted({i.outpoint.txid for i in tx.inputs} & set(self._node.mempool))
        fee = amount(tx.fee_satoshi)
        return {
            "vsize": tx.vsize,
            "discountvsize": tx.discount_vsize,
            "weight": tx.weight,
            "time": entry.time,
            "height": entry.height,
            "wtxid": tx.wtxid,
            "fees": {"base": fee, "modified": fee, "ancestor": fee, "descendant": fee},
            "depends": depends,
            "bip125-replaceable": tx.replaceable,
            "unbroadcast": False,
        }

    # --- the rest ---

    def validateaddress(self, address: Any) -> dict[str, Any]:
        """Whether an address is one of this chain, and what it holds."""
        destination = parse_destination(str(address))
        if destination is None:
            return {
                "isvalid": False,
                "error_locations": [],
                "error": "Invalid or unsupported Segwit (Bech32) or Base58 encoding.",
            }
        version, program = destination.script[0], destination.script[2:]
        shown = {
            "isvalid": True,
            "address": str(address),
            "scriptPubKey": destination.script.hex(),
            "isscript": len(program) == 32 and version == 0,
            "iswitness": True,
            "witness_version": version - 0x50 if version else 0,
            "witness_program": program.hex(),
        }
        key = destination.blinding_public_key
        plain = {"confidential_key": key.hex() if key else "", "unconfidential": destination.unconfidential}
        return {**shown, **plain, "parent_address_info": {"isvalid": False}}

    def uptime(self) -> int:
        """Seconds since the start."""
        return self._now() - self._node.started_at

    def _raw(self, txid: str) -> bytes:
        raw = self._store.raw(txid)
        assert raw is not None
        return raw
