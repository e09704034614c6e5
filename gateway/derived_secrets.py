"""Secrets made from the one that is configured. Apart from the settings, because the supervisor derives one before it loads anything."""

from __future__ import annotations

import hashlib
import hmac

WORKER_REGISTRATION = "worker-registration"
"""The purpose of what signs the tokens by which workers register."""


def derive_secret(secret_key: str, purpose: str) -> bytes:
    """32 bytes that depend on the purpose and tell nothing about the key."""
    return hmac.new(secret_key.encode(), purpose.encode(), hashlib.sha256).digest()
