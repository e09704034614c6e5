"""FastAPI, wiring, command line and web pages: the only place where concrete classes meet."""
