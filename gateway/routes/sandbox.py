"""`/sandbox/api`: what the sandbox wallet page needs. Mounted only in the embedded stack.

It pays with money that does not exist, by the control addresses of the sandboxes.
"""

from __future__ import annotations

import os
from typing import Any

import httpx
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.authentication import Caller
from gateway.problems import Problem
from gateway.services import Services
from rails.topup import TopupState

router = APIRouter(prefix="/sandbox/api", tags=["sandbox"], include_in_schema=False)
PAYABLE = frozenset({TopupState.WAITING, TopupState.UNDERPAID, TopupState.DECLINED})


class PayIn(BaseModel):
    """An invoice or a payment URI; `amount` overrides what an address asks for."""

    model_config = ConfigDict(strict=True, extra="forbid")
    text: str = Field(min_length=4, max_length=4_000)
    amount: str | None = Field(default=None, pattern=r"^[0-9]{1,12}(\.[0-9]{1,8})?$")


@router.get("/open")
async def open_topups(request: Request, caller: Caller) -> dict[str, Any]:
    """This browser's top-ups that wait for money."""
    services: Services = request.app.state.services
    found = await services.payments.topups_of(caller.account_id)
    return {"topups": [view.to_json() for view in found if view.state in PAYABLE], "balances": []}


@router.post("/pay")
async def pay(request: Request, body: PayIn, caller: Caller) -> dict[str, Any]:
    """Pay from the wallet that the text belongs to."""
    services: Services = request.app.state.services
    text = body.text.strip()
    lowered = text.lower().removeprefix("lightning:")
    if lowered.startswith("lnbc"):
        answer = await _send(services, "SANDBOX_LND_CONTROL_URL", {"bolt11": lowered})
        return {"state": answer.get("state", "paid"), "detail": "Invoice paid."}
    if (
        lowered.startswith(("liquid", "el1", "ert1", "azp", "ctl", "vjl", "lq1", "ex1"))
        or "assetid=" in lowered
    ):
        message = {"uri": text} if ":" in text else {"address": text}
        if body.amount is not None:
            message["amount"] = body.amount
        answer = await _send(services, "SANDBOX_ELEMENTS_CONTROL_URL", message)
        return {
            "state": "seen",
            "detail": f"Sent. It takes two blocks to confirm: {answer.get('txid', '')[:16]}…",
        }
    raise Problem(422, "not_payable", "This is neither an open invoice nor a payment URI of this sandbox.")


async def _send(services: Services, setting: str, message: dict[str, str]) -> dict[str, Any]:
    base = os.environ.get(setting)
    if not base:
        raise Problem(404, "no_sandbox", "This rail has no sandbox here.")
    try:
        response = await services.http.post(f"{base.rstrip('/')}/sandbox/pay", json=message, timeout=20)
    except httpx.HTTPError as error:
        raise Problem(503, "sandbox_unavailable", "The sandbox does not answer.") from error
    answer: dict[str, Any] = response.json() if response.content else {}
    if response.status_code >= 400:
        detail = str(answer.get("error") or answer.get("detail") or "The sandbox refused the payment.")
        raise Problem(422, "payment_refused", detail)
    return answer
