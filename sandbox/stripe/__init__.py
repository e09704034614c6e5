"""A stand-in for Stripe that speaks its HTTP API in the shapes of one pinned version.

No real money, no network beyond the loopback: the official SDK talks to it unchanged.
"""
