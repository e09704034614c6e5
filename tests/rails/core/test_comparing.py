"""Where the outside and our payments differ: every way, one by one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ledger.money import USD, USDT, Money
from rails.domain.comparing import Difference, OurMoney, Part, Reason, compare, compare_balance
from rails.movements import Movement, MovementKind

AT = datetime(2026, 1, 1, tzinfo=UTC)
K = MovementKind


def moved(kind: K, minor: int, fee: int = 0, money: str | None = "x:1", parts: int | None = None) -> Movement:
    return Movement(
        movement_ref=f"m{kind}{minor}",
        kind=kind,
        amount=Money(minor, USD),
        fee=Money(fee, USD),
        money_ref=money,
        occurred_at=AT,
        consists_of=None if parts is None else Money(parts, USD),
    )


def ours(received: int = 500, taken_back: int = 0, fee: int = 0, costs: int = 0) -> OurMoney:
    return OurMoney(
        money_ref="x:1",
        payment_id="pay_1",
        asset=USD,
        received=received,
        taken_back=taken_back,
        fee=fee,
        costs=costs,
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (ours(), [moved(K.RECEIVED, 500)], []),
        (ours(fee=45), [moved(K.RECEIVED, 500, 45)], []),
        (ours(taken_back=500), [moved(K.RECEIVED, 500), moved(K.TAKEN_BACK, -500)], []),
        (ours(), [moved(K.RECEIVED, 500), moved(K.TAKEN_BACK, -500), moved(K.TAKEN_BACK, 500)], []),
        (ours(costs=1500), [moved(K.RECEIVED, 500), moved(K.TAKEN_BACK, 0, 1500)], []),
        (ours(), [], [(Part.RECEIVED, Reason.MISSING_THERE, 500, None)]),
        (ours(received=0), [], []),
        (None, [moved(K.RECEIVED, 500)], [(Part.RECEIVED, Reason.MISSING_HERE, None, 500)]),
        (None, [moved(K.TAKEN_BACK, -5)], [(Part.TAKEN_BACK, Reason.MISSING_HERE, None, -5)]),
        (None, [moved(K.OTHER, 7, money=None)], [(Part.RECEIVED, Reason.MISSING_HERE, None, 7)]),
        (None, [moved(K.COST, -7, money=None)], []),
        (ours(), [moved(K.RECEIVED, 499)], [(Part.RECEIVED, Reason.AMOUNT_DIFFERS, 500, 499)]),
        (
            ours(),
            [moved(K.RECEIVED, 500), moved(K.TAKEN_BACK, -200)],
            [(Part.TAKEN_BACK, Reason.AMOUNT_DIFFERS, 0, 200)],
        ),
        (ours(fee=44), [moved(K.RECEIVED, 500, 45)], [(Part.FEE, Reason.FEE_DIFFERS, 44, 45)]),
        (
            ours(taken_back=500),
            [moved(K.RECEIVED, 500), moved(K.TAKEN_BACK, -500, 1500)],
            [(Part.COSTS, Reason.FEE_DIFFERS, 0, 1500)],
        ),
        (None, [moved(K.PAID_OUT, -900, money=None, parts=900)], []),
        (None, [moved(K.PAID_OUT, -900, money=None)], []),
        (
            None,
            [moved(K.PAID_OUT, -900, money=None, parts=899)],
            [(Part.PAID_OUT, Reason.AMOUNT_DIFFERS, 899, 900)],
        ),
    ],
)
def test_what_differs_is_named_with_both_sides(
    mine: OurMoney | None, theirs: list[Movement], expected: list[tuple[Part, Reason, int | None, int | None]]
) -> None:
    found = compare("x:1", mine, theirs)
    assert [(each.part, each.reason, each.ours, each.theirs) for each in found] == expected


def test_another_currency_is_its_own_reason() -> None:
    other = Movement(
        movement_ref="m", kind=K.RECEIVED, amount=Money(500, USDT), money_ref="x:1", occurred_at=AT
    )
    [found] = compare("x:1", ours(), [other])
    assert (found.reason, found.asset, found.theirs) == (Reason.CURRENCY_DIFFERS, USDT, 500)


def test_a_balance_is_what_was_there_and_everything_that_moved() -> None:
    assert compare_balance("card", {"USD": 100}, {USD: 400}, [Money(500, USD)]) == []
    assert compare_balance("card", {}, {}, [Money(0, USD)]) == []
    [found] = compare_balance("card", {"USD": 100}, {USD: 400}, [Money(501, USD)])
    assert found == Difference(
        subject="card:USD",
        part=Part.BALANCE,
        reason=Reason.AMOUNT_DIFFERS,
        asset=USD,
        ours=500,
        theirs=501,
    )
    [unnamed] = compare_balance("card", {"USD": 100, "EUR": 70}, {}, [Money(100, USD)])
    assert (unnamed.subject, unnamed.asset.scale, unnamed.ours, unnamed.theirs) == ("card:EUR", 2, 70, 0)
    assert compare_balance("card", {"EUR": 0}, {}, []) == []
    [gone] = compare_balance("card", {}, {USD: 400}, [])
    assert (gone.ours, gone.theirs) == (400, 0)
