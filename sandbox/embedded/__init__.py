"""Real PostgreSQL and Valkey from wheels, run without installing or signing up for anything.

`postgres.EmbeddedPostgres` and `valkey.EmbeddedValkey` prepare a data folder and say how to
start the server (`command()`); `running.RunningServer` starts one and stops it again, for
tests and benches; `sandbox.supervisor` does the same with restarts.
"""
