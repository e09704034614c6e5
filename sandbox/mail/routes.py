"""`/sandbox/mail`: leads from the product's pages to the mailbox. Mounted only in the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

Dependency = Callable[..., Awaitable[Any]]


def build_router(
    caller: Dependency, payments: Dependency, http: Dependency, refuse: Callable[[int, str, str], Exception]
) -> APIRouter:
    """The route; of what the host offers only its kind of error is used."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sandbox/mail")
    async def mailbox() -> RedirectResponse:
        """Where the try-out stack's mail is read."""
        address = os.environ.get("SANDBOX_MAIL_CONTROL_URL")
        if not address:
            raise refuse(404, "no_mailbox", "Mail goes to a real mail server here.")
        return RedirectResponse(f"{address}/", 303)

    return router
