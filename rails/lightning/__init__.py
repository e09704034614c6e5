"""The Lightning rail: invoices and hold invoices on an LND node."""
