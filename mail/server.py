"""Where mail is handed over: the address of a mail server."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

TLS, STARTTLS, PLAIN = "smtps", "smtp", "smtp+plain"
"""Schemes of a server's address: TLS from the first byte, TLS by STARTTLS or not at all, never TLS."""
PORTS = {TLS: 465, STARTTLS: 587, PLAIN: 25}


class Server(NamedTuple):
    """Where mail is handed over."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> Server:
        """`smtps://user:password@host:465`. Raises `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("a mail server's address begins with smtps://, smtp:// or smtp+plain://")
        user, password = (
            None if part is None else unquote(part) for part in (parts.username, parts.password)
        )
        return cls(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme], user or None, password)
