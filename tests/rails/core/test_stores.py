"""Both stores, behind one face; and the whole core on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from ledger.money import USD, Money
from rails.contract import Notification
from rails.domain.topup import TopupState
from rails.payments.runner import Supervision
from rails.store.port import RailStore, RetryTask, TooManyWaiting
from tests.rails.core.platform import RETURN_URL, START, Platform, notifications_waiting, on_postgres
from tests.waiting import SECONDS_MAX


@pytest.fixture
def platform(either: Platform) -> Platform:
    return either


@pytest.fixture
def store(platform: Platform) -> RailStore:
    found: RailStore = platform.store
    return found


async def opened(platform: Platform, account_id: str, **asked: object) -> str:
    topup = await platform.payments.open_topup(
        account_id,
        "fake",
        wanted=500,
        return_url=RETURN_URL,
        **asked,  # type: ignore[arg-type]
    )
    return topup.payment_id


async def test_a_payment_lives_from_opening_to_credit(platform: Platform) -> None:
    account_id = platform.ids.account()
    payment_id = await opened(platform, account_id)
    topup = await platform.payments.topup(payment_id)
    assert topup.state is TopupState.WAITING
    assert topup.created_at == platform.clock()
    assert topup.instructions is not None
    await platform.pay(payment_id)
    await platform.payments.observe(payment_id)
    await platform.network.settle()
    paid = await platform.payments.observe(payment_id)
    assert paid.state is TopupState.PAID
    assert paid.received[0].amount == Money(500, USD)
    assert await platform.posted(account_id) == 500


async def test_references_are_kept_for_ever_in_order(platform: Platform, store: RailStore) -> None:
    first, second = [await opened(platform, platform.ids.account()) for _ in range(2)]
    book = await store.all("fake")
    assert [(row.payment_id, row.ordinal) for row in book] == [(first, 1), (second, 2)]
    assert await store.all("other") == []
    reference = await platform.reference(first)
    assert await store.find("fake", reference) == first
    assert await store.find("other", reference) is None


async def test_ordinals_are_unique_also_for_those_who_come_at_once(
    platform: Platform, store: RailStore
) -> None:
    await asyncio.gather(*(opened(platform, platform.ids.account()) for _ in range(20)))
    assert [row.ordinal for row in await store.all("fake")] == list(range(1, 21))


async def test_lists_are_in_order_and_in_pages(platform: Platform, store: RailStore) -> None:
    account_id = platform.ids.account()
    made = []
    for _ in range(5):
        made.append(await opened(platform, account_id))
        platform.clock.advance(timedelta(seconds=1))
    assert [row["payment_id"] for row in await store.of_account(account_id, 3)] == made[:1:-1]
    now = platform.clock()
    first = await store.watched("fake", now, "", 3)
    rest = await store.watched("fake", now, first[-1], 3)
    assert [*first, *rest] == made
    assert await store.watched("fake", now + timedelta(days=9), "", 3) == []
    late = START + timedelta(seconds=901)
    assert await store.overdue("fake", now, "", 9) == []
    assert await store.overdue("fake", late, "", 9) == made[:2]
    assert await store.overdue("fake", late, made[0], 9) == made[1:2]
    assert await store.unpriced("fake", now, "", 9) == []


async def test_a_postponed_payment_is_left_alone_until_its_time_and_until_it_resumes(
    platform: Platform, store: RailStore
) -> None:
    account_id = platform.ids.account()
    first, second = sorted([await opened(platform, account_id) for _ in range(2)])
    now, late = platform.clock(), START + timedelta(seconds=901)
    observe, expire = RetryTask.OBSERVE, RetryTask.EXPIRE
    await store.postpone(first, observe, "fake", late, 1, "observe: RailUnavailable")
    await store.postpone(first, expire, "fake", late, 1, "expire: KeyError")
    await store.postpone(first, expire, "fake", late + timedelta(seconds=9), 2, "expire: KeyError")
    assert await store.postponed(observe, [first, second]) == {first: 1}
    assert await store.postponed(expire, [first, second]) == {first: 2}
    assert await store.postponed(expire, [second]) == {}
    assert await store.watched("fake", now, "", 9) == [second]
    assert await store.overdue("fake", late, "", 9) == [second]
    assert await store.overdue("fake", late + timedelta(seconds=9), "", 9) == [first, second]
    await store.resume(first, observe)
    assert await store.watched("fake", now, "", 9) == [first, second]
    assert await store.postponed(expire, [first]) == {first: 2}, "nobody expired it"
    await store.resume(first, expire)
    assert await store.postponed(expire, [first]) == {}


async def test_retries_of_payments_that_have_ended_are_forgotten(
    platform: Platform, store: RailStore
) -> None:
    pending, paid = [await opened(platform, platform.ids.account()) for _ in range(2)]
    now = platform.clock()
    for payment_id in (pending, paid, platform.ids.payment()):
        for task in RetryTask:
            await store.postpone(payment_id, task, "fake", now, 1, "KeyError")
    await platform.pay(paid)
    await platform.network.settle()
    assert (await platform.payments.observe(paid)).state is TopupState.PAID
    assert [await store.forget_retries(now, 2) for _ in range(3)] == [2, 1, 0]
    for task in RetryTask:
        assert await store.postponed(task, [pending, paid]) == {pending: 1}
    assert await store.forget_retries(now + timedelta(days=400), 9) == 1
    assert await store.postponed(RetryTask.EXPIRE, [pending]) == {pending: 1}, (
        "nobody watches it, but it is open"
    )


async def test_attempts_belong_together(platform: Platform, store: RailStore) -> None:
    account_id = platform.ids.account()
    first = await opened(platform, account_id)
    platform.clock.advance(timedelta(seconds=1))
    second = await opened(platform, account_id, attempt_of=first)
    assert [row["payment_id"] for row in await store.attempts(first)] == [first, second]


async def test_a_cursor_is_kept_per_rail(store: RailStore) -> None:
    assert await store.cursor("fake") is None
    for cursor in ("1", "2"):
        await store.keep_cursor("fake", cursor)
    await store.keep_cursor("other", "9")
    assert await store.cursor("fake") == "2"


async def test_a_notification_is_stored_once_per_message_and_rail(
    platform: Platform, store: RailStore
) -> None:
    now = platform.clock()
    notification = Notification(reference="r", notification_id="evt_1")
    assert await store.store_notification("fake", notification, now)
    assert not await store.store_notification("fake", notification, now)
    assert await store.store_notification("other", notification, now)
    anonymous = Notification(reference="r")
    assert await store.store_notification("fake", anonymous, now)
    assert await store.store_notification("fake", anonymous, now)
    assert await notifications_waiting(store) == 3


async def test_no_more_notifications_wait_than_may_however_many_come_at_once(
    platform: Platform, store: RailStore
) -> None:
    now, most = platform.clock(), 10
    sent = [Notification(reference="r", notification_id=f"evt_{n}") for n in range(30)]
    stored = (store.store_notification("fake", one, now, most) for one in sent)
    answers = await asyncio.gather(*stored, return_exceptions=True)
    assert answers.count(True) == most
    assert sum(isinstance(answer, TooManyWaiting) for answer in answers) == 20
    assert await notifications_waiting(store) == most
    assert await store.store_notification("other", sent[0], now, most), "each rail has its own bound"


async def test_a_notification_waits_is_postponed_closed_and_forgotten(
    platform: Platform, store: RailStore
) -> None:
    now = platform.clock()
    await store.store_notification("fake", Notification(reference="a", notification_id="1"), now)
    await store.store_notification(
        "fake", Notification(reference=None, notification_id="2"), now + timedelta(seconds=5)
    )
    assert await store.next_due_at("fake") == now
    (due,) = await store.due_notifications("fake", now, 10)
    assert (due.reference, due.attempts, due.received_at) == ("a", 0, now)
    await store.postpone_notification(due.id, now + timedelta(seconds=9), "RailUnavailable")
    (other,) = await store.due_notifications("fake", now + timedelta(seconds=5), 10)
    await store.close_notification(other.id, "done")
    (again,) = await store.due_notifications("fake", now + timedelta(seconds=9), 10)
    assert again.attempts == 1
    await store.close_notification(again.id, "unmatched")
    assert await store.next_due_at("fake") is None
    assert await store.forget_notifications(now + timedelta(seconds=6), 10) == 1
    assert await store.forget_notifications(now + timedelta(seconds=6), 10) == 0


async def test_a_forgotten_notification_is_new_when_it_comes_again(
    platform: Platform, store: RailStore
) -> None:
    now = platform.clock()
    messages = [Notification(reference="a", notification_id=f"evt_{n}") for n in range(3)]
    for message in messages:
        await store.store_notification("fake", message, now)
    for due in await store.due_notifications("fake", now, 9):
        await store.close_notification(due.id, "done")
    later = now + timedelta(seconds=1)
    assert [await store.forget_notifications(later, 2) for _ in range(3)] == [2, 1, 0]
    assert [await store.store_notification("fake", message, later) for message in messages] == [True] * 3
    assert len({due.id for due in await store.due_notifications("fake", later, 9)}) == 3


async def test_notifications_are_due_in_order_for_each_rail(platform: Platform, store: RailStore) -> None:
    now = platform.clock()
    for seconds, rail in ((9, "fake"), (3, "fake"), (1, "other")):
        await store.store_notification(
            rail, Notification(reference=f"{rail} {seconds}"), now + timedelta(seconds=seconds)
        )
    assert await store.next_due_at("fake") == now + timedelta(seconds=3)
    assert await store.next_due_at("none") is None
    due = await store.due_notifications("fake", now + timedelta(seconds=9), 9)
    assert [one.reference for one in due] == ["fake 3", "fake 9"]
    assert len(await store.due_notifications("fake", now + timedelta(seconds=9), 1)) == 1
    assert await store.due_notifications("fake", now, 9) == []
    assert await notifications_waiting(store, "other") == 1


async def test_what_waits_for_a_rate_is_listed_in_pages(platform: Platform, store: RailStore) -> None:
    made = [await opened(platform, platform.ids.account(), pay_asset="BTC") for _ in range(3)]
    platform.clock.advance(timedelta(hours=2))
    del platform.rates.prices["BTC"]
    for payment_id in made:
        await platform.pay(payment_id)
    await platform.network.settle()
    for payment_id in made:
        assert (await platform.payments.observe(payment_id)).state is TopupState.UNPRICED
    first = await store.unpriced("fake", platform.clock(), "", 2)
    assert [*first, *await store.unpriced("fake", platform.clock(), first[-1], 2)] == sorted(made)
    assert await store.unpriced("other", platform.clock(), "", 9) == []


async def test_rows_of_a_payment_are_there_from_its_opening(platform: Platform, store: RailStore) -> None:
    account_id = platform.ids.account()
    payment_id = await opened(platform, account_id)
    row, kept, place = (
        await store.payment(payment_id),
        await store.instructions(payment_id),
        await store.reference(payment_id),
    )
    assert row is not None
    assert (row["account_id"], row["rail"], row["unpaid"]) == (account_id, "fake", True)
    assert kept is not None
    assert kept.shown["kind"] == "address"
    assert (kept.return_url, kept.description) == (
        RETURN_URL.replace("{payment_id}", payment_id),
        "500 images",
    )
    assert place is not None
    assert (place.rail, place.ordinal, place.reference) == ("fake", 1, f"fake-{payment_id}")
    unknown = platform.ids.payment()
    assert await store.payment(unknown) is None
    assert await store.instructions(unknown) is None
    assert await store.reference(unknown) is None


async def test_notifications_become_credits_on_every_store(platform: Platform) -> None:
    account_id = platform.ids.account()
    payment_id = await opened(platform, account_id)
    async with Supervision(platform.payments, platform.rails, clock=platform.clock) as supervision:
        await asyncio.wait_for(supervision.runners["fake"].caught_up.wait(), SECONDS_MAX)
        await platform.pay(payment_id)
        await platform.network.settle()
        async with asyncio.timeout(SECONDS_MAX):
            while await platform.posted(account_id) == 0:
                await asyncio.sleep(0)
    assert await platform.posted(account_id) == 500


async def test_two_processes_that_hear_the_same_news_credit_once(
    make_database: Callable[..., str], rails_template: str
) -> None:
    url = make_database(rails_template)
    async with on_postgres(url) as one, on_postgres(url) as two:
        account_id = one.ids.account()
        payment_id = await opened(one, account_id)
        two.rails["fake"] = one.rails["fake"]
        await one.pay(payment_id)
        await one.network.settle()
        await asyncio.gather(*(p.payments.observe(payment_id) for p in (one, two) for _ in range(5)))
        assert await one.posted(account_id) == await two.posted(account_id) == 500
        names = [envelope.name for envelope in await one.log.events(payment_id)]
        assert names == [
            "rails.payment_opened.v1",
            "rails.instructions_issued.v1",
            "rails.payment_settled.v1",
        ]


async def test_what_one_process_has_dealt_with_no_other_sets_aside(
    platform: Platform, store: RailStore
) -> None:
    now = platform.clock()
    for name in ("done first", "set aside first"):
        await store.store_notification("fake", Notification(reference="a", notification_id=name), now)
    first, second = await store.due_notifications("fake", now, 9)
    for one, states in ((first, ("done", "unmatched")), (second, ("unmatched", "done"))):
        for state in states:
            await store.close_notification(one.id, state)
    assert await store.forget_notifications(now + timedelta(seconds=1), 9) == 2
