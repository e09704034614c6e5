"""Prompts and images pass a check before they cost or show anything. The check is pluggable."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol


class Verdict(NamedTuple):
    """What a check says. `category` is a short public word such as `minors`."""

    allowed: bool
    category: str = ""


class Moderation(Protocol):
    """A check of what goes in and what comes out."""

    async def check_prompt(self, prompt: str) -> Verdict:
        """May this be painted?"""

    async def check_image(self, read: Callable[[], Awaitable[bytes]]) -> Verdict:
        """May this be shown? `read` reads the verified PNG: whoever does not look at it need not."""


_ALLOWED = Verdict(allowed=True)
DEFAULT_TERMS = {
    "minors": (r"\b(child|kid|minor|teen|underage|loli|shota)\w*\b.*\b(nude|naked|sex|porn|erotic)\w*",),
    "sexual": (r"\b(porn|hentai|nsfw|blowjob|cumshot)\w*\b",),
    "violence": (r"\b(beheading|gore porn|snuff)\b",),
}


class TermModeration:
    """A plain list of terms by category: a floor, not a classifier. Images pass."""

    def __init__(self, terms: dict[str, Iterable[str]] | None = None) -> None:
        chosen = DEFAULT_TERMS if terms is None else terms
        self._patterns = [
            (category, re.compile(pattern, re.IGNORECASE | re.DOTALL))
            for category, patterns in chosen.items()
            for pattern in patterns
        ]

    async def check_prompt(self, prompt: str) -> Verdict:
        """See `Moderation.check_prompt`."""
        for category, pattern in self._patterns:
            if pattern.search(prompt):
                return Verdict(allowed=False, category=category)
        return _ALLOWED

    async def check_image(self, read: Callable[[], Awaitable[bytes]]) -> Verdict:
        """See `Moderation.check_image`."""
        return _ALLOWED
