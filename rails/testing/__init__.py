"""Doubles and the conformance suite for authors of rails. The suite itself, which pytest must rewrite, is
`rails.testing.contract_suite`.
"""

from rails.testing.fake_capabilities import fake_capabilities
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.fixed_rates import FixedRates
from rails.testing.memory_references import MemoryReferences
from rails.testing.memory_store import MemoryRailStore
from rails.testing.worlds import Impossible, World

__all__ = [
    "FakeNetwork",
    "FakeRail",
    "FixedRates",
    "Impossible",
    "MemoryRailStore",
    "MemoryReferences",
    "World",
    "fake_capabilities",
]
