"""The package by itself on a real PostgreSQL, by the documentation's own words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.alone import open_ledger
from ledger.clock import system_clock
from ledger.domain.refusals import HoldNotOpen
from tests.ledger.world import HOUR, paid

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_documentation_prints_what_it_says(database_url):
    text = (ROOT / "docs" / "ledger.md").read_text()
    found = re.search(r"```python\n(import asyncio.*?)```", text, re.DOTALL)
    assert found
    program = found[1].replace("postgresql://postgres@localhost/ledger", database_url)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "posted=498, held=0, available=498" in done.stdout


async def test_an_account_survives_closing_and_opening_the_ledger(database_url):
    async with open_ledger(database_url) as ledger:
        account = ledger.open()
        await ledger.grant(account, 10, consideration=paid(100))
        held = await ledger.hold(account, 4, job_id="job_1", deadline=system_clock() + HOUR)
    async with open_ledger(database_url) as ledger:
        seen = await ledger.account(account)
        assert (seen.posted, seen.held) == (10, 4)
        await ledger.capture(account, held)
        with pytest.raises(HoldNotOpen):
            await ledger.capture(account, held)
        assert [line.movement.kind for line in await ledger.statement(account)] == [
            "granted",
            "held",
            "captured",
        ]
