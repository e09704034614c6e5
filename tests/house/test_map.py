"""The rooms keep to the map: few arrows, none back up."""

from __future__ import annotations

import pytest

from tests.house.map import arrows, back_up
from tests.house.sources import PRODUCT

ARROWS_MAX = {"generation": 20, "rails": 30}


@pytest.mark.parametrize("package", PRODUCT)
def test_no_two_rooms_of_a_package_import_each_other(package: str) -> None:
    assert back_up(arrows()[package]) == []


@pytest.mark.parametrize(("package", "most"), ARROWS_MAX.items())
def test_a_package_has_few_arrows_between_its_rooms(package: str, most: int) -> None:
    assert len(arrows()[package]) <= most
