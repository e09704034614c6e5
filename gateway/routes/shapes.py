"""What answers look like. Routes return these models, and the API's description is made of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.routes.breakdown_shape import BreakdownOut

PROBLEMS_FIELD = "x-problems"
"""Where an operation of the OpenAPI document names the problem codes that are its own."""


def answers(shape: type[BaseModel], *problems: str, **more: str) -> dict[str, Any]:
    """Arguments of a route decorator: the model of its answer, and the problems that are its own.

    `more` describes further statuses: `s204="Nothing to do."`. A member that was left unset is not sent.
    """
    return {
        "response_model": shape,
        "response_model_exclude_unset": True,
        "response_description": (shape.__doc__ or "").strip().splitlines()[0],
        "responses": {int(name.removeprefix("s")): {"description": text} for name, text in more.items()},
        "openapi_extra": {PROBLEMS_FIELD: list(problems)},
    }


class Shape(BaseModel):
    """Base of all answers: what is not named here is not sent."""

    model_config = ConfigDict(extra="forbid")


class ProblemOut(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: str = Field(examples=["https://llamasketch.com/problems/insufficient_credits"])
    title: str = Field(description="The code in words.", examples=["Not enough credits"])
    status: int = Field(examples=[402])
    detail: str = Field(description="One sentence for a person.")
    code: str = Field(description="Stable; what a program decides by.", examples=["insufficient_credits"])


class VisitorOut(Shape):
    """A new visitor and its token."""

    account_id: str = Field(examples=["acct_01m82kykx4v1tt72yrjpq7a4w8"])
    token: str = Field(description="The bearer token, good for 400 days. Nothing else opens this balance.")


class BalanceOut(Shape):
    """Credits, whole numbers; none is ever negative."""

    posted: int = Field(description="Owned, in hold or not.")
    held: int = Field(description="Reserved for images that are not delivered yet.")
    available: int = Field(description="`posted` − `held`.")
    debt: int = Field(description="Used credits whose payment was taken back.")


class FreeTodayOut(Shape):
    """Today's allowance."""

    left: int


class UsageOut(Shape):
    """Use of the present period's allowance."""

    period: str = Field(default="", description="A UTC day, or a paid period's start; empty: none.")
    granted: int = Field(default=0, description="Less what was refunded or made up for a debt.")
    used: int = 0
    warned_percent: int = Field(default=0, description="The last share announced.")
    overage: int = Field(default=0, description="Used beyond the allowance, and billed.")
    ends_at: str | None = Field(default=None, description="When the next period begins.")
    overage_limit: int = Field(default=0, description="So many at most; 0: it ends with the allowance.")
    overage_usd_minor: int = Field(default=0, description="US cents for each of them.")
    overage_owed: int = Field(default=0, description="Of them, not billed or not paid yet.")


class SubscriptionOut(Shape):
    """A paid plan and its present period."""

    subscription_id: str
    plan: str
    period_start: str
    period_end: str
    next_plan: str = Field(description="A smaller plan that begins after this period, or empty.")
    cancels: bool
    lasts_until: str = Field(description="The end of all that is paid, ahead too.")


class LotOut(Shape):
    """Credits granted by one cause."""

    id: str
    source: Literal[
        "allowance", "payment", "subscription", "pass", "promotion", "adjustment", "overage", "restored"
    ]
    granted: int
    left: int
    held: int
    spent: int
    granted_at: str
    expires_at: str | None
    reference: str = Field(description="What it came from: a top-up, a plan, an adjustment.")
    claimable: bool = Field(description="Today's free images, granted with the next request.")


class PersonOut(Shape):
    """Who it is, as far as we know."""

    kind: Literal["visitor", "guest", "person"]
    email: str | None


class AccountStateOut(Shape):
    """An account as of the newest event, as the stream shows it."""

    id: str
    plan: str
    plan_label: str
    priority: bool = Field(description="Whether its images go before those of other plans.")
    paid: bool = Field(description="Whether it has credits that somebody paid for.")
    credits: BalanceOut
    free_today: FreeTodayOut
    usage: UsageOut
    subscription: SubscriptionOut | None = Field(description="The one that brings the plan in force.")
    subscriptions: list[SubscriptionOut] = Field(
        description="All that are paid for now or ahead, that one too."
    )
    lots: list[LotOut]


class AccountOut(AccountStateOut):
    """An account as of the newest event."""

    role: str
    person: PersonOut


class ReferenceOut(Shape):
    """What a movement was for."""

    type: str = Field(description="`generation`, `topup`, `plan` or `adjustment`.")
    id: str


class EntryOut(Shape):
    """One movement of the balance."""

    position: int = Field(description="Its event's place in the log: the proof of it.")
    account_id: str = Field(description="Whose balance moved: yours, or a guest's that became yours.")
    at: str
    kind: str = Field(description="`granted`, `held`, `captured`, `released` and so on.")
    credits: int = Field(description="Change of what is owned; of what is available where only that moves.")
    posted_after: int
    held_after: int
    available_after: int
    reference: ReferenceOut
    description: str
    image_url: str | None
    thumbnail_url: str | None


class StatementOut(Shape):
    """A page of the statement, newest first."""

    entries: list[EntryOut]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class MoneyOut(Shape):
    """Money in minor units of its asset."""

    amount_minor: int
    asset: str = Field(examples=["BTC"])


class RailAssetOut(Shape):
    """An asset that can be paid with."""

    asset: str
    scale: int = Field(description="Decimal places: `amount_minor` is 10^-scale of one unit.")
    minimum_minor: int
    maximum_minor: int
    open: bool


class RailOut(Shape):
    """A payment method."""

    name: str = Field(examples=["lightning"])
    label: str
    assets: list[RailAssetOut]
    open: bool
    reason: str | None = Field(description="Why it is closed.")
    quote_seconds: int = Field(description="How long a quote stands.")
    tax_on_top: bool = Field(description="Tax is added to what is asked, where it is due.")


class OfferOut(Shape):
    """A round amount to offer."""

    credits: int
    usd_minor: int


class RailsOut(Shape):
    """Payment methods, and round amounts to offer."""

    rails: list[RailOut]
    packs: list[OfferOut]


class FundsReceiptOut(MoneyOut):
    """A funds receipt that came, or is on its way."""

    state: str = Field(
        description="`seen`, `held`, `settled`, `reversed`, `disputed`, `mismatched`, `too_small` …"
    )
    reference: str = Field(description="The money's own name, such as the payment hash.")
    confirmations: int | None = Field(
        default=None,
        description="Sent of money on its way into a chain: how many blocks confirm it by now.",
    )
    breakdown: BreakdownOut | None = Field(default=None, description="Sent if a discount or tax is in it.")


class RateOut(Shape):
    """Minor units of `to` for one of `from`: numerator over denominator, exact."""

    numerator: str
    denominator: str
    from_: str = Field(alias="from")
    to: str


class QuoteOut(Shape):
    """The price that was promised."""

    rate: RateOut
    source: str
    expires_at: str
    expired: bool


class InstructionsOut(BaseModel):
    """How to pay, without knowing the rail. Each rail adds fields of its own (`bolt11`, `address` …)."""

    model_config = ConfigDict(extra="allow")
    kind: Literal["redirect", "invoice", "address", "charge"] = Field(
        description="Open `url`; or show `uri` as a QR code and offer `text` to copy; or nothing: a saved card is charged."
    )
    uri: str | None = None
    text: str | None = None
    url: str | None = None


class RefundOut(MoneyOut):
    """A refund of a top-up, or of a part of it."""

    id: str
    state: Literal["requested", "sent", "failed", "returned"] = Field(
        description="`returned`: it had been sent and came back; its credits are here again."
    )
    credits: int = Field(description="Unspent credits that go with it.")
    requested_at: str
    by_hand: bool = Field(description="A person sends it.")


class BuysOut(Shape):
    """What a top-up is for, at the price that it was opened with."""

    kind: Literal["pack", "pass", "plan"]
    name: str
    label: str
    price_usd_minor: int
    months: int | None = Field(description="Of a plan's period.")
    lasts_seconds: int | None = Field(description="Of a pass, from its payment on.")
    granted: int = Field(description="How often it was granted: 0 until its price is there.")
    rest_awaited_until: str | None = Field(
        description="Money that falls short waits for the rest until then, and becomes credits."
    )


class TopupOut(Shape):
    """A top-up and where it stands."""

    id: str
    rail: str
    state: Literal[
        "opening",
        "waiting",
        "seen",
        "underpaid",
        "paid",
        "expired",
        "declined",
        "suspense",
        "unpriced",
        "reversed",
        "disputed",
    ]
    credits: int = Field(description="Asked for.")
    amount_due: MoneyOut
    amount_missing: MoneyOut
    received: list[FundsReceiptOut]
    credited: int = Field(description="Granted and not taken back.")
    quote: QuoteOut
    instructions: InstructionsOut | None = Field(description="Null while the rail is being asked.")
    attempt_of: str | None
    created_at: str
    generation_id: str | None = Field(
        default=None, description="Sent if it pays for one image alone: that image."
    )
    purchase: BuysOut | None = Field(
        default=None, description="Sent if it is for a pack, a pass or a plan, and not for plain credits."
    )
    decline_code: str | None = Field(default=None, description="Why a payment was refused, if one was.")
    recovery_code: str | None = Field(
        default=None, description="When a guest opens a top-up: opens this balance elsewhere."
    )
    refunds: list[RefundOut] = Field(default=[], description="Oldest first; left out if there are none.")


class RefundOfferOut(MoneyOut):
    """Unspent credits of a top-up, and what is sent back for them."""

    lot_id: str
    credits: int
    until: str = Field(description="Till when this can be asked for.")


class RefundOffersOut(Shape):
    """What of a top-up can be refunded on request now."""

    days: int = Field(description="For how many days after it was credited; 0: not on request.")
    to: Literal["origin", "invoice", "address"] | None = Field(
        description="Where it goes: `origin` needs no `destination`, the others do. Null: only by an operator."
    )
    offers: list[RefundOfferOut]


class TopupLinkOut(Shape):
    """What a link to top up an account is for."""

    account: str = Field(description="The last signs of the account's id.", examples=["7q2m"])
    needed_credits: int = Field(description="For what was refused when the link was made.")
    missing_credits: int = Field(description="How many of them the account lacks now; 0 when it has enough.")
    expires_at: str = Field(description="When the link ends.")


class SignInLinkOut(Shape):
    """A link is on its way."""

    lasts_seconds: int = Field(description="For so long it can be used, once.")


class SignInLinkForOut(Shape):
    """Whom a mailed link would sign in."""

    email: str


class MailOut(Shape):
    """What is mailed to the caller."""

    sends: bool = Field(description="Whether this installation sends mail.")
    address: str | None = Field(description="Where to; null for who has not signed in.")
    optional: bool = Field(description="Whether letters that can be turned off are on: receipts, reminders.")
    url: str = Field(
        description="The page on which that is changed. Whoever has it can change that, and nothing else."
    )


class MailChoiceOut(Shape):
    """Which letters an account gets."""

    optional: bool = Field(description="Whether letters that can be turned off are on.")


class TopupsOut(Shape):
    """The newest fifty top-ups."""

    topups: list[TopupOut]


class StoredOut(Shape):
    """How many notifications were new."""

    stored: int


class SessionOut(Shape):
    """Who the caller is, and where to sign in."""

    kind: Literal["visitor", "guest", "person"]
    email: str | None
    sign_in: str = Field(
        description="The address of the issuer; `link`: by a mailed link; `embedded`: by anybody's word."
    )
    mails_links: bool = Field(description="Whether `POST /v1/session/links` mails links to sign in.")


class MergedOut(Shape):
    """Credits that moved."""

    credits: int


class LiveSessionOut(Shape):
    """A live sketch session."""

    id: str
    paused: bool = Field(description="Whether it takes nothing that costs more.")
    paused_by: Literal["person", "spend_cap"] | None = Field(
        description="`spend_cap`: its limit is spent; what was accepted before is still painted."
    )
    cap_credits: int | None = Field(description="Your own spending limit.")
    limit_credits: int = Field(description="The smaller one of yours and ours.")
    spent_credits: int = Field(description="Charged, or held for what waits or is being painted.")
    variations: int


class SignedInOut(Shape):
    """A session; `merged` says what the guest brought along."""

    kind: Literal["visitor", "guest", "person"]
    email: str | None
    merged: MergedOut


class TokenEndedOut(Shape):
    """An L402 token that counts no more."""

    ended: bool


class SignedOutOut(Shape):
    """What is left after signing out."""

    kind: str


class SignedOutEverywhereOut(Shape):
    """What is left after signing out everywhere."""

    kind: str
    token: str | None = Field(
        default=None, description="A visitor's new bearer token: the only one that counts."
    )


class RecoveredOut(Shape):
    """The balance that was opened."""

    merged: MergedOut
    brought: int | None = Field(default=None, description="Credits of this browser's own visitor.")
    token: str | None = Field(default=None, description="The guest's bearer token.")
