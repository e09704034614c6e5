"""From a letter to what is read: subject, text, and HTML of the same content.

HTML of a mail has its styles in itself, loads nothing from anywhere, and says that it has a dark side: a reader that
knows `prefers-color-scheme` shows it, others show the light one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, assert_never

import jinja2

from mail.domain.amounts import money, number, plural
from mail.domain.letters import (
    AnyLetter,
    AutoTopupOff,
    AutoTopupWaits,
    PaymentFailed,
    PlanEnds,
    Receipt,
    RefundFailed,
    RefundSent,
    RenewalAhead,
    SignInLink,
    UsageReached,
    name_of,
)

TEMPLATES = Path(__file__).resolve().parents[1].joinpath("templates")
METHODS = {"card": "card", "lightning": "Lightning", "liquid": "Liquid"}
"""What a rail is called for people; another one has its own name."""


WAITS = {
    "confirm": "Your bank wants you to confirm your automatic top-up",
    "limit": "Your automatic top-ups have reached this month's limit",
}
"""Why an automatic top-up waits, where it was not declined."""


class Written(NamedTuple):
    """What a person reads."""

    subject: str
    text: str
    html: str


class Writer:
    """Writes letters of one installation."""

    def __init__(self, public_url: str) -> None:
        """Links in letters lead to `public_url`."""
        self._public_url = public_url.rstrip("/")
        loader = jinja2.FileSystemLoader(TEMPLATES)
        options = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
        self._text = jinja2.Environment(loader=loader, autoescape=False, **options)  # type: ignore[arg-type]  # noqa: S701 - plain text
        self._html = jinja2.Environment(loader=loader, autoescape=True, **options)  # type: ignore[arg-type]
        for environment in (self._text, self._html):
            environment.filters.update(
                money=money, number=number, plural=plural, day=_day, date=_date, hour=_hour, method=_method
            )

    def write(self, letter: AnyLetter, choices_url: str | None, action_url: str | None = None) -> Written:
        """The letter as it is read. `choices_url`: where its reader can turn such letters off; `action_url`: where
        the reader is to do something."""
        name, subject = name_of(letter), _subject(letter)
        values = {
            "letter": letter,
            "site": self._public_url,
            "subject": subject,
            "choices_url": choices_url if letter.optional else None,
            "action_url": action_url,
        }
        return Written(
            subject,
            self._text.get_template(f"{name}.txt").render(values).strip() + "\n",
            self._html.get_template(f"{name}.html").render(values),
        )


def _subject(letter: AnyLetter) -> str:
    match letter:
        case Receipt(amount_minor=minor, asset=asset, credits=credits, label=label):
            return f"Receipt: {money(minor, asset)} for {label or plural(credits, 'credit')}"
        case RefundSent(amount_minor=minor, asset=asset):
            return f"Your refund of {money(minor, asset)} is on its way"
        case RefundFailed():
            return "Your refund could not be sent"
        case PaymentFailed(plan_label=label):
            return f"Your payment for {label} did not go through"
        case RenewalAhead(plan_label=label, renews_at=renews_at):
            return f"{label} renews on {_date(renews_at)}"
        case SignInLink():
            return "Your link to sign in to LlamaSketch"
        case PlanEnds(label=label):
            return f"{label} ends soon"
        case UsageReached(percent=100, plan_label=label, overage_left=left) if left:
            return f"All of your {label} images are used; what comes next is billed"
        case UsageReached(percent=percent, plan_label=label):
            return f"{percent} % of your {label} images are used"
        case AutoTopupWaits(reason=reason):
            return WAITS.get(reason, "Your automatic top-up did not go through")
        case AutoTopupOff():
            return "Automatic top-up is off"
        case _:
            assert_never(letter)


def _day(moment: datetime) -> str:
    """`29 November 2026, 16:20 UTC`."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _date(moment: datetime) -> str:
    """`29 November 2026`."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y}"


def _hour(moment: datetime) -> str:
    """`16:20 UTC`."""
    return f"{moment.astimezone(UTC):%H:%M} UTC"


def _method(rail: str) -> str:
    return METHODS.get(rail, rail)
