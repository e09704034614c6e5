"""A refusal is stored for ever and shown to people: which one it is, and what it says of the account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from ledger.domain import refusals as r
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import (
    AdjustCredits,
    BillOverage,
    CancelSubscription,
    CaptureHold,
    Command,
    EndSubscription,
    ExpireHold,
    ForgiveDebt,
    GrantCredits,
    HoldCredits,
    LoseDispute,
    MoveHold,
    OpenRefund,
    PayPeriod,
    ReleaseHold,
    ResolveRefund,
    RestoreReversal,
    StopEarning,
)
from ledger.domain.consideration import Worth
from ledger.domain.granting import CREDITS_MAX
from ledger.domain.lots import Source
from ledger.domain.merging import decide_merge
from ledger.domain.state import Account
from ledger.errors import Refusal
from tests.ledger.subscribing import END, PRO, START, pay, subscribed
from tests.ledger.test_reversals import reverse, spent
from tests.ledger.world import DAY, DEADLINE, HOUR, MINUTE, NOON, after, events_of, funded, grant, hold, paid

NEW: Account = ACCOUNTS.initial
MICROSECOND = timedelta(microseconds=1)


class Refused(NamedTuple):
    account: Account
    command: Command
    kind: type[Refusal]
    details: Mapping[str, Any]
    after_noon: timedelta = timedelta(0)


def bought(amount: int = 10) -> Account:
    return funded(amount, paid(amount * 10))


def in_debt() -> Account:
    return after(spent(bought(), 10), reverse(10))


def disputed() -> Account:
    return after(bought(), reverse(4, cause="dispute"))


def merged() -> Account:
    out, _ = decide_merge(bought(), NEW, "acct_guest", "acct_person", NOON)
    return after_events(bought(), out)


def after_events(account: Account, events: list[Any]) -> Account:
    for event in events:
        account = ACCOUNTS.evolve(account, event)
    return account


def holding() -> Account:
    return after(bought(), hold(4))


def take(amount: int, **more: Any) -> HoldCredits:
    return HoldCredits(hold_id="h9", job_id="j9", credits=amount, deadline=DEADLINE, **more)


def move(**more: Any) -> MoveHold:
    return MoveHold(**{"hold_id": "h1", "to_hold_id": "h2", "job_id": "j2", "deadline": DEADLINE, **more})


def adjust(amount: int, **more: Any) -> AdjustCredits:
    return AdjustCredits(
        **{
            "adjustment_id": "a1",
            "lot_id": "lot_a",
            "credits": amount,
            "actor": "operator:1",
            "reason": "goodwill",
            **more,
        }
    )


def period(start: Any, end: Any) -> PayPeriod:
    return PayPeriod(subscription_id="sub_1", plan=PRO, period_start=start, period_end=end, lot_id="lot_x")


NEGATIVE = Worth(100, 0, -1, 100)
REFUSED: dict[str, Callable[[], Refused]] = {
    "a grant of nothing": lambda: Refused(NEW, grant(0), r.InvalidAmount, {"credits": 0}),
    "a grant beyond reason": lambda: Refused(
        NEW, grant(CREDITS_MAX + 1), r.InvalidAmount, {"credits": CREDITS_MAX + 1}
    ),
    "a grant for money below zero": lambda: Refused(
        NEW,
        GrantCredits(lot_id="lot_1", credits=5, consideration=paid(10, fee=-1)),
        r.InvalidAmount,
        {"credits": 5},
    ),
    "an allowance for somebody in debt": lambda: Refused(
        in_debt(), grant(5, "lot_2", source=Source.ALLOWANCE), r.AccountInDebt, {"debt": 10}
    ),
    "a grant that is already over": lambda: Refused(
        NEW, grant(5, expires_at=NOON), r.ExpiryPassed, {"expires_at": NOON.isoformat()}
    ),
    "a lot granted twice": lambda: Refused(bought(), grant(1), r.LotAlreadyGranted, {"lot_id": "lot_1"}),
    "a lot granted again when it is used up": lambda: Refused(
        spent(bought(), 10), grant(1), r.LotAlreadyGranted, {"lot_id": "lot_1"}
    ),
    "an adjustment by nobody": lambda: Refused(NEW, adjust(5, actor=" "), r.ReasonMissing, {}),
    "an adjustment without a reason": lambda: Refused(NEW, adjust(5, reason=" "), r.ReasonMissing, {}),
    "an adjustment by nothing": lambda: Refused(NEW, adjust(0), r.InvalidAmount, {"credits": 0}),
    "taking away more than there is": lambda: Refused(
        holding(), adjust(-7), r.InsufficientCredits, {"wanted": 7, "available": 6}
    ),
    "an adjustment that is already over": lambda: Refused(
        NEW, adjust(5, expires_at=NOON), r.ExpiryPassed, {"expires_at": NOON.isoformat()}
    ),
    "an adjustment with the id of a lot": lambda: Refused(
        bought(), adjust(5, lot_id="lot_1"), r.LotAlreadyGranted, {"lot_id": "lot_1"}
    ),
    "forgiving without an actor": lambda: Refused(
        in_debt(), ForgiveDebt(credits=1, actor="", reason="x"), r.ReasonMissing, {}
    ),
    "forgiving without a reason": lambda: Refused(
        in_debt(), ForgiveDebt(credits=1, actor="operator:1", reason=""), r.ReasonMissing, {}
    ),
    "forgiving nothing": lambda: Refused(
        in_debt(), ForgiveDebt(credits=0, actor="operator:1", reason="x"), r.InvalidAmount, {"credits": 0}
    ),
    "forgiving more than is owed": lambda: Refused(
        in_debt(),
        ForgiveDebt(credits=11, actor="operator:1", reason="x"),
        r.NoDebt,
        {"debt": 10, "wanted": 11},
    ),
    "a hold of nothing": lambda: Refused(bought(), take(0), r.InvalidAmount, {"credits": 0}),
    "a hold beyond reason": lambda: Refused(
        bought(), take(CREDITS_MAX + 1), r.InvalidAmount, {"credits": CREDITS_MAX + 1}
    ),
    "a hold with the id of an open one": lambda: Refused(
        holding(), hold(1), r.HoldAlreadyOpen, {"hold_id": "h1"}
    ),
    "a hold that is already over": lambda: Refused(
        bought(), hold(1, deadline=NOON), r.DeadlinePassed, {"deadline": NOON.isoformat()}
    ),
    "a hold by somebody in debt": lambda: Refused(in_debt(), take(1), r.AccountInDebt, {"debt": 10}),
    "a hold by a guest who signed in": lambda: Refused(
        merged(), take(1), r.AccountMerged, {"into": "acct_person"}
    ),
    "a hold of more than is there": lambda: Refused(
        holding(), take(7), r.InsufficientCredits, {"wanted": 7, "available": 6}
    ),
    "a hold of more than is there and may be billed": lambda: Refused(
        bought(),
        take(13, overage_lot="lot_over", overage_limit=2),
        r.InsufficientCredits,
        {"wanted": 13, "available": 10},
    ),
    "a hold on one lot may not be billed beyond it": lambda: Refused(
        bought(),
        take(12, only_lot="lot_1", overage_lot="lot_over", overage_limit=2),
        r.InsufficientCredits,
        {"wanted": 12, "available": 10},
    ),
    "a hold without the allowance may not be billed beyond it": lambda: Refused(
        bought(),
        take(12, allowance=False, overage_lot="lot_over", overage_limit=2),
        r.InsufficientCredits,
        {"wanted": 12, "available": 10},
    ),
    "an overage without an id of its own": lambda: Refused(
        bought(), take(12, overage_limit=2), r.LotAlreadyGranted, {"lot_id": ""}
    ),
    "an overage with the id of a lot": lambda: Refused(
        bought(), take(12, overage_lot="lot_1", overage_limit=2), r.LotAlreadyGranted, {"lot_id": "lot_1"}
    ),
    "a capture of no hold": lambda: Refused(
        bought(), CaptureHold(hold_id="h1"), r.HoldNotOpen, {"hold_id": "h1"}
    ),
    "a capture at the deadline": lambda: Refused(
        holding(),
        CaptureHold(hold_id="h1"),
        r.HoldPastDeadline,
        {"hold_id": "h1", "deadline": DEADLINE.isoformat()},
        DEADLINE - NOON,
    ),
    "a capture of nothing": lambda: Refused(
        holding(), CaptureHold(hold_id="h1", credits=0), r.InvalidAmount, {"credits": 0}
    ),
    "a capture beyond reason": lambda: Refused(
        holding(),
        CaptureHold(hold_id="h1", credits=CREDITS_MAX + 1, overage_limit=CREDITS_MAX),
        r.InvalidAmount,
        {"credits": CREDITS_MAX + 1},
    ),
    "a capture beyond what was allowed": lambda: Refused(
        holding(),
        CaptureHold(hold_id="h1", credits=7, overage_limit=2),
        r.OverageNotAllowed,
        {"hold_id": "h1", "held": 4, "wanted": 7, "overage_limit": 2},
    ),
    "a capture beyond what is there": lambda: Refused(
        holding(),
        CaptureHold(hold_id="h1", credits=11, overage_limit=9),
        r.InsufficientCredits,
        {"wanted": 7, "available": 6},
    ),
    "a release of no hold": lambda: Refused(
        bought(), ReleaseHold(hold_id="h1"), r.HoldNotOpen, {"hold_id": "h1"}
    ),
    "an expiry of no hold": lambda: Refused(
        bought(), ExpireHold(hold_id="h1"), r.HoldNotOpen, {"hold_id": "h1"}
    ),
    "an expiry before the deadline": lambda: Refused(
        holding(),
        ExpireHold(hold_id="h1"),
        r.HoldNotDue,
        {"hold_id": "h1", "deadline": DEADLINE.isoformat()},
        DEADLINE - NOON - MICROSECOND,
    ),
    "moving no hold": lambda: Refused(bought(), move(), r.HoldNotOpen, {"hold_id": "h1"}),
    "moving a hold at its deadline": lambda: Refused(
        holding(),
        move(deadline=DEADLINE + MINUTE),
        r.HoldPastDeadline,
        {"hold_id": "h1", "deadline": DEADLINE.isoformat()},
        DEADLINE - NOON,
    ),
    "moving a hold to a deadline that has passed": lambda: Refused(
        holding(), move(deadline=NOON), r.DeadlinePassed, {"deadline": NOON.isoformat()}
    ),
    "moving a hold onto another": lambda: Refused(
        after(holding(), hold(1, "h2")), move(), r.HoldAlreadyOpen, {"hold_id": "h2"}
    ),
    "a refund opened twice": lambda: Refused(
        after(bought(), OpenRefund(refund_id="re_1", lot_id="lot_1", credits=1)),
        OpenRefund(refund_id="re_1", lot_id="lot_1", credits=1),
        r.RefundAlreadyOpen,
        {"refund_id": "re_1"},
    ),
    "a refund of no lot": lambda: Refused(
        bought(), OpenRefund(refund_id="re_1", lot_id="lot_2"), r.LotNotFound, {"lot_id": "lot_2"}
    ),
    "a refund of a lot that is all held": lambda: Refused(
        after(bought(), hold(10)),
        OpenRefund(refund_id="re_1", lot_id="lot_1"),
        r.LotNotFound,
        {"lot_id": "lot_1"},
    ),
    "a refund of a lot whose time is over": lambda: Refused(
        after(NEW, grant(10, money=paid(100), expires_at=NOON + HOUR)),
        OpenRefund(refund_id="re_1", lot_id="lot_1"),
        r.LotNotFound,
        {"lot_id": "lot_1"},
        HOUR,
    ),
    "a refund of what nobody paid for": lambda: Refused(
        funded(10), OpenRefund(refund_id="re_1", lot_id="lot_1"), r.LotNotRefundable, {"lot_id": "lot_1"}
    ),
    "a refund of a lot in dispute": lambda: Refused(
        disputed(),
        OpenRefund(refund_id="re_1", lot_id="lot_1"),
        r.LotDisputed,
        {"lot_id": "lot_1", "reversal_id": "rev_1"},
    ),
    "a refund of another lot of a payment in dispute": lambda: Refused(
        after(disputed(), grant(5, "lot_2", money=paid(50))),
        OpenRefund(refund_id="re_1", lot_id="lot_2"),
        r.LotDisputed,
        {"lot_id": "lot_2", "reversal_id": "rev_1"},
    ),
    "a refund of no credits": lambda: Refused(
        bought(), OpenRefund(refund_id="re_1", lot_id="lot_1", credits=0), r.InvalidAmount, {"credits": 0}
    ),
    "a refund of more credits than are left": lambda: Refused(
        holding(),
        OpenRefund(refund_id="re_1", lot_id="lot_1", credits=7),
        r.LotNotFound,
        {"lot_id": "lot_1", "left": 6, "wanted": 7},
    ),
    "a refund of no money": lambda: Refused(
        bought(),
        OpenRefund(refund_id="re_1", lot_id="lot_1", amount_minor=0),
        r.InvalidAmount,
        {"amount_minor": 0},
    ),
    "a refund of more money than was paid": lambda: Refused(
        bought(),
        OpenRefund(refund_id="re_1", lot_id="lot_1", amount_minor=101),
        r.RefundTooLarge,
        {"wanted_minor": 101, "largest_minor": 100},
    ),
    "an end of no refund": lambda: Refused(
        bought(), ResolveRefund(refund_id="re_1", outcome="sent"), r.RefundNotOpen, {"refund_id": "re_1"}
    ),
    "a reversal of less than nothing": lambda: Refused(
        bought(), reverse(-1), r.InvalidAmount, {"credits": -1}
    ),
    "a reversal beyond reason": lambda: Refused(
        bought(), reverse(CREDITS_MAX + 1), r.InvalidAmount, {"credits": CREDITS_MAX + 1}
    ),
    "a reversal of money below zero": lambda: Refused(
        bought(), replaced(reverse(5), worth=NEGATIVE), r.InvalidAmount, {"credits": 5}
    ),
    "a reversal at a guest who signed in": lambda: Refused(
        merged(), reverse(5), r.AccountMerged, {"into": "acct_person"}
    ),
    "a dispute booked twice": lambda: Refused(
        disputed(), reverse(4, cause="dispute"), r.ReversalAlreadyBooked, {"reversal_id": "rev_1"}
    ),
    "winning no dispute": lambda: Refused(
        bought(),
        RestoreReversal(reversal_id="rev_1", lot_id="lot_9"),
        r.ReversalNotFound,
        {"reversal_id": "rev_1"},
    ),
    "winning a dispute into a lot that is there": lambda: Refused(
        disputed(),
        RestoreReversal(reversal_id="rev_1", lot_id="lot_1"),
        r.LotAlreadyGranted,
        {"lot_id": "lot_1"},
    ),
    "losing no dispute": lambda: Refused(
        bought(), LoseDispute(reversal_id="rev_1"), r.ReversalNotFound, {"reversal_id": "rev_1"}
    ),
    "a period that ends when it begins": lambda: Refused(
        NEW,
        period(START, START),
        r.InvalidPeriod,
        {"period_start": START.isoformat(), "period_end": START.isoformat()},
    ),
    "a period paid twice": lambda: Refused(
        subscribed(PRO),
        pay(PRO),
        r.PeriodAlreadyGranted,
        {"subscription_id": "sub_1", "period_start": START.isoformat()},
    ),
    "cancelling another's subscription": lambda: Refused(
        subscribed(PRO),
        CancelSubscription(subscription_id="sub_2"),
        r.SubscriptionNotFound,
        {"subscription_id": "sub_2"},
    ),
    "ending a subscription twice": lambda: Refused(
        after(subscribed(PRO), EndSubscription(subscription_id="sub_1")),
        EndSubscription(subscription_id="sub_1"),
        r.SubscriptionNotFound,
        {"subscription_id": "sub_1"},
    ),
    "stopping no schedule": lambda: Refused(
        subscribed(PRO),
        StopEarning(schedule_id="lot_x", worth=Worth(1, 0, 0, 1)),
        r.ScheduleNotFound,
        {"schedule_id": "lot_x"},
    ),
    "billing more than was used beyond the allowance": lambda: Refused(
        after(bought(), take(12, overage_lot="lot_over", overage_limit=2)),
        BillOverage(credits=3, consideration=paid(30)),
        r.NothingToBill,
        {"owed": 2, "wanted": 3},
    ),
    "billing nothing": lambda: Refused(
        bought(), BillOverage(credits=0, consideration=paid(30)), r.InvalidAmount, {"credits": 0}
    ),
}


def replaced(command: Any, **more: Any) -> Any:
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    return type(command)(**{**fields, **more})


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_with_its_reason(what: str) -> None:
    account, command, kind, details, later = REFUSED[what]()
    with pytest.raises(Refusal) as refused:
        events_of(account, command, NOON + later)
    assert (type(refused.value), refused.value.details) == (kind, details)


def test_a_merge_says_which_account_it_is_about() -> None:
    def refusal(guest: Account, person: Account, guest_id: str, person_id: str) -> Refusal:
        with pytest.raises(Refusal) as refused:
            decide_merge(guest, person, guest_id, person_id, NOON)
        return refused.value

    itself = refusal(bought(), bought(), "acct_1", "acct_1")
    assert (type(itself), itself.details) == (r.AccountNotMergeable, {"account_id": "acct_1"})
    elsewhere = refusal(merged(), NEW, "acct_guest", "acct_other")
    assert (type(elsewhere), elsewhere.details) == (r.AccountMerged, {"into": "acct_person"})
    gone = refusal(bought(), merged(), "acct_new", "acct_guest")
    assert (type(gone), gone.details) == (r.AccountMerged, {"into": "acct_person"})


def test_every_refusal_of_an_account_is_tried_here() -> None:
    kinds = {kind for kind in vars(r).values() if isinstance(kind, type) and kind.__module__ == r.__name__}
    tried = {make().kind for make in REFUSED.values()}
    assert kinds == tried | {r.AccountNotMergeable}


# The largest amount that is within reason, and the last instant that is in time.


def test_the_largest_amount_is_within_reason() -> None:
    account = after(
        NEW, grant(CREDITS_MAX), hold(CREDITS_MAX), CaptureHold(hold_id="h1", credits=CREDITS_MAX)
    )
    assert account.posted(NOON) == 0


def test_a_hold_can_be_captured_until_just_before_its_deadline() -> None:
    assert events_of(holding(), CaptureHold(hold_id="h1"), DEADLINE - MICROSECOND)


def test_a_hold_can_be_expired_from_its_deadline_on() -> None:
    assert events_of(holding(), ExpireHold(hold_id="h1"), DEADLINE)


def test_as_much_as_is_owed_can_be_forgiven_and_billed() -> None:
    assert after(in_debt(), ForgiveDebt(credits=10, actor="operator:1", reason="x")).debt == 0
    over = after(bought(), take(12, overage_lot="lot_over", overage_limit=2))
    assert after(over, BillOverage(credits=2, consideration=paid(30))).status.overage_owed == 0


def test_a_period_may_begin_when_the_one_before_it_ends() -> None:
    account = after(subscribed(PRO), pay(PRO, END, END + 30 * DAY), now=END)
    assert account.status.subscription is not None
    assert account.status.subscription.period_start == END
