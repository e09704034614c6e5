"""The sandbox merchant's keys: a seed for refunds and sweeps, and a watch-only descriptor for the API."""

from __future__ import annotations

from pathlib import Path

import wallycore as wally

from sandbox.common.files import keep
from sandbox.elementsd.confidential import Randomness
from sandbox.elementsd.params import NETWORK

SEED_FILE = "treasury.seed"
DESCRIPTOR_FILE = "descriptor.txt"


def ensure_treasury(data_dir: Path, random: Randomness) -> Path:
    """Write seed and descriptor once; later starts keep them. Returns the descriptor's path.

    The seed (hex, BIP 32) is what a merchant keeps away from the API server; the API reads the
    descriptor only.
    """
    seed = keep(data_dir / SEED_FILE, lambda: random(32).hex())
    descriptor_path = data_dir / DESCRIPTOR_FILE
    keep(descriptor_path, lambda: watch_only_descriptor(bytes.fromhex(seed)))
    return descriptor_path


def watch_only_descriptor(seed: bytes) -> str:
    """`ct(slip77(…),elwpkh([…/84h/1776h/0h]tpub…/<0;1>/*))#checksum`."""
    master = wally.bip32_key_from_seed(seed, wally.BIP32_VER_TEST_PRIVATE, 0)
    path = [84 | 1 << 31, 1776 | 1 << 31, 1 << 31]
    account = wally.bip32_key_from_parent_path(master, path, wally.BIP32_FLAG_KEY_PRIVATE)
    public = wally.bip32_key_to_base58(account, wally.BIP32_FLAG_KEY_PUBLIC)
    fingerprint = bytes(wally.bip32_key_get_fingerprint(master)).hex()
    slip77 = bytes(wally.asset_blinding_key_from_seed(seed))[32:].hex()
    text = f"ct(slip77({slip77}),elwpkh([{fingerprint}/84h/1776h/0h]{public}/<0;1>/*))"
    parsed = wally.descriptor_parse(text, None, NETWORK, wally.WALLY_MINISCRIPT_AS_ELEMENTS)
    return f"{text}#{wally.descriptor_get_checksum(parsed, 0)}"
