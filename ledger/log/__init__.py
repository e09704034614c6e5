"""The event log: one totally ordered, hash-chained record of everything that happened."""
