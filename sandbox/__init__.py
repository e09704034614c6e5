"""Stand-ins that speak the real protocols, and the embedded PostgreSQL and Valkey.

Only `sandbox.supervisor` and the tests import this package: the rest of the product reaches
a sandbox exactly as it reaches the real thing, by address and credentials.
"""
