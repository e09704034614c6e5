"""Secrets of the embedded default, made once and kept in the data folder, closed to others."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

GENERATED = ("LLAMASKETCH_SECRET_KEY",)
"""Settings that must differ between installations and that nobody should have to invent."""


def default_secrets(path: Path, given: Mapping[str, str]) -> dict[str, str]:
    """A value for each secret that is not in `given`: the same one on every start."""
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in GENERATED if name not in kept]
    if missing:
        kept |= {name: secrets.token_urlsafe(32) for name in missing}
        _save(path, kept)
    return {name: kept[name] for name in GENERATED if not given.get(name)}


def _save(path: Path, values: Mapping[str, str]) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(values, file, indent=2)
    unfinished.replace(path)
