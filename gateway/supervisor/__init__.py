"""`make run`: one process tree with everything in it, and nothing left behind.

The supervisor starts PostgreSQL, Valkey, the sandboxes, the API and the worker, restarts
what dies, and stops all of it in reverse order. It is the only part of the product that
knows the sandboxes; whatever is configured to be a real server is not started here.
It imports nothing but the standard library and the sandboxes' descriptions, to start fast.
"""
