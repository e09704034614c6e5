"""How HTTP is spoken: problems, idempotency, the reference."""
