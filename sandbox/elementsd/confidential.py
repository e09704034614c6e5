"""Building confidential transactions with wallycore: blinding, proofs, balance, signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import wallycore as wally

from sandbox.elementsd.params import LBTC_ASSET, RBF_SEQUENCE, asset_bytes

Randomness = Callable[[int], bytes]
_ZERO: Final = bytes(32)
_ISSUANCE: Final = 1 << 31
"""Set in the output number of an input that issues an asset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What an output holds: asset bytes, amount, and both blinders (zero if explicit)."""

    asset: bytes
    value: int
    abf: bytes = _ZERO
    vbf: bytes = _ZERO

    @property
    def generator(self) -> bytes:
        """The asset's generator under its blinder."""
        return bytes(wally.asset_generator_from_bytes(self.asset, self.abf))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """An output to be spent and how."""

    txid: str
    vout: int
    script: bytes
    value_bytes: bytes
    secret: Secret
    private_key: bytes | None
    """None spends an anyone-can-spend output."""
    issue: tuple[bytes, int] | None = None
    """Contract hash and amount of an asset to issue at this input."""
    issued_asset: bytes | None = None
    sequence: int = RBF_SEQUENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An output to be made."""

    script: bytes
    asset: bytes
    value: int
    blinding_public_key: bytes | None = None
    """None makes an explicit output."""
    claimed_asset: bytes | None = None
    """Lie in the range proof's message: claim this asset. Valid to the network, refused by wallets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A signed transaction and what its outputs hold, in order (the fee output is last)."""

    raw: bytes
    txid: str
    secrets: Sequence[Secret]


def build(spends: Sequence[Spend], targets: Sequence[Target], fee_satoshi: int, random: Randomness) -> Built:
    """Build and sign. Inputs and outputs must balance; two outputs or more must be blinded."""
    tx = wally.tx_init(2, 0, len(spends), len(targets) + 1)
    for spend in spends:
        _add_input(tx, spend)
    secrets = _blinders(spends, targets, random)
    sources = _surjection_sources(spends)
    for target, secret in zip(targets, secrets, strict=True):
        _add_output(tx, target, secret, sources, random)
    fee = Secret(asset=asset_bytes(LBTC_ASSET), value=fee_satoshi)
    value = wally.tx_confidential_value_from_satoshi(fee_satoshi)
    wally.tx_add_elements_raw_output(tx, None, b"\x01" + fee.asset, value, None, None, None, 0)
    for n, spend in enumerate(spends):
        _sign(tx, n, spend)
    raw = bytes(wally.tx_to_bytes(tx, wally.WALLY_TX_FLAG_USE_WITNESS | wally.WALLY_TX_FLAG_USE_ELEMENTS))
    return Built(raw=raw, txid=bytes(wally.tx_get_txid(tx))[::-1].hex(), secrets=[*secrets, fee])


def _add_input(tx: Any, spend: Spend) -> None:
    index, nonce, entropy, amount = spend.vout, None, None, None
    if spend.issue is not None:
        index |= _ISSUANCE
        nonce, entropy = _ZERO, spend.issue[0]
        amount = wally.tx_confidential_value_from_satoshi(spend.issue[1])
    wally.tx_add_elements_raw_input(
        tx, bytes.fromhex(spend.txid)[::-1], index, spend.sequence,
        None, None, nonce, entropy, amount, None, None, None, None, 0,
    )  # fmt: skip


def _blinders(spends: Sequence[Spend], targets: Sequence[Target], random: Randomness) -> list[Secret]:
    """Random blinders; the last blinded output's value blinder makes the whole balance."""
    secrets = [
        Secret(asset=target.asset, value=target.value)
        if target.blinding_public_key is None
        else Secret(asset=target.asset, value=target.value, abf=_scalar(random), vbf=_scalar(random))
        for target in targets
    ]
    blinded = [n for n, target in enumerate(targets) if target.blinding_public_key is not None]
    if not blinded:
        return secrets
    inputs = [spend.secret for spend in spends]
    *others, last = [secrets[n] for n in blinded]
    values = [item.value for item in (*inputs, *others, last)]
    abfs = b"".join(item.abf for item in (*inputs, *others, last))
    vbfs = b"".join(item.vbf for item in (*inputs, *others))
    final = bytes(wally.asset_final_vbf(values, len(inputs), abfs, vbfs))
    secrets[blinded[-1]] = replace(last, vbf=final)
    return secrets


def _scalar(random: Randomness) -> bytes:
    while True:
        candidate = random(32)
        try:
            wally.ec_private_key_verify(candidate)
        except ValueError:
            continue
        return candidate


def _surjection_sources(spends: Sequence[Spend]) -> tuple[bytes, bytes, bytes]:
    """Assets, blinders and generators an output's asset may come from."""
    found = [spend.secret for spend in spends]
    found += [Secret(asset=s.issued_asset, value=0) for s in spends if s.issued_asset is not None]
    return (
        b"".join(item.asset for item in found),
        b"".join(item.abf for item in found),
        b"".join(item.generator for item in found),
    )


def _add_output(
    tx: Any, target: Target, secret: Secret, sources: tuple[bytes, bytes, bytes], random: Randomness
) -> None:
    if target.blinding_public_key is None:
        value = wally.tx_confidential_value_from_satoshi(target.value)
        asset = b"\x01" + target.asset
        wally.tx_add_elements_raw_output(tx, target.script, asset, value, None, None, None, 0)
        return
    generator = secret.generator
    commitment = wally.asset_value_commitment(secret.value, secret.vbf, generator)
    ephemeral = _scalar(random)
    rangeproof = wally.asset_rangeproof(
        secret.value, target.blinding_public_key, ephemeral, target.claimed_asset or secret.asset,
        secret.abf, secret.vbf, commitment, target.script, generator, 1, 0, 52,
    )  # fmt: skip
    surjection = wally.asset_surjectionproof(secret.asset, secret.abf, generator, random(32), *sources)
    nonce = wally.ec_public_key_from_private_key(ephemeral)
    wally.tx_add_elements_raw_output(
        tx, target.script, generator, commitment, nonce, surjection, rangeproof, 0
    )


def _sign(tx: Any, n: int, spend: Spend) -> None:
    if spend.private_key is None:
        return
    public_key = bytes(wally.ec_public_key_from_private_key(spend.private_key))
    code = b"\x76\xa9\x14" + bytes(wally.hash160(public_key)) + b"\x88\xac"
    digest = wally.tx_get_elements_signature_hash(
        tx, n, code, spend.value_bytes, wally.WALLY_SIGHASH_ALL, wally.WALLY_TX_FLAG_USE_WITNESS
    )
    flags = wally.EC_FLAG_ECDSA | wally.EC_FLAG_GRIND_R
    signature = bytes(wally.ec_sig_to_der(wally.ec_sig_from_bytes(spend.private_key, digest, flags)))
    witness = wally.tx_witness_stack_init(2)
    wally.tx_witness_stack_add(witness, signature + bytes([wally.WALLY_SIGHASH_ALL]))
    wally.tx_witness_stack_add(witness, public_key)
    wally.tx_set_input_witness(tx, n, witness)
