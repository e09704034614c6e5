"""Arguments of elementsd's calls, read and refused as it does. Pure."""

from __future__ import annotations

from typing import Any, Final

from sandbox.elementsd.addresses import parse_destination
from sandbox.elementsd.render import amount
from sandbox.elementsd.transactions import BadTransaction, Output, Tx, parse

RPC_MISC_ERROR: Final = -1
RPC_TYPE_ERROR: Final = -3
RPC_INVALID_ADDRESS_OR_KEY: Final = -5
RPC_INVALID_PARAMETER: Final = -8
RPC_DESERIALIZATION_ERROR: Final = -22
RPC_IN_WARMUP: Final = -28
RPC_METHOD_NOT_FOUND: Final = -32601
RPC_INVALID_REQUEST: Final = -32600


class RpcError(Exception):
    """A JSON-RPC error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def hash_argument(name: str, value: Any) -> str:
    """A hash argument, refused as `ParseHashV` does."""
    if not isinstance(value, str):
        raise RpcError(RPC_TYPE_ERROR, "JSON value of type number is not of expected type string")
    if len(value) != 64:
        text = f"{name} must be of length 64 (not {len(value)}, for '{value}')"
        raise RpcError(RPC_INVALID_PARAMETER, text)
    try:
        bytes.fromhex(value)
    except ValueError:
        text = f"{name} must be hexadecimal string (not '{value}')"
        raise RpcError(RPC_INVALID_PARAMETER, text) from None
    return value.lower()


def transaction_argument(text: Any) -> Tx:
    """A serialised transaction in hex."""
    try:
        return parse(bytes.fromhex(str(text)))
    except (ValueError, BadTransaction):
        message = "TX decode failed. Make sure the tx has at least one input."
        raise RpcError(RPC_DESERIALIZATION_ERROR, message) from None


def held_json(output: Output, total: str = "value") -> dict[str, Any]:
    """What an unspent output holds: amount and asset where explicit, commitments elsewhere."""
    held: dict[str, Any] = {}
    if output.explicit_value is not None:
        held[total] = amount(output.explicit_value)
    else:
        held["amountcommitment" if total == "amount" else "valuecommitment"] = output.value.hex()
    if output.explicit_asset is not None:
        return {**held, "asset": output.explicit_asset}
    return {**held, "assetcommitment": output.asset.hex()}


def scan_argument(item: Any) -> tuple[str, bytes]:
    """The descriptor and script of one object to scan for."""
    text = str(item["desc"] if isinstance(item, dict) else item)
    body = text.partition("#")[0]
    try:
        if body.startswith("raw(") and body.endswith(")"):
            return body, bytes.fromhex(body[4:-1])
        if body.startswith("addr(") and body.endswith(")"):
            destination = parse_destination(body[5:-1])
            if destination is not None:
                return body, destination.script
    except ValueError:
        pass
    raise RpcError(RPC_INVALID_ADDRESS_OR_KEY, f"'{text}' is not a valid descriptor function")
