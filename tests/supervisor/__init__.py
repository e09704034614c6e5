"""The supervisor, with tiny real child processes."""
