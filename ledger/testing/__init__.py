"""Doubles for those who build on the ledger."""

from ledger.testing.memory_log import MemoryLog

__all__ = ["MemoryLog"]
