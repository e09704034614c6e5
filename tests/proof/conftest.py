"""One database and two processes for all lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import structlog

from ledger.log import cache
from tests.proof.harness import Harness
from tests.proof.random_commands import Ledger
from tests.tables import create_tables


@pytest.fixture
def harness(make_database: Callable[..., str]) -> Iterator[Harness]:
    """With snapshots after few events, so that short lives load them too."""
    url = make_database()
    create_tables(url)
    with pytest.MonkeyPatch.context() as patched, structlog.testing.capture_logs():
        patched.setattr(cache, "SNAPSHOT_EVERY", 4)
        Ledger.harness = Harness(url)
        yield Ledger.harness
        Ledger.harness.close()
