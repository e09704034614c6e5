"""`/v1/mail`: which letters somebody gets. By session, and by the links in the letters themselves."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from gateway.routes.bounded import BoundedRoute
from gateway.routes.shapes import MailChoiceOut, MailOut, answers
from gateway.wiring.dependencies import Caller, MailDep, MailLinkHolder, PeopleDep, SettingsDep

router = APIRouter(route_class=BoundedRoute, prefix="/v1/mail", tags=["mail"])
LINK_PROBLEM = "mail_link_not_valid"


class MailChoiceIn(BaseModel):
    """What somebody chooses."""

    model_config = ConfigDict(strict=True, extra="forbid")
    optional: bool


@router.get("", summary="What is mailed to me", **answers(MailOut))
async def mail(caller: Caller, services: MailDep, people: PeopleDep, settings: SettingsDep) -> MailOut:
    """Whether this installation sends mail, to which address, which letters, and where to change that."""
    profile = await people.profile(caller.account_id)
    return MailOut(
        sends=settings.sends_mail,
        address=profile["email"],
        optional=await services.choices.wants_optional(caller.account_id),
        url=services.links.page(caller.account_id),
    )


@router.get("/{token}", summary="Which letters a link's account gets", **answers(MailChoiceOut, LINK_PROBLEM))
async def choice(holder: MailLinkHolder, services: MailDep) -> MailChoiceOut:
    """Whether letters that can be turned off are on."""
    return MailChoiceOut(optional=await services.choices.wants_optional(holder))


@router.put("/{token}", summary="Turn optional letters on or off", **answers(MailChoiceOut, LINK_PROBLEM))
async def choose(body: MailChoiceIn, holder: MailLinkHolder, services: MailDep) -> MailChoiceOut:
    """Receipts and reminders can be turned off. What became of a refund, and the like, is always sent."""
    await services.choices.choose(holder, optional=body.optional)
    return MailChoiceOut(optional=body.optional)


@router.post(
    "/{token}", summary="Turn optional letters off by one click", **answers(MailChoiceOut, LINK_PROBLEM)
)
async def turn_off(holder: MailLinkHolder, services: MailDep) -> MailChoiceOut:
    """What mail programs post to by themselves (RFC 8058, `List-Unsubscribe-Post`); the body is not read."""
    await services.choices.choose(holder, optional=False)
    return MailChoiceOut(optional=False)
