"""Migrations are one line of numbers."""

from __future__ import annotations

import re

from tests.house.sources import ROOT

VERSIONS = ROOT / "gateway" / "database" / "migrations" / "versions"


def test_each_migration_has_the_next_number_and_follows_the_one_before() -> None:
    """Two that were made side by side would leave every database where it is."""
    found = sorted(VERSIONS.glob("[0-9]*.py"))
    names = [path.name.partition("_")[0] for path in found]
    assert names == [f"{number:04}" for number in range(1, len(found) + 1)]
    for path, number in zip(found, names, strict=True):
        revisions = dict(
            re.findall(r'^(down_revision|revision) = "?(\w+)"?$', path.read_text(), re.MULTILINE)
        )
        before = f"{int(number) - 1:04}" if number != "0001" else "None"
        assert revisions == {"revision": number, "down_revision": before}, path.name
