"""`/sandbox/api`: what the sandbox wallet page needs. Mounted only in the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from sandbox.wallet.paying import CannotPay, Wallet

PAYABLE = frozenset({"waiting", "underpaid", "declined"})
Refuse = Callable[[int, str, str], Exception]
Dependency = Callable[..., Awaitable[Any]]


class PayIn(BaseModel):
    """An invoice or a payment URI; `amount` overrides what an address asks for."""

    model_config = ConfigDict(strict=True, extra="forbid")
    text: str = Field(min_length=4, max_length=4_000)
    amount: str | None = Field(default=None, pattern=r"^[0-9]{1,12}(\.[0-9]{1,8})?$")


def build_router(caller: Dependency, payments: Dependency, http: Dependency, refuse: Refuse) -> APIRouter:
    """The routes, on the host's dependencies: who asks, the payments, an HTTP client. `refuse` makes the host's
    kind of error."""
    router = APIRouter(prefix="/sandbox/api", include_in_schema=False)

    @router.get("/open")
    async def open_topups(
        asking: Any = Depends(caller), paying: Any = Depends(payments), client: Any = Depends(http)
    ) -> dict[str, Any]:
        """The caller's top-ups that wait for money, and where refunds may go."""
        found = await paying.topups_of(asking.account_id)
        return {
            "topups": [view.to_json() for view in found if view.state in PAYABLE],
            "lightning_address": Wallet(client, os.environ).lightning_address,
        }

    @router.post("/pay", dependencies=[Depends(caller)])
    async def pay(body: PayIn, client: Any = Depends(http)) -> dict[str, str]:
        """Pay from the wallet that the text belongs to."""
        wallet = Wallet(client, os.environ)
        try:
            paid = await wallet.pay(body.text, body.amount)
        except CannotPay as error:
            raise refuse(422, "payment_refused", str(error)) from error
        return {"state": paid.state, "detail": paid.detail}

    return router
