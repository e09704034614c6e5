"""`/v1/l402`: the token of a prepaid balance."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.shapes import TokenEndedOut, answers
from gateway.wiring.dependencies import Caller, PrepaidDep

router = APIRouter(route_class=BoundedRoute, prefix="/v1", tags=["account"])


@router.delete("/l402", summary="End an L402 token", **answers(TokenEndedOut, "l402_not_allowed"))
async def end_token(caller: Caller, prepaid: PrepaidDep) -> TokenEndedOut:
    """Ends the very token that is sent, wherever else it is: for one that somebody else may have seen.

    What is left of its balance stays with the account. Ask for another token of the same account first, if there is
    something left.
    """
    if caller.token_id is None:
        raise Problem("l402_not_allowed", "Only an L402 token can be ended here: send it.")
    await prepaid.revoke(caller.token_id)
    return TokenEndedOut(ended=True)
