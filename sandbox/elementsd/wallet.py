"""The wallet of the sandbox: it owns L-BTC, a USDT-like asset and a junk asset, and pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import wallycore as wally

from sandbox.elementsd.addresses import Destination, parse_destination
from sandbox.elementsd.blocks import genesis
from sandbox.elementsd.confidential import Built, Randomness, Secret, Spend, Target, build
from sandbox.elementsd.node import Node
from sandbox.elementsd.params import (
    ANYONE_CAN_SPEND,
    FREE_COINS_SATOSHI,
    JUNK_CONTRACT,
    JUNK_ISSUED,
    LBTC_ASSET,
    USDT_CONTRACT,
    USDT_ISSUED,
    asset_bytes,
    asset_id,
    issued_asset,
)
from sandbox.elementsd.store import OwnSecret
from sandbox.elementsd.transactions import OutPoint

_SPLIT = 8
"""Each asset starts in this many outputs, so that payments need not wait for each other's change."""
_FEE_PER_PART_SATOSHI = 30


class CannotPay(Exception):
    """The wallet cannot make this payment."""


def usdt_asset() -> str:
    """The id of the sandbox's USDT: the same on every machine, since its issuance is."""
    _, tx = genesis()
    return asset_id(issued_asset(bytes.fromhex(tx.txid)[::-1], 0, USDT_CONTRACT))


class Wallet:
    """Pays from its own outputs. Its keys come from one seed kept in the node's store."""

    def __init__(self, node: Node, random: Randomness) -> None:
        self._node = node
        self._random = random
        store = node.store
        with store.transaction():
            self._seed = store.meta("purse_seed") or random(32)
            store.set_meta("purse_seed", self._seed)
        self._master = wally.bip32_key_from_seed(self._seed, wally.BIP32_VER_TEST_PRIVATE, 0)
        self.usdt = asset_bytes(usdt_asset())
        junk = store.meta("junk_asset")
        self.junk = junk if junk is not None else self._found()

    def _found(self) -> bytes:
        """Issue the assets and split everything into a few outputs: the chain's first payments."""
        _, first = genesis()
        lbtc = asset_bytes(LBTC_ASSET)
        free = Spend(
            txid=first.txid,
            vout=0,
            script=ANYONE_CAN_SPEND,
            value_bytes=first.outputs[0].value,
            secret=Secret(asset=lbtc, value=FREE_COINS_SATOSHI),
            private_key=None,
            issue=(USDT_CONTRACT, USDT_ISSUED),
            issued_asset=self.usdt,
        )
        with self._node.store.transaction():
            fee = 100_000
            coins = self._split(lbtc, FREE_COINS_SATOSHI - fee) + self._split(self.usdt, USDT_ISSUED)
            self._send([free], coins, fee)
            self._node.mine()
            junk = self._issue_junk()
            self._node.store.set_meta("junk_asset", junk)
            self._node.mine()
        return junk

    def _issue_junk(self) -> bytes:
        lbtc = asset_bytes(LBTC_ASSET)
        source = self._own(lbtc)[0]
        junk = issued_asset(bytes.fromhex(source.txid)[::-1], source.vout, JUNK_CONTRACT)
        spend = replace(source, issue=(JUNK_CONTRACT, JUNK_ISSUED), issued_asset=junk)
        fee = 1_000
        change = self._own_target(lbtc, source.secret.value - fee)
        self._send([spend], [change, *self._split(junk, JUNK_ISSUED)], fee)
        return junk

    def _split(self, asset: bytes, amount: int) -> list[Target]:
        part, rest = divmod(amount, _SPLIT)
        return [self._own_target(asset, part + (rest if n == 0 else 0)) for n in range(_SPLIT)]

    # --- paying ---

    def balances(self) -> dict[str, int]:
        """What the wallet can spend now, by asset id, in minor units."""
        totals: dict[str, int] = {}
        for own in self._node.store.secrets():
            if self._node.output(own.outpoint) is not None:
                name = asset_id(own.secret.asset)
                totals[name] = totals.get(name, 0) + own.secret.value
        return totals

    def pay(self, address: str, amount: int, asset: str, *, junk: bool = False, final: bool = False) -> str:
        """Pay `amount` minor units; returns the txid. Raises `CannotPay`.

        `junk` pays in the junk asset with a range proof that claims `asset`. `final` signals
        that the payment will not be replaced.
        """
        destination = parse_destination(address)
        if destination is None:
            raise CannotPay("this is not an address of this chain")
        if amount <= 0:
            raise CannotPay("the amount must be positive")
        if junk and destination.blinding_public_key is None:
            raise CannotPay("only a confidential output has a range proof to forge")
        sequence = 0xFFFFFFFE if final else 0xFFFFFFFD
        with self._node.store.transaction():
            return self._pay(destination, amount, asset_bytes(asset), junk=junk, sequence=sequence)

    def _pay(self, to: Destination, amount: int, asset: bytes, *, junk: bool, sequence: int) -> str:
        lbtc, real = asset_bytes(LBTC_ASSET), self.junk if junk else asset
        target = Target(
            script=to.script,
            asset=real,
            value=amount,
            blinding_public_key=to.blinding_public_key,
            claimed_asset=asset if junk else None,
        )
        if real == lbtc:
            coins = self._select(lbtc, amount + 10_000)
            fee = _FEE_PER_PART_SATOSHI * (len(coins) + 2)
            targets = [target, self._own_target(lbtc, _sum(coins) - amount - fee)]
        else:
            coins = self._select(real, amount)
            fees = self._select(lbtc, 10_000)
            fee = _FEE_PER_PART_SATOSHI * (len(coins) + 4)
            targets = [target, self._own_target(lbtc, _sum(fees) - fee)]
            if _sum(coins) > amount:
                targets.append(self._own_target(real, _sum(coins) - amount))
            coins += fees
        return self._send([replace(coin, sequence=sequence) for coin in coins], targets, fee).txid

    def replace(self, txid: str) -> str:
        """Pay the inputs of a payment of ours in the mempool back to ourselves, for a higher fee."""
        entry = self._node.mempool.get(txid)
        if entry is None:
            raise CannotPay("no such transaction in the mempool")
        spends: list[Spend] = []
        for item in entry.tx.inputs:
            own = self._node.store.secret(item.outpoint)
            if own is None:
                raise CannotPay("the wallet can replace its own payments only")
            spends.append(self._spend(own))
        lbtc = asset_bytes(LBTC_ASSET)
        totals: dict[bytes, int] = {}
        for spend in spends:
            totals[spend.secret.asset] = totals.get(spend.secret.asset, 0) + spend.secret.value
        fee = entry.tx.fee_satoshi * 3 + 1_000
        totals[lbtc] -= fee
        with self._node.store.transaction():
            targets = [self._own_target(asset, value) for asset, value in totals.items()]
            return self._send(spends, targets, fee).txid

    def _send(self, spends: Sequence[Spend], targets: Sequence[Target], fee: int) -> Built:
        built = build(spends, targets, fee, self._random)
        for n, (target, secret) in enumerate(zip(targets, built.secrets, strict=False)):
            if target.script == _script(self._key(0)):
                own = OwnSecret(outpoint=OutPoint(built.txid, n), secret=secret, key_index=0)
                self._node.store.add_secret(own)
        self._node.accept(built.raw)
        return built

    # --- its own outputs ---

    def _select(self, asset: bytes, at_least: int) -> list[Spend]:
        """Largest first, confirmed or not."""
        chosen: list[Spend] = []
        for own in self._own(asset):
            chosen.append(own)
            if _sum(chosen) >= at_least:
                return chosen
        raise CannotPay("the wallet holds too little of this asset")

    def _own(self, asset: bytes) -> list[Spend]:
        found = [
            self._spend(own)
            for own in self._node.store.secrets(asset)
            if self._node.output(own.outpoint) is not None
        ]
        return sorted(found, key=lambda spend: spend.secret.value, reverse=True)

    def _spend(self, own: OwnSecret) -> Spend:
        key = self._key(own.key_index)
        value = wally.tx_confidential_value_from_satoshi(own.secret.value)
        if any(own.secret.vbf):
            value = wally.asset_value_commitment(own.secret.value, own.secret.vbf, own.secret.generator)
        return Spend(
            txid=own.outpoint.txid,
            vout=own.outpoint.vout,
            script=_script(key),
            value_bytes=bytes(value),
            secret=own.secret,
            private_key=key,
        )

    def _own_target(self, asset: bytes, value: int) -> Target:
        key = self._key(0)
        blinding = bytes(wally.ec_public_key_from_private_key(self._key(1)))
        return Target(script=_script(key), asset=asset, value=value, blinding_public_key=blinding)

    def _key(self, index: int) -> bytes:
        child = wally.bip32_key_from_parent(self._master, index, wally.BIP32_FLAG_KEY_PRIVATE)
        return bytes(wally.bip32_key_get_priv_key(child))


def _script(private_key: bytes) -> bytes:
    public_key = wally.ec_public_key_from_private_key(private_key)
    return b"\x00\x14" + bytes(wally.hash160(public_key))


def _sum(coins: Sequence[Spend]) -> int:
    return sum(coin.secret.value for coin in coins)
