"""`make run`: one process tree with everything in it, and nothing left behind.

The supervisor starts PostgreSQL, Valkey, the stand-ins, the API and the worker, restarts what
dies, and stops all of it in reverse order. It knows the servers and stand-ins by their descriptions
and runs each in a process of its own; whatever is configured to be a real server is not started.
With the product it shares the settings, the registration tokens and the record of a running stack.
"""
