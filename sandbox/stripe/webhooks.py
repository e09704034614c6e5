"""Signed webhook messages, delivered with retries, in the real scheme (`t=…,v1=…`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac

import httpx
import structlog

from sandbox.stripe.context import Context, compact
from sandbox.stripe.faults import Faults
from sandbox.stripe.queries import public
from sandbox.stripe.store import Json

MAX_ATTEMPTS = 40
MAX_BACKOFF_MS = 60_000
BATCH = 50
REORDER_WINDOW_MS = 400
TIMEOUT_SECONDS = 10.0


def sign(body: bytes, secret: str, timestamp: int) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over `<timestamp>.<body>`."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


class Deliverer:
    """Sends what is due, as long as `run` runs. What was not delivered is kept over a restart."""

    def __init__(self, context: Context, faults: Faults, *, first_retry_ms: int = 500) -> None:
        self._context = context
        self.faults = faults
        self._first_retry_ms = first_retry_ms
        self._wake = asyncio.Event()
        self._logger = structlog.get_logger()

    def wake(self) -> None:
        """Look for messages now."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever."""
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            while True:
                self._wake.clear()
                if self.faults.reorder or self.faults.delay_ms:
                    await asyncio.sleep(max(self.faults.delay_ms, REORDER_WINDOW_MS) * 0.001)
                rows = self._due()
                for sequence, event, endpoint, attempts in rows:
                    await self._deliver(client, sequence, event, endpoint, attempts)
                if not rows:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause_seconds()):
                            await self._wake.wait()

    def _due(self) -> list[tuple[int, str, str, int]]:
        order = "DESC" if self.faults.reorder else "ASC"
        query = (
            "SELECT seq, event, endpoint, attempts FROM deliveries "
            f"WHERE state = 'pending' AND due_ms <= ? ORDER BY seq {order} LIMIT ?"
        )
        now = self._context.machine_ms()
        return self._context.store.connection.execute(query, (now, BATCH)).fetchall()

    def _pause_seconds(self) -> float:
        query = "SELECT MIN(due_ms) FROM deliveries WHERE state = 'pending'"
        due = self._context.store.connection.execute(query).fetchone()[0]
        wait_ms = 5_000 if due is None else due - self._context.machine_ms()
        return max(20, min(wait_ms, 5_000)) * 0.001

    async def _deliver(
        self, client: httpx.AsyncClient, sequence: int, event_id: str, endpoint_id: str, attempts: int
    ) -> None:
        endpoint = self._context.store.find("webhook_endpoint", endpoint_id)
        event = self._context.store.find("event", event_id)
        if endpoint is None or event is None or (attempts == 0 and self.faults.take("drop")):
            self._finish(sequence, event, "dropped", None)
            return
        status = await self._post(client, endpoint, event)
        if status is not None and 200 <= status < 300:
            self._finish(sequence, event, "delivered", status)
            if self.faults.take("duplicate"):
                await self._post(client, endpoint, event)
        elif attempts + 1 >= MAX_ATTEMPTS:
            self._finish(sequence, event, "failed", status)
        else:
            backoff = min(self._first_retry_ms << min(attempts, 20), MAX_BACKOFF_MS)
            due = self._context.machine_ms() + backoff
            self._context.store.connection.execute(
                "UPDATE deliveries SET attempts = attempts + 1, due_ms = ?, last_status = ? WHERE seq = ?",
                (due, status, sequence),
            )

    async def _post(self, client: httpx.AsyncClient, endpoint: Json, event: Json) -> int | None:
        body = compact(public(event))
        # The signature is about transport, so it carries the real time, not the movable one.
        own = self.faults.signs_by_own_clock
        timestamp = self._context.now() if own else self._context.machine_ms() // 1000
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": sign(body, endpoint["_sandbox"]["secret"], timestamp),
        }
        try:
            response = await client.post(endpoint["url"], content=body, headers=headers)
        except httpx.HTTPError as error:
            self._logger.info("webhook_unreachable", event_type=event["type"], error=type(error).__name__)
            return None
        self._logger.info("webhook_sent", event_type=event["type"], status=response.status_code)
        return response.status_code

    def _finish(self, sequence: int, event: Json | None, state: str, status: int | None) -> None:
        self._context.store.connection.execute(
            "UPDATE deliveries SET state = ?, last_status = ? WHERE seq = ?", (state, status, sequence)
        )
        if event is not None and state == "delivered":
            event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)
            self._context.store.save(event)
