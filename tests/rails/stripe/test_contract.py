"""The card rail against the suite that every rail must pass."""

from __future__ import annotations

from tests.rails.contract import RailContract


class TestCardContract(RailContract):
    """With the real SDK against the sandbox process over HTTP."""
