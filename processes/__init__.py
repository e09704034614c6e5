"""Durable follow-ups across packages: what one event causes elsewhere."""
