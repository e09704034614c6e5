"""What the API loads at start, and what it loads when it is needed.

Loading is most of what a start costs. So what most processes never use is imported where it is used:

- Alembic, and the templates and colours it brings, by `gateway.database.schema.migrate`: a database with the newest
  schema is recognised without it (`gateway.database.current`).
- The payment rails' own clients (the card processor's library, gRPC), by each rail when it is built: a rail that is
  not configured loads nothing.
- What libraries load only because it happens to be installed, and then never use here (`UNUSED`): they find it absent
  while the API loads, and choose what they do without it.
- The command line's library, by commands alone: what check-config and the API both ask of the settings is
  `gateway.findings`.

`tests/gateway/test_imports.py` holds this. Whoever adds an import that every request needs leaves it at the top.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

UNUSED = ("rich", "httpx._main")
"""Coloured tracebacks (structlog; the logs are JSON), and the command line of httpx."""


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Load nothing meanwhile that is `UNUSED`, and collect no garbage."""
    absent = [name for name in UNUSED if name not in sys.modules]
    # None is how Python itself says that a module is not to be found: importing it raises ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        with collection_paused():
            yield
    finally:
        for name in absent:
            if sys.modules[name] is None:
                del sys.modules[name]


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
