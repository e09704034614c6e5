"""Subscribing over HTTP: who may, what is answered, and what bad input leaves as it was."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.commands.erase import erase_person
from gateway.routes.subscriptions import shown
from ledger.catalogue import Catalogue
from ledger.plans import Plan
from rails.recurring import Offer
from rails.subscriptions.record import opened_record
from rails.subscriptions.service import PAGES_MAX
from rails.testing.fake_subscriptions import FakeSubscriptions
from tests.gateway.stack import Gateway, credits_of, soon

PRICES = {
    Offer(plan=plan, length="month"): cents
    for plan, cents in (("starter", 800), ("pro", 2_000), ("unlimited", 4_000))
}


@pytest.fixture
def outside(gateway: Gateway) -> FakeSubscriptions:
    """The provider, with its catalogue."""
    found = gateway.fake.network.subscriptions
    found.prices = dict(PRICES)
    return found


async def subscribe(client: httpx.AsyncClient, plan: str = "starter", **headers: str) -> dict[str, Any]:
    answer = await client.post("/v1/subscriptions", json={"rail": "fake", "plan": plan}, headers=headers)
    assert answer.status_code == 201, answer.text
    opened: dict[str, Any] = answer.json()
    return opened


async def subscribed(
    gateway: Gateway, outside: FakeSubscriptions, client: httpx.AsyncClient, plan: str = "starter"
) -> dict[str, Any]:
    """Subscribe, pay, and wait for the plan."""
    opened = await subscribe(client, plan)
    await outside.pay(opened["page_url"].rpartition("/")[2])

    async def is_active() -> bool:
        return bool((await client.get(f"/v1/subscriptions/{opened['id']}")).json()["status"] == "active")

    await soon(is_active, "the subscription never began")
    found: dict[str, Any] = (await client.get(f"/v1/subscriptions/{opened['id']}")).json()
    return found


def reference(opened: dict[str, Any]) -> str:
    return f"fake-sub-{opened['id']}"


async def test_a_person_subscribes_and_the_notification_grants_the_period(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    client = await gateway.person("subscriber@example.com")
    before = (await credits_of(client))["posted"]
    opened = await subscribe(client)
    assert (opened["status"], opened["period_end"], opened["payment_due"]) == ("opening", None, None)
    assert (await credits_of(client))["posted"] == before
    found = await subscribed_after(gateway, outside, client, opened)
    assert (found["plan"], found["plan_label"], found["page_url"]) == ("starter", "Starter", None)
    account = (await client.get("/v1/account")).json()
    assert (account["plan"], account["credits"]["posted"]) == ("starter", 2_000)
    listed = (await client.get("/v1/subscriptions")).json()
    assert [each["id"] for each in listed["subscriptions"]] == [opened["id"]]
    assert "fake" in listed["rails"]
    assert "quiet" not in listed["rails"]
    entries = (await client.get("/v1/statement")).json()["entries"]
    assert any(entry["credits"] == 2_000 for entry in entries)


async def subscribed_after(
    gateway: Gateway, outside: FakeSubscriptions, client: httpx.AsyncClient, opened: dict[str, Any]
) -> dict[str, Any]:
    await outside.pay(opened["page_url"].rpartition("/")[2])

    async def is_active() -> bool:
        return bool((await client.get(f"/v1/subscriptions/{opened['id']}")).json()["status"] == "active")

    await soon(is_active, "the subscription never began")
    found: dict[str, Any] = (await client.get(f"/v1/subscriptions/{opened['id']}")).json()
    return found


async def test_a_visitor_signs_in_first(gateway: Gateway, outside: FakeSubscriptions) -> None:
    answer = await (await gateway.visitor()).post(
        "/v1/subscriptions", json={"rail": "fake", "plan": "starter"}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_needed")


async def test_the_same_key_gives_the_same_page_and_another_body_a_conflict(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    client = await gateway.person("twice@example.com")
    key = {"Idempotency-Key": "k1"}
    first = await subscribe(client, **key)
    assert await subscribe(client, **key) == first
    await subscribed_after(gateway, outside, client, first)
    again = await subscribe(client, **key)
    assert (again["id"], again["status"]) == (first["id"], "active")
    answer = await client.post("/v1/subscriptions", json={"rail": "fake", "plan": "pro"}, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


async def test_a_second_plan_is_refused_and_the_first_can_be_changed(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    client = await gateway.person("changer@example.com")
    opened = await subscribed(gateway, outside, client)
    answer = await client.post("/v1/subscriptions", json={"rail": "fake", "plan": "pro"})
    assert (answer.status_code, answer.json()["code"], answer.json()["plan"]) == (
        409,
        "subscription_exists",
        "starter",
    )
    base = f"/v1/subscriptions/{opened['id']}"
    shown = (await client.post(f"{base}/preview", json={"plan": "pro"})).json()
    assert (shown["when"], shown["due_next"]) == ("now", {"amount_minor": 2_000, "asset": "USD"})
    assert 0 < shown["due_now"]["amount_minor"] <= 1_200
    body = {"plan": "pro", "prorated_at": shown["prorated_at"]}
    changed = await client.post(f"{base}/change", json=body, headers={"Idempotency-Key": "up"})
    assert (changed.status_code, changed.json()["plan"]) == (200, "pro")
    account = (await client.get("/v1/account")).json()
    assert account["plan"] == "pro"
    assert account["credits"]["posted"] in (2_000 + shown["credits_now"], 1_999 + shown["credits_now"])
    newest = (await client.get("/v1/topups")).json()["topups"][0]
    assert newest["amount_due"] == shown["due_now"]
    down = (await client.post(f"{base}/preview", json={"plan": "starter"})).json()
    assert (down["when"], down["due_now"]["amount_minor"], down["credits_now"]) == ("period_end", 0, 0)
    later = (await client.post(f"{base}/change", json={"plan": "starter"})).json()
    assert (later["plan"], later["next_plan"]) == ("pro", "starter")
    resumed = (await client.post(f"{base}/resume")).json()
    assert resumed["next_plan"] is None


async def test_a_month_becomes_a_year_and_another_change_may_wait_for_the_period(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    outside.prices |= {Offer(plan="starter", length="year"): 8_000}
    client = await gateway.person("longer@example.com")
    opened = await subscribed(gateway, outside, client)
    base, year = f"/v1/subscriptions/{opened['id']}", {"plan": "starter", "length": "year"}
    shown = (await client.post(f"{base}/preview", json=year)).json()
    assert (shown["when"], shown["length"], shown["due_next"]["amount_minor"]) == ("now", "year", 8_000)
    changed = await client.post(f"{base}/change", json={**year, "prorated_at": shown["prorated_at"]})
    assert (changed.status_code, changed.json()["length"]) == (200, "year")
    waits = {"plan": "pro", "length": "month"}
    assert (await client.post(f"{base}/preview", json=waits)).json()["when"] == "period_end"
    later = (await client.post(f"{base}/change", json=waits)).json()
    assert (later["plan"], later["next_plan"], later["next_length"]) == ("starter", "pro", "month")


async def test_plans_of_the_owners_catalogue_have_its_labels() -> None:
    plan = Plan(name="atelier", label="Atelier", price_usd_minor=900, period="month", credits=1, rank=1)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    record = opened_record(
        "subscr_1", "acct_1", "card", Offer(plan="atelier", length="month"), now=now, page_expires_at=now
    )
    assert shown(record, Catalogue({"atelier": plan}, {})).plan_label == "Atelier"
    assert shown(record, Catalogue({}, {})).plan_label == "atelier", "it is sold no more"


async def test_cancelling_and_resuming_are_the_same_however_often(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    client = await gateway.person("leaver@example.com")
    opened = await subscribed(gateway, outside, client)
    base = f"/v1/subscriptions/{opened['id']}"
    for what, cancels in (("cancel", True), ("cancel", True), ("resume", False), ("resume", False)):
        answer = await client.post(f"{base}/{what}")
        assert (answer.status_code, answer.json()["cancels"]) == (200, cancels)
    portal = await client.post(f"{base}/portal")
    assert portal.json()["url"].startswith("https://fake.test/portal/")
    await client.post(f"{base}/cancel")
    await outside.renew(reference(opened))

    async def is_over() -> bool:
        return bool((await client.get(base)).json()["status"] == "ended")

    await soon(is_over, "the end was never noticed")
    for what in ("cancel", "resume", "portal"):
        answer = await client.post(f"{base}/{what}")
        assert (answer.status_code, answer.json()["code"]) == (409, "subscription_not_running")


async def test_a_renewal_that_fails_shows_how_to_pay_it(gateway: Gateway, outside: FakeSubscriptions) -> None:
    client = await gateway.person("overdue@example.com")
    opened = await subscribed(gateway, outside, client)
    outside.set_card(reference(opened), works=False)
    await outside.renew(reference(opened))
    base = f"/v1/subscriptions/{opened['id']}"

    async def is_due() -> bool:
        return bool((await client.get(base)).json()["status"] == "past_due")

    await soon(is_due, "the failure was never noticed")
    due = (await client.get(base)).json()["payment_due"]
    assert due["url"].startswith("https://fake.test/invoices/")
    assert due["next_attempt_at"] is not None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"plan": "nowhere"}, 422, "plan_unknown"),
        ({"plan": "free"}, 422, "plan_unknown"),
        ({"plan": "starter", "rail": "nothing"}, 404, "unknown_rail"),
        ({"plan": "starter", "rail": "quiet"}, 422, "cannot_subscribe"),
        ({"plan": "starter", "length": "day"}, 422, "invalid_request"),
        ({"plan": "starter", "length": "year"}, 409, "subscription_change_refused"),
        ({"plan": ["starter"]}, 422, "invalid_request"),
        ({"plan": "starter", "price": 1}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
    ],
)
async def test_bad_requests_to_subscribe_are_named_and_open_nothing(
    gateway: Gateway, outside: FakeSubscriptions, body: dict[str, Any], status: int, code: str
) -> None:
    client = await gateway.person(f"bad-{code}-{len(str(body))}@example.com")
    answer = await client.post("/v1/subscriptions", json={"rail": "fake", **body})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    shown = (await client.get("/v1/subscriptions")).json()["subscriptions"]
    assert [each for each in shown if each["page_url"]] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"plan": "pro"}, "preview_stale"),
        ({"plan": "pro", "prorated_at": "2020-01-01T00:00:00+00:00"}, "preview_stale"),
        ({"plan": "pro", "prorated_at": "2100-01-01T00:00:00+00:00"}, "preview_stale"),
        ({"plan": "pro", "prorated_at": "2026-01-01T00:00:00"}, "invalid_request"),
        ({"plan": "pro", "prorated_at": 5}, "invalid_request"),
        ({"plan": "starter"}, "plan_unchanged"),
        ({"plan": "starter", "length": "year"}, "preview_stale"),
        ({"plan": "pro", "at_period_end": "yes"}, "invalid_request"),
        ({"plan": "nowhere"}, "plan_unknown"),
    ],
)
async def test_bad_changes_are_named_and_change_nothing(
    gateway: Gateway, outside: FakeSubscriptions, body: dict[str, Any], code: str
) -> None:
    client = await gateway.person("unchanged@example.com")
    listed = (await client.get("/v1/subscriptions")).json()["subscriptions"]
    opened = listed[0] if listed else await subscribed(gateway, outside, client)
    base = f"/v1/subscriptions/{opened['id']}"
    before = await credits_of(client)
    answer = await client.post(f"{base}/change", json=body)
    assert answer.json()["code"] == code, answer.text
    assert 400 <= answer.status_code < 500
    assert (await credits_of(client), (await client.get(base)).json()["plan"]) == (before, "starter")


async def test_nobody_else_sees_or_changes_it(gateway: Gateway, outside: FakeSubscriptions) -> None:
    opened = await subscribed(gateway, outside, await gateway.person("owner@example.com"))
    stranger = await gateway.person("stranger@example.com")
    base = f"/v1/subscriptions/{opened['id']}"
    asked = [
        await stranger.get(base),
        await stranger.get("/v1/subscriptions/subscr_nonsense"),
        *[await stranger.post(f"{base}/{what}") for what in ("cancel", "resume", "portal")],
        *[await stranger.post(f"{base}/{what}", json={"plan": "pro"}) for what in ("preview", "change")],
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in asked} == {
        (404, "subscription_unknown")
    }


async def test_a_provider_that_is_away_changes_nothing(gateway: Gateway, outside: FakeSubscriptions) -> None:
    client = await gateway.person("outage@example.com")
    opened = await subscribed(gateway, outside, client)
    await gateway.fake.network.set_down(True)
    try:
        answer = await client.post(f"/v1/subscriptions/{opened['id']}/cancel")
        assert (answer.status_code, answer.json()["code"]) == (503, "rail_unavailable")
        assert answer.headers["retry-after"]
    finally:
        await gateway.fake.network.set_down(False)
    assert (await client.get(f"/v1/subscriptions/{opened['id']}")).json()["cancels"] is False


async def test_what_nobody_notified_is_found_by_the_sweep(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    client = await gateway.person("unnotified@example.com")
    opened = await subscribe(client)
    gateway.fake.network.notifications_per_change = 0
    try:
        await outside.pay(opened["page_url"].rpartition("/")[2])
    finally:
        gateway.fake.network.notifications_per_change = 1
    services = gateway.services.payments
    due_at = datetime.now(UTC) - timedelta(seconds=1)
    await services.subscriptions._store.look_again(opened["id"], due_at)

    async def is_active() -> bool:
        return bool((await client.get(f"/v1/subscriptions/{opened['id']}")).json()["status"] == "active")

    await soon(is_active, "the sweep never asked")
    assert (await client.get("/v1/account")).json()["plan"] == "starter"


async def test_erasing_a_person_leaves_no_link_to_their_pages(
    gateway: Gateway, outside: FakeSubscriptions
) -> None:
    client = await gateway.person("erased-subscriber@example.com")
    opened = await subscribe(client)
    account_id = (await client.get("/v1/account")).json()["id"]
    services = gateway.services
    counts = await erase_person(services.base.settings.sqlalchemy_url, services.generation.store, account_id)
    assert counts["subscription_links"] == 1
    assert (await services.payments.subscriptions.known(opened["id"])).page_url is None


async def test_many_requests_at_once_open_no_more_pages_than_may_be(
    gateway: Gateway, outside: FakeSubscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stays_open(page: str) -> None:
        """The provider does not close it."""

    monkeypatch.setattr(outside, "close", stays_open)
    client = await gateway.person("eager@example.com")
    body = {"rail": "fake", "plan": "starter"}
    answers = await asyncio.gather(*(client.post("/v1/subscriptions", json=body) for _ in range(12)))
    found = sorted((answer.status_code, answer.json().get("code")) for answer in answers)
    assert found == [(201, None)] * PAGES_MAX + [(429, "too_many_subscription_pages")] * (12 - PAGES_MAX)
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
