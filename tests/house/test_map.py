"""The rooms keep to the map: few arrows, none back up."""

from __future__ import annotations

import re

import pytest

from tests.house.map import arrows, back_up, rooms
from tests.house.sources import PRODUCT, ROOT

ARROWS_MAX = {"generation": 20, "rails": 30}


@pytest.mark.parametrize("package", PRODUCT)
def test_no_two_rooms_of_a_package_import_each_other(package: str) -> None:
    assert back_up(arrows()[package]) == []


@pytest.mark.parametrize(("package", "most"), ARROWS_MAX.items())
def test_a_package_has_few_arrows_between_its_rooms(package: str, most: int) -> None:
    assert len(arrows()[package]) <= most


@pytest.mark.parametrize("package", ARROWS_MAX)
def test_the_map_in_numbers_is_of_today(package: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    row = re.search(
        rf"^\| `{package}`: rooms .*\| (\d+) · (\d+) between rooms · (\d+) \|$", text, re.MULTILINE
    )
    assert row is not None
    found = arrows()[package]
    assert [int(number) for number in row.groups()] == [len(rooms(package)), len(found), len(back_up(found))]
