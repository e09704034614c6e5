"""The queue: order, claims, estimates, quotas, wake-ups."""
