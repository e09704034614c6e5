"""The SDK's HTTP client on an httpx client of ours: deadlines, limits, and no global state."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import anyio
import httpx
import stripe


class HttpxTransport(stripe.HTTPClient):
    """What `stripe.HTTPXClient` does, with a client that is handed in."""

    name = "httpx"

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One request. Raises `stripe.APIConnectionError`."""
        try:
            response = await self._client.request(method, url, headers=headers, content=post_data)
        except httpx.HTTPError as error:
            message = f"Stripe could not be reached ({type(error).__name__})"
            raise stripe.APIConnectionError(message, should_retry=True) from error  # type: ignore[no-untyped-call]
        return response.content, response.status_code, response.headers

    def sleep_async(self, secs: float) -> Awaitable[None]:
        """Wait between two tries of the SDK."""
        return anyio.sleep(secs)

    async def close_async(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()
