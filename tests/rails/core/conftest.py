"""A payment core over fakes for each test."""

from __future__ import annotations

import pytest

from tests.rails.core.platform import Platform, make_platform


@pytest.fixture
def platform() -> Platform:
    return make_platform()


@pytest.fixture
def account_id(platform: Platform) -> str:
    return platform.ids.account()
