"""Elements transactions as the sandbox node sees them: parsed, weighed, checked. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import wallycore as wally
from coincurve import PublicKey

from sandbox.elementsd.params import MAX_MONEY, asset_id, issued_asset

_FLAGS: Final = wally.WALLY_TX_FLAG_USE_WITNESS | wally.WALLY_TX_FLAG_USE_ELEMENTS
_FIELD: Final = 2**256 - 2**32 - 977
"""The prime of secp256k1's field."""


class BadTransaction(Exception):
    """The transaction breaks a rule of the chain. Carries elementsd's reject reason."""

    def __init__(self, reason: str, code: int = -26) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True)
class OutPoint:
    """A place where money is: transaction id as people write it, and output number."""

    txid: str
    vout: int


@dataclass(frozen=True, slots=True)
class Input:
    """One input."""

    outpoint: OutPoint
    sequence: int
    script_sig: bytes
    issued: tuple[tuple[bytes, int], ...]
    """Assets that this input creates, with their explicit amounts."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output, as committed to."""

    script: bytes
    asset: bytes
    """33 bytes: 01 and an asset, or a blinded generator."""
    value: bytes
    """9 bytes: 01 and an amount, or a 33-byte commitment."""
    nonce: bytes
    rangeproof: bytes
    surjectionproof: bytes

    @property
    def is_fee(self) -> bool:
        """An output without a script is the fee."""
        return self.script == b""

    @property
    def explicit_asset(self) -> str | None:
        """The asset id if it is not blinded."""
        return asset_id(self.asset[1:]) if self.asset[:1] == b"\x01" else None

    @property
    def explicit_value(self) -> int | None:
        """The amount if it is not blinded."""
        return int.from_bytes(self.value[1:], "big") if self.value[:1] == b"\x01" else None


@dataclass(frozen=True, slots=True)
class Tx:
    """A parsed transaction."""

    raw: bytes
    txid: str
    version: int
    locktime: int
    weight: int
    discount_vsize: int
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    coinbase: bool

    @property
    def wtxid(self) -> str:
        """The hash of the whole serialisation."""
        return double_sha256(self.raw)[::-1].hex()

    @property
    def vsize(self) -> int:
        """Virtual size without the discount for confidential outputs."""
        return -(-self.weight // 4)

    @property
    def fee_satoshi(self) -> int:
        """What the explicit fee outputs sum to."""
        return sum(output.explicit_value or 0 for output in self.outputs if output.is_fee)

    @property
    def replaceable(self) -> bool:
        """Whether it signals replacement (BIP 125)."""
        return any(item.sequence < 0xFFFFFFFE for item in self.inputs)


def double_sha256(data: bytes) -> bytes:
    """SHA-256 twice."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def parse(raw: bytes) -> Tx:
    """Read a serialised Elements transaction. Raises `BadTransaction` with code -22."""
    try:
        tx = wally.tx_from_bytes(raw, _FLAGS)
        if bytes(wally.tx_to_bytes(tx, _FLAGS)) != raw:
            raise ValueError("not canonical")
        coinbase = bool(wally.tx_is_coinbase(tx))
        weight = wally.tx_get_weight(tx)
        return Tx(
            raw=raw,
            txid=bytes(wally.tx_get_txid(tx))[::-1].hex(),
            version=wally.tx_get_version(tx),
            locktime=wally.tx_get_locktime(tx),
            weight=weight,
            discount_vsize=-(-(weight - wally.tx_get_elements_weight_discount(tx, 0)) // 4),
            inputs=tuple(_input(tx, n) for n in range(wally.tx_get_num_inputs(tx))),
            outputs=tuple(_output(tx, n) for n in range(wally.tx_get_num_outputs(tx))),
            coinbase=coinbase,
        )
    except (ValueError, RuntimeError):
        raise BadTransaction("TX decode failed. Make sure the tx has at least one input.", -22) from None


def _input(tx: Any, n: int) -> Input:
    txid = bytes(wally.tx_get_input_txhash(tx, n))
    vout = wally.tx_get_input_index(tx, n)
    null = vout == 0xFFFFFFFF
    vout = vout if null else vout & wally.WALLY_TX_INDEX_MASK
    issued: tuple[tuple[bytes, int], ...] = ()
    amount = bytes(wally.tx_get_input_issuance_amount(tx, n))
    if amount and not null:
        contract = bytes(wally.tx_get_input_entropy(tx, n))
        if amount[:1] != b"\x01" or bytes(wally.tx_get_input_inflation_keys(tx, n)):
            raise ValueError("only explicit issuances without reissuance tokens are known here")
        issued = ((issued_asset(txid, vout, contract), int.from_bytes(amount[1:], "big")),)
    return Input(
        outpoint=OutPoint(txid[::-1].hex(), vout),
        sequence=wally.tx_get_input_sequence(tx, n),
        script_sig=bytes(wally.tx_get_input_script(tx, n)),
        issued=issued,
    )


def _output(tx: Any, n: int) -> Output:
    return Output(
        script=bytes(wally.tx_get_output_script(tx, n)),
        asset=bytes(wally.tx_get_output_asset(tx, n)),
        value=bytes(wally.tx_get_output_value(tx, n)),
        nonce=_bytes_or_empty(wally.tx_get_output_nonce, tx, n),
        rangeproof=bytes(wally.tx_get_output_rangeproof(tx, n)),
        surjectionproof=bytes(wally.tx_get_output_surjectionproof(tx, n)),
    )


def _bytes_or_empty(getter: Any, tx: Any, n: int) -> bytes:
    try:
        return bytes(getter(tx, n))
    except ValueError:
        return b""


def witness_items(raw: bytes, n: int) -> list[bytes]:
    """The witness stack of input `n`."""
    tx = wally.tx_from_bytes(raw, _FLAGS)
    return [
        bytes(wally.tx_get_input_witness(tx, n, i))
        for i in range(wally.tx_get_input_witness_num_items(tx, n))
    ]


def check_amounts(tx: Tx, spent: list[Output]) -> None:
    """What comes in goes out, asset by asset, blinded or not. Raises `BadTransaction`.

    A value commitment is `value*H + blinder*G`, where H is the (blinded) generator of the asset:
    the commitments of both sides have the same sum. Range proofs and surjection proofs must be
    there, but wallycore cannot verify them: a forged proof that a real node would refuse passes.
    """
    try:
        issued = [_explicit(asset, amount) for item in tx.inputs for asset, amount in item.issued]
        paid_in = issued + [_commitment(coin) for coin in spent if coin.explicit_value != 0]
        paid_out = [_commitment(output) for output in tx.outputs if output.explicit_value != 0]
        balanced = PublicKey.combine_keys(paid_in) == PublicKey.combine_keys(paid_out)
    except ValueError:
        balanced = False
    if not balanced or any(
        (output.explicit_value is None and not output.rangeproof)
        or (output.explicit_asset is None and not output.surjectionproof)
        for output in tx.outputs
    ):
        raise BadTransaction("bad-txns-in-ne-out")


def _commitment(output: Output) -> PublicKey:
    if output.explicit_value is None:
        return _point(output.value)
    if output.explicit_value > MAX_MONEY:
        raise ValueError("too much")
    if output.explicit_asset is not None:
        return _explicit(output.asset[1:], output.explicit_value)
    return _point(output.asset).multiply(output.explicit_value.to_bytes(32, "big"))


def _explicit(asset: bytes, amount: int) -> PublicKey:
    generator = bytes(wally.asset_generator_from_bytes(asset, bytes(32)))
    return _point(generator).multiply(amount.to_bytes(32, "big"))


def _point(commitment: bytes) -> PublicKey:
    """A 33-byte value commitment (08/09) or asset generator (0a/0b). Raises `ValueError`.

    Their last bit marks whether y is a square; that of a public key (02/03) whether y is odd.
    """
    if len(commitment) != 33 or commitment[0] not in (0x08, 0x09, 0x0A, 0x0B):
        raise ValueError("not a commitment")
    even = PublicKey(b"\x02" + commitment[1:])
    is_square = pow(even.point()[1], (_FIELD - 1) >> 1, _FIELD) == 1
    return even if is_square == (commitment[0] & 1 == 0) else PublicKey(b"\x03" + commitment[1:])


def check_signatures(tx: Tx, spent: list[Output]) -> None:
    """P2WPKH and anyone-can-spend inputs; other scripts are refused. Raises `BadTransaction`."""
    parsed = wally.tx_from_bytes(tx.raw, _FLAGS)
    for n, coin in enumerate(spent):
        if coin.script == b"\x51":
            continue
        if len(coin.script) != 22 or coin.script[:2] != b"\x00\x14":
            raise BadTransaction("mandatory-script-verify-flag-failed (script kind unknown to the sandbox)")
        items = witness_items(tx.raw, n)
        if len(items) != 2 or bytes(wally.hash160(items[1])) != coin.script[2:]:
            raise BadTransaction("mandatory-script-verify-flag-failed (Witness program hash mismatch)")
        code = b"\x76\xa9\x14" + coin.script[2:] + b"\x88\xac"
        try:
            digest = wally.tx_get_elements_signature_hash(
                parsed, n, code, coin.value, items[0][-1], wally.WALLY_TX_FLAG_USE_WITNESS
            )
            signature = wally.ec_sig_from_der(items[0][:-1])
            wally.ec_sig_verify(items[1], digest, wally.EC_FLAG_ECDSA, signature)
        except (ValueError, RuntimeError, IndexError):
            reason = "mandatory-script-verify-flag-failed (Signature must be zero for failed CHECK(MULTI)SIG)"
            raise BadTransaction(reason) from None
