"""What every part of the stand-in works with: the store, the time, fresh ids, and events."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.common.clock import MovableClock
from sandbox.stripe.store import Json, Store

API_VERSION = "2026-10-28.endive"
"""The one version whose shapes are spoken here; requests for another are refused."""
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTHS = {"cs_test": 58}


@dataclass(slots=True)
class Context:
    """One stand-in."""

    store: Store
    clock: MovableClock
    randomness: Callable[[int], bytes]
    public_url: str
    """Where a browser reaches the hosted pages, without a trailing slash."""
    request_id: str | None = None
    request_key: str | None = None
    swept_at: int = 0
    """When requests last let time do its work."""
    wake: Callable[[], None] = field(default=lambda: None)
    """Called after a commit that left something to deliver."""

    def now(self) -> int:
        """Unix seconds in the stand-in's time."""
        return int(self.clock())

    def machine_ms(self) -> int:
        """Unix milliseconds of the real clock, for retries and signatures."""
        return int(self.clock.machine() * 1000)

    def new_id(self, prefix: str) -> str:
        """A fresh id such as `pi_3Q…`."""
        length = _LENGTHS.get(prefix, 24)
        body = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in self.randomness(length))
        return f"{prefix}_{body}"

    def emit(self, kind: str, value: Json, previous: Json | None = None) -> Json:
        """Record an event with a snapshot of `value` and queue it for every endpoint that wants it."""
        endpoints = [
            endpoint
            for endpoint in self.store.where("webhook_endpoint", status="enabled")
            if kind in endpoint["enabled_events"] or "*" in endpoint["enabled_events"]
        ]
        data: Json = {"object": copy.deepcopy(value)}
        data["object"].pop("_sandbox", None)
        if previous is not None:
            data["previous_attributes"] = previous
        event = {
            "id": self.new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": data,
            "livemode": False,
            "pending_webhooks": len(endpoints),
            "request": {"id": self.request_id, "idempotency_key": self.request_key},
            "type": kind,
        }
        self.store.insert(event)
        for endpoint in endpoints:
            self.store.connection.execute(
                "INSERT INTO deliveries (event, endpoint) VALUES (?, ?)", (event["id"], endpoint["id"])
            )
        return event


def compact(value: Json) -> bytes:
    """A body as Stripe sends it to webhooks: indented JSON, signed byte for byte."""
    return json.dumps(value, indent=2).encode()
