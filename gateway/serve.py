"""`python -m gateway.serve`: wait for the database, migrate, then serve the API and the pages."""

from __future__ import annotations

from gateway.imports import quick_imports


def main() -> None:
    """Read the settings from the environment and serve until told to stop."""
    with quick_imports():
        from gateway.server import main as serve
    serve()


if __name__ == "__main__":
    main()
