"""What the API loads at start, and what it loads when it is needed.

Loading is most of what a start costs. So what most processes never use is imported where it is used:

- Alembic, and the templates and colours it brings, by `gateway.database.schema.migrate`: a database with the newest
  schema is recognised without it (`gateway.database.current`).
- The payment rails' own clients (the card processor's library, gRPC), by each rail when it is built: a rail that is
  not configured loads nothing.
- The command line's library, by commands alone: what check-config and the API both ask of the settings is
  `gateway.findings`.

`tests/gateway/test_imports.py` holds this. Whoever adds an import that every request needs leaves it at the top.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Collect no garbage meanwhile: what imports make stays for ever, and is walked again and again in search of some."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
