"""Let pytest explain the assertions of the exported suite."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.rails.contract")
