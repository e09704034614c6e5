"""Pays an invoice or a payment URI from the wallet of the stand-in that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

_INVOICE = "lnbc"
_CHAIN_PREFIXES = ("liquid", "el1", "ert1", "lq1", "ex1", "tlq1", "tex1", "ctl", "cte", "azp", "vjl", "vtp")


class CannotPay(Exception):
    """The sandbox does not take this payment; the message says why."""


class Paid(NamedTuple):
    """What became of it."""

    state: str
    detail: str


class Wallet:
    """All wallets of the sandbox behind one `pay`."""

    def __init__(self, http: httpx.AsyncClient, environ: Mapping[str, str]) -> None:
        self._http = http
        self._environ = environ

    async def pay(self, text: str, amount: str | None = None) -> Paid:
        """Pay. `amount` is a plain decimal that overrides what an address asks for. Raises `CannotPay`."""
        text = text.strip()
        bare = text.lower().removeprefix("lightning:")
        if bare.startswith(_INVOICE):
            answer = await self._send("SANDBOX_LND_CONTROL_URL", {"bolt11": bare})
            held = answer.get("state") == "held"
            return Paid(
                answer.get("state", "paid"), "Locked until the image is there." if held else "Invoice paid."
            )
        if bare.startswith(_CHAIN_PREFIXES):
            message = {"uri" if ":" in text else "address": text}
            if amount is not None:
                message["amount"] = amount
            answer = await self._send("SANDBOX_ELEMENTS_CONTROL_URL", message)
            shown = answer.get("txid", "")[:16]
            return Paid("seen", f"Sent as {shown}…: it counts after two blocks, in about four seconds.")
        raise CannotPay("This is neither an open invoice nor a payment URI of this sandbox.")

    @property
    def lightning_address(self) -> str | None:
        """Where this wallet is paid, as a refund is; None where no stand-in serves it."""
        base = self._environ.get("SANDBOX_LND_CONTROL_URL")
        return f"wallet@{urlsplit(base).netloc}" if base else None

    async def _send(self, setting: str, message: Mapping[str, str]) -> dict[str, str]:
        base = self._environ.get(setting)
        if not base:
            raise CannotPay("Payment requests of this kind are not served by a sandbox here.")
        try:
            response = await self._http.post(f"{base.rstrip('/')}/sandbox/pay", json=message, timeout=20)
        except httpx.HTTPError as error:
            raise CannotPay("The sandbox does not answer. Try again in a moment.") from error
        answer: dict[str, str] = response.json() if response.content else {}
        if response.status_code >= 400:
            reason = answer.get("error") or answer.get("detail") or "The sandbox refused the payment."
            raise CannotPay(str(reason))
        return answer
