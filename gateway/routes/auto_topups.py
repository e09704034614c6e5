"""`/v1/auto-topup`: a pack that is bought by itself, with a saved payment method, when credits run low."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.auth.identity import Role
from gateway.http.problems import Problem
from gateway.routes.bounded import BoundedRoute
from gateway.routes.shapes import Shape, answers
from gateway.wiring.dependencies import AutoTopupsDep, Caller, CatalogueDep
from ledger.catalogue import Catalogue
from processes.auto_topups.deciding import AutoState, AutoTopup
from processes.auto_topups.service import LIMIT_MINOR_MAX, THRESHOLD_MAX, Agreement, AutoTopups

router = APIRouter(route_class=BoundedRoute, prefix="/v1/auto-topup", tags=["top-ups"])
CONSENT = (
    "I agree that LlamaSketch charges my saved card for this pack, without asking me each time, whenever I have "
    "fewer images than this left, and never more than this limit in a calendar month (UTC). Tax is added to price and "
    "limit where it is due and not within the price. I can turn it off here at any time."
)
"""What a person agrees to. Kept with the settings, word for word."""


class AutoTopupIn(BaseModel):
    """What to buy, when, and how much at most."""

    model_config = ConfigDict(strict=True, extra="forbid")
    pack: str = Field(max_length=40, description="Name of a pack in `GET /v1/plans`.")
    threshold: int = Field(
        ge=1,
        le=THRESHOLD_MAX,
        description="Bought when fewer images than these are left; less than the pack brings.",
    )
    limit_minor: int = Field(ge=1, le=LIMIT_MINOR_MAX, description="US cents: no more in a UTC month.")
    consent: Literal[True] = Field(description="That its person agrees to `consent_text`.")


class SavedCardOut(Shape):
    """What is charged."""

    label: str = Field(examples=["Visa •••• 4242"])
    expires_at: str | None


class AutoTopupOut(Shape):
    """How automatic top-up stands."""

    available: bool = Field(description="Whether a payment method that is open here can be saved.")
    state: Literal["off", "saving", "on", "charging", "waiting", "confirming", "limited"] = Field(
        description="`saving`: a card is to be saved at `page_url`; `waiting`: it was declined and is tried again; "
        "`confirming`: the bank wants its customer, see `POST /v1/auto-topup/card`; `limited`: until next month."
    )
    reason: str = Field(
        description="Why it is off: `person`, `declined`, `card_expired`, `disputed` …; or empty."
    )
    pack: str | None
    pack_label: str | None
    price_minor: int | None = Field(description="US cents for the pack, as agreed to.")
    threshold: int | None
    limit_minor: int | None
    charged_minor: int = Field(description="US cents charged in this UTC month, or being charged.")
    card: SavedCardOut | None
    page_url: str | None = Field(description="Where a card is saved, or confirmed with its bank.")
    next_attempt_at: str | None = Field(description="When it goes on by itself.")
    payment_id: str | None = Field(description="The newest charge: a top-up of `GET /v1/topups`.")
    agreed_at: str | None = Field(description="When its person agreed to it.")
    consent_text: str


PROBLEMS = ("sign_in_needed", "auto_topup_not_on", "auto_topup_changed", "rail_unavailable")


def _person(caller: Caller) -> str:
    if caller.role is Role.VISITOR:
        # Whoever loses a cookie could not turn it off.
        raise Problem("sign_in_needed")
    return caller.account_id


@router.get("", summary="How automatic top-up stands", **answers(AutoTopupOut))
async def auto_topup(caller: Caller, topups: AutoTopupsDep) -> AutoTopupOut:
    """As of now; while a card is being saved the payment method is asked."""
    return shown(topups, await topups.look(caller.account_id))


@router.post(
    "",
    summary="Turn automatic top-up on, or change it",
    **answers(AutoTopupOut, *PROBLEMS, "auto_topup_unavailable", "auto_topup_unclear"),
)
async def turn_on(
    body: AutoTopupIn, caller: Caller, topups: AutoTopupsDep, catalogue: CatalogueDep
) -> AutoTopupOut:
    """Charges nothing now. Without a saved card `page_url` leads to a page where it is saved; coming back from it
    changes nothing by itself."""
    agreement = Agreement(
        pack=body.pack,
        threshold=body.threshold,
        limit_minor=body.limit_minor,
        consent=_consent(catalogue, body),
    )
    return shown(topups, await topups.turn_on(_person(caller), agreement))


@router.post("/card", summary="Confirm the card, or save another one", **answers(AutoTopupOut, *PROBLEMS))
async def save_card(caller: Caller, topups: AutoTopupsDep) -> AutoTopupOut:
    """Gives `page_url`. Until a card is saved there everything stays as it is."""
    return shown(topups, await topups.save_card(_person(caller)))


@router.post("/off", summary="Turn automatic top-up off", **answers(AutoTopupOut, *PROBLEMS))
async def turn_off(caller: Caller, topups: AutoTopupsDep) -> AutoTopupOut:
    """Nothing is charged from now on, and the card is forgotten. A charge that is at the bank already may still go
    through, and is credited."""
    return shown(topups, await topups.turn_off(_person(caller)))


def _consent(catalogue: Catalogue, body: AutoTopupIn) -> str:
    pack = catalogue.packs.get(body.pack)
    price = 0 if pack is None else pack.price_usd_minor
    return f"{CONSENT} [pack={body.pack} price={price} threshold={body.threshold} limit={body.limit_minor}]"


def shown(topups: AutoTopups, record: AutoTopup | None) -> AutoTopupOut:
    """A record in the API's words."""
    on = record is not None and not record.is_off
    goes_on = record is not None and record.state in (AutoState.WAITING, AutoState.LIMITED)
    return AutoTopupOut.model_validate(
        {
            "available": topups.rail() is not None,
            "state": "off" if record is None else record.state.value,
            "reason": "" if record is None else record.reason,
            "pack": record.pack.name if record else None,
            "pack_label": record.pack.label if record else None,
            "price_minor": record.pack.price_usd_minor if record else None,
            "threshold": record.threshold if record else None,
            "limit_minor": record.limit_minor if record else None,
            "charged_minor": topups.charged_now(record) if record else 0,
            "card": _card(record) if on and record is not None and record.method is not None else None,
            "page_url": record.page_url if record else None,
            "next_attempt_at": record.due_at.isoformat() if goes_on and record is not None else None,
            "payment_id": record.payment_id if record else None,
            "agreed_at": record.consented_at.isoformat() if record else None,
            "consent_text": CONSENT,
        }
    )


def _card(record: AutoTopup) -> SavedCardOut:
    over = record.method_expires_at
    return SavedCardOut(label=record.method_label, expires_at=None if over is None else over.isoformat())
