"""Every decision has a number of its own, and stands in the index in its own words."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_index_lists_every_decision_by_its_number_and_title() -> None:
    found = {path.name: path.read_text().partition("\n")[0] for path in (DOCS / "adr").glob("*.md")}
    numbers = [int(name[:4]) for name in found]
    assert sorted(numbers) == sorted(set(numbers)), "two decisions have one number"
    expected = {f"- [{title.removeprefix('# ')}](adr/{name})" for name, title in found.items()}
    listed = re.findall(r"^- \[\d+\. .*\]\(adr/.*\)$", (DOCS / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == expected
    assert len(listed) == len(expected)
    for name, title in found.items():
        assert title.startswith(f"# {int(name[:4])}. "), name
