"""Digests: of a command's body, and of the log itself."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="deterministic")


def body_digest(body: Any) -> bytes:
    """16 bytes that tell two command bodies apart; equal bodies give equal digests."""
    return hashlib.blake2b(_ENCODER.encode(body), digest_size=16).digest()
