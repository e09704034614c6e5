"""Subscriptions that a rail charges again by itself: what the rail says becomes periods of a plan."""
