"""What the command line does, a module per command; imported when it runs, so that `--help` is quick."""
