"""What the documents say is run, looked up and compared."""
