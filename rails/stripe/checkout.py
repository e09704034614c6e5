"""Opening a page of Stripe's Checkout: how long it lives, and what is tried where Stripe fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from rails.contract import Instructions, RailProtocolError, RailUnavailable
from rails.stripe.calls import FailureReplayed, Json, KeyReused, Refused, StripeCalls

SHORTEST = timedelta(minutes=31)
"""Stripe keeps a session open for at least 30 minutes; one more for the way there."""
LONGEST = timedelta(hours=23, minutes=55)
OPEN_TRIES = 3


def lifetime(expires_at: datetime, now: datetime, return_url: str) -> Json:
    """When a session ends, as near to the wanted time as Stripe allows, and where it leads."""
    ends = min(max(expires_at, now + SHORTEST), now + LONGEST)
    return {"expires_at": int(ends.timestamp()), "success_url": return_url, "cancel_url": return_url}


async def open_session(
    calls: StripeCalls, params: Json, key: str, find: Callable[[], Awaitable[Json | None]] | None = None
) -> Instructions:
    """A session, opened at most once under each of `OPEN_TRIES` keys made from this one.

    Stripe keeps even a failure under its key, and counts a moved expiry as another request: then `find` says whether
    the session is there all the same, and only if not, another key is taken. Without `find` nobody can have been given
    the page of an attempt before: one that is open there expires by itself. Raises `RailProtocolError` or
    `RailUnavailable`.
    """
    for attempt in range(1, OPEN_TRIES + 1):
        try:
            session = await calls.create_session(params, f"{key}:{attempt}")
        except Refused as refused:
            raise RailProtocolError(f"Stripe refuses to open a session: {refused.code}") from refused
        except (KeyReused, FailureReplayed):
            found = None if find is None else await find()
            if found is None:
                continue
            session = found
        # The URL of a session is there only while it is open; its reference is for ever.
        return Instructions(kind="redirect", reference=session["id"], url=session.get("url"))
    raise RailUnavailable("Stripe fails to open a session")
