"""The table of proofs names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_documentation_names_exists() -> None:
    named = re.findall(r"`(\w+)/(test_\w+)`", (ROOT / "docs" / "ledger-proof.md").read_text())
    there: dict[str, str] = {}
    missing = []
    for folder, name in named:
        if folder not in there:
            sources = sorted((ROOT / "tests" / folder).rglob("*.py"))
            there[folder] = "\n".join(source.read_text() for source in sources)
        if f"def {name}(" not in there[folder]:
            missing.append(f"{folder}/{name}")
    assert len(named) > 80
    assert missing == []
