"""What may be made to go wrong on purpose."""

from __future__ import annotations

from sandbox.common import faults


class Faults(faults.Faults):
    """Counters are used up one by one; flags and delays stay until set otherwise."""

    duplicate: int = 0
    """That many webhook messages are delivered twice."""
    drop: int = 0
    """That many webhook messages are never delivered; the events stay in the list."""
    reorder: bool = False
    """Webhook messages are collected for a moment and delivered newest first."""
    delay_ms: int = 0
    """Every webhook message waits that long."""
    api_delay_ms: int = 0
    """Every API request waits that long before it is looked at."""
    error_500: int = 0
    """That many API requests answer 500, kept under their idempotency key as at Stripe."""
    refuse_500: int = 0
    """That many API requests answer 500 before anything began (not kept under their key)."""
    refuse_429: int = 0
    """That many API requests answer 429 with Retry-After before anything began."""
    signs_by_own_clock: bool = False
    """Webhook messages are signed at the stand-in's time instead of the machine's, for whoever has moved along."""
    timeout_after_commit: int = 0
    """That many POST requests are carried out, and the answer never comes."""
    fail_renewals: int = 0
    """That many renewals of subscriptions are declined."""
    challenge_renewals: int = 0
    """That many renewals of subscriptions ask for 3-D Secure, which nobody is there to pass."""
    unpaid_at_last: bool = False
    """A subscription whose renewal failed for good is kept as `unpaid` instead of cancelled."""
