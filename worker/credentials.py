"""The worker token on disk: readable by its owner only, replaced in one step."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What registration gave. `api_url` binds the token to the API that issued it."""

    api_url: str
    worker_id: str
    token: str
    expires_at: datetime
    heartbeat_seconds: float
    lease_seconds: float


class CredentialFile:
    """`worker-token.json` in the data folder, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "worker-token.json"

    def read(self, api_url: str) -> Credentials | None:
        """What is stored for this API; None when nothing readable is."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Credentials)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.api_url == api_url else None

    def write(self, credentials: Credentials) -> None:
        """Store; a crash leaves the old or the new file, never half of one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._path.with_suffix(".part")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(credentials))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def delete(self) -> None:
        """Forget a token that the API no longer accepts."""
        self._path.unlink(missing_ok=True)
