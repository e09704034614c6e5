"""`/sandbox/api`: what the sandbox wallet page needs. Mounted only in the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sandbox.wallet.purse import CannotPay, Purse

PAYABLE = frozenset({"waiting", "underpaid", "declined"})
Refuse = Callable[[int, str, str], Exception]
Caller = Callable[[Request], Awaitable[Any]]


class PayIn(BaseModel):
    """An invoice or a payment URI; `amount` overrides what an address asks for."""

    model_config = ConfigDict(strict=True, extra="forbid")
    text: str = Field(min_length=4, max_length=4_000)
    amount: str | None = Field(default=None, pattern=r"^[0-9]{1,12}(\.[0-9]{1,8})?$")


def build_router(caller_of: Caller, refuse: Refuse) -> APIRouter:
    """The routes; `caller_of` says who asks, `refuse` makes the gateway's kind of error."""
    router = APIRouter(prefix="/sandbox/api", include_in_schema=False)

    @router.get("/open")
    async def open_topups(request: Request) -> dict[str, Any]:
        """The caller's top-ups that wait for money."""
        caller = await caller_of(request)
        found = await request.app.state.services.payments.topups_of(caller.account_id)
        return {"topups": [view.to_json() for view in found if view.state in PAYABLE]}

    @router.post("/pay")
    async def pay(request: Request, body: PayIn) -> dict[str, str]:
        """Pay from the wallet that the text belongs to."""
        await caller_of(request)
        purse = Purse(request.app.state.services.http, os.environ)
        try:
            paid = await purse.pay(body.text, body.amount)
        except CannotPay as error:
            raise refuse(422, "payment_refused", str(error)) from error
        return {"state": paid.state, "detail": paid.detail}

    return router
