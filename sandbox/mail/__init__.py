"""A mail server for trying out and for tests: real SMTP in, a mailbox page out."""
