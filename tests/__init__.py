"""All tests. `tests/conftest.py` has the real PostgreSQL and Valkey that they share."""
