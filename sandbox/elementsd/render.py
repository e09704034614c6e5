"""Transactions as elementsd writes them in JSON. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sandbox.elementsd.addresses import script_to_address
from sandbox.elementsd.params import asset_id
from sandbox.elementsd.transactions import Input, Output, Tx, witness_items


def amount(satoshi: int) -> msgspec.Raw:
    """An amount as a JSON number with 8 places, as elementsd writes it."""
    whole, part = divmod(satoshi, 10**8)
    return msgspec.Raw(f"{whole}.{part:08d}".encode())


def script_json(script: bytes) -> dict[str, Any]:
    """A script. The assembly is given for the kinds that the sandbox makes."""
    if not script:
        return {"asm": "", "hex": "", "type": "fee"}
    if script[:1] == b"\x6a":
        return {"asm": " ".join(["OP_RETURN", *_pushes(script[1:])]), "hex": script.hex(), "type": "nulldata"}
    kinds = {
        22: "witness_v0_keyhash",
        34: "witness_v0_scripthash" if script[0] == 0 else "witness_v1_taproot",
    }
    address = script_to_address(script)
    if address is None:
        return {"asm": "1" if script == b"\x51" else script.hex(), "hex": script.hex(), "type": "nonstandard"}
    asm = f"{script[0] - 0x50 if script[0] else 0} {script[2:].hex()}"
    kind = kinds.get(len(script), "witness_unknown")
    return {"asm": asm, "address": address, "hex": script.hex(), "type": kind}


def _pushes(data: bytes) -> list[str]:
    return [data[1:].hex()] if data and data[0] == len(data) - 1 else ([data.hex()] if data else [])


def transaction_json(tx: Tx, *, with_hex: bool = True) -> dict[str, Any]:
    """A whole transaction."""
    fees: dict[str, int] = {}
    for output in tx.outputs:
        if output.is_fee and output.explicit_asset is not None:
            fees[output.explicit_asset] = fees.get(output.explicit_asset, 0) + (output.explicit_value or 0)
    return {
        "txid": tx.txid,
        "hash": tx.wtxid,
        "wtxid": tx.wtxid,
        "withash": tx.wtxid,
        "version": tx.version,
        "size": len(tx.raw),
        "vsize": tx.vsize,
        "discountvsize": tx.discount_vsize,
        "weight": tx.weight,
        "locktime": tx.locktime,
        "vin": [_input_json(tx, n, item) for n, item in enumerate(tx.inputs)],
        "vout": [_output_json(n, output) for n, output in enumerate(tx.outputs)],
        "fee": {asset: amount(value) for asset, value in fees.items()},
        **({"hex": tx.raw.hex()} if with_hex else {}),
    }


def _input_json(tx: Tx, n: int, item: Input) -> dict[str, Any]:
    if tx.coinbase:
        return {"coinbase": item.script_sig.hex(), "sequence": item.sequence}
    witness = [part.hex() for part in witness_items(tx.raw, n)]
    return {
        "txid": item.outpoint.txid,
        "vout": item.outpoint.vout,
        "scriptSig": {"asm": "", "hex": item.script_sig.hex()},
        "is_pegin": False,
        "sequence": item.sequence,
        **({"txinwitness": witness} if witness else {}),
        **_issuance_json(item),
    }


def _issuance_json(item: Input) -> dict[str, Any]:
    if not item.issued:
        return {}
    ((asset, value),) = item.issued
    about = {"assetBlindingNonce": "00" * 32, "isreissuance": False}
    return {"issuance": {**about, "asset": asset_id(asset), "assetamount": amount(value)}}


def _output_json(n: int, output: Output) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if output.explicit_value is not None:
        shown["value"] = amount(output.explicit_value)
    else:
        shown |= _range_json(output.rangeproof)
        shown["surjectionproof"] = output.surjectionproof.hex()
        shown["valuecommitment"] = output.value.hex()
    if output.explicit_asset is not None:
        shown["asset"] = output.explicit_asset
    else:
        shown["assetcommitment"] = output.asset.hex()
    shown["commitmentnonce"] = output.nonce.hex() if any(output.nonce) else ""
    shown["commitmentnonce_fully_valid"] = any(output.nonce)
    return {**shown, "n": n, "scriptPubKey": script_json(output.script)}


def _range_json(proof: bytes) -> dict[str, Any]:
    """What a range proof's first bytes hold: exponent, width, least value."""
    if len(proof) < 2 or not proof[0] & 0x40:
        return {}
    exponent, bits = proof[0] & 0x1F, proof[1] + 1
    least = int.from_bytes(proof[2:10], "big") if proof[0] & 0x20 else 0
    greatest = least + (2**bits - 1) * 10**exponent
    return {
        "value-minimum": amount(least),
        "value-maximum": amount(greatest),
        "ct-exponent": exponent,
        "ct-bits": bits,
    }
