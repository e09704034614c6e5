"""What several stand-ins need alike: a process, a control API, faults, a database, a clock, files."""
