"""The gateway's tables, and the schema of all."""
