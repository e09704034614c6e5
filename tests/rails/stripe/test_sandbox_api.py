"""The sandbox behaves as Stripe's API does: keys, versions, idempotency, pages, expansions, restarts."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import httpx
import pytest
import stripe

from rails.stripe.calls import API_VERSION
from sandbox.stripe.forms import parse_form
from sandbox.stripe.webhooks import sign
from tests.rails.stripe.outside import KEY, CardWorld, Inbox, Sandbox

FORM = {
    "mode": "payment",
    "success_url": "https://shop.example/ok?session={CHECKOUT_SESSION_ID}",
    "cancel_url": "https://shop.example/back",
    "line_items[0][quantity]": "2",
    "line_items[0][price_data][currency]": "usd",
    "line_items[0][price_data][unit_amount]": "900",
    "line_items[0][price_data][product_data][name]": "A hat",
    "metadata[shelf]": "7",
}


async def new_session(sandbox: Sandbox, **more: Any) -> dict[str, Any]:
    response = await sandbox.api("POST", "checkout/sessions", data={**FORM, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())


# --- who may ask, and how --------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "Bearer sk_live_abcd", "Bearer sk_test_other"])
async def test_a_wrong_key_is_401_and_is_not_shown(sandbox: Sandbox, header: str) -> None:
    response = await sandbox.api("GET", "customers", headers={"Authorization": header})
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "sk_live_abcd" not in response.text


async def test_another_version_is_refused_by_name(sandbox: Sandbox) -> None:
    response = await sandbox.api("GET", "customers", headers={"Stripe-Version": "2024-06-20"})
    assert response.status_code == 400
    assert API_VERSION in response.json()["error"]["message"]


async def test_every_answer_has_a_request_id(sandbox: Sandbox) -> None:
    answers = [await sandbox.api("GET", path) for path in ("customers", "nonsense", "charges/ch_x")]
    assert [answer.status_code for answer in answers] == [200, 404, 404]
    assert len({answer.headers["request-id"] for answer in answers}) == 3


async def test_unknown_missing_and_malformed_parameters_are_named(sandbox: Sandbox) -> None:
    for change, code, param in (
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"success_url": ""}, "parameter_missing", "success_url"),
        ({"success_url": "javascript:alert(1)"}, "url_invalid", "success_url"),
        ({"expires_at": "12"}, "parameter_invalid", "expires_at"),
        ({"line_items[0][quantity]": "two"}, "parameter_invalid_integer", "line_items[0][quantity]"),
        ({"line_items[0][price_data][unit_amount]": "1"}, "amount_too_small", "line_items"),
        ({"customer": "cus_nobody"}, "resource_missing", "customer"),
    ):
        response = await sandbox.api("POST", "checkout/sessions", data={**FORM, **change})
        error = response.json()["error"]
        assert response.status_code in (400, 404)
        assert (error["code"], error["param"]) == (code, param)


async def test_a_body_that_is_no_form_is_a_400(sandbox: Sandbox) -> None:
    for body in (b"\xff\xfe", b"a[b=1", b"=&=", b"a=1&a[b]=2", b"[]=1"):
        response = await sandbox.api("POST", "customers", content=body)
        assert response.status_code == 400, body
    assert (await sandbox.api("POST", "customers", content=b"a" * 300_000)).status_code == 413


def test_nested_brackets_become_hashes_and_arrays() -> None:
    text = "a[0][b]=1&a[1][b]=2&c[]=x&c[]=y&d[e][f]=&g=%20"
    assert parse_form(text) == {
        "a": [{"b": "1"}, {"b": "2"}],
        "c": ["x", "y"],
        "d": {"e": {"f": ""}},
        "g": " ",
    }


# --- idempotency -----------------------------------------------------------------------------------


async def test_the_same_key_and_parameters_replay_the_first_answer(sandbox: Sandbox) -> None:
    headers = {"Idempotency-Key": "same"}
    first = await sandbox.api("POST", "checkout/sessions", data=FORM, headers=headers)
    await sandbox.pay(first.json()["id"])
    second = await sandbox.api("POST", "checkout/sessions", data=FORM, headers=headers)
    assert second.json() == first.json()  # as it was then: open and unpaid
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers


async def test_the_same_key_with_other_parameters_is_an_idempotency_error(sandbox: Sandbox) -> None:
    headers = {"Idempotency-Key": "other"}
    await sandbox.api("POST", "checkout/sessions", data=FORM, headers=headers)
    changed = {**FORM, "line_items[0][quantity]": "3"}
    response = await sandbox.api("POST", "checkout/sessions", data=changed, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "idempotency_error"


async def test_a_refused_request_does_not_use_up_its_key(sandbox: Sandbox) -> None:
    headers = {"Idempotency-Key": "refused"}
    bad = {**FORM, "expires_at": "1"}
    assert (await sandbox.api("POST", "checkout/sessions", data=bad, headers=headers)).status_code == 400
    assert (await sandbox.api("POST", "checkout/sessions", data=FORM, headers=headers)).status_code == 200


async def test_a_500_is_kept_under_its_key(sandbox: Sandbox, world: CardWorld) -> None:
    headers = {"Idempotency-Key": "broken"}
    await sandbox.control("faults", {"error_500": 1})
    answers = [await sandbox.api("POST", "customers", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[1].headers["stripe-should-retry"] == "false"
    assert (await sandbox.api("POST", "customers", headers={"Idempotency-Key": "new"})).status_code == 200


async def test_a_key_is_forgotten_after_a_day(sandbox: Sandbox, world: CardWorld) -> None:
    headers = {"Idempotency-Key": "day"}
    first = (await sandbox.api("POST", "customers", headers=headers)).json()["id"]
    await sandbox.control("clock", {"advance_seconds": 90_000})
    assert (await sandbox.api("POST", "customers", headers=headers)).json()["id"] != first


# --- pages and expansions --------------------------------------------------------------------------


async def test_pages_are_newest_first_and_meet_without_gap(sandbox: Sandbox) -> None:
    made = [(await sandbox.api("POST", "products", data={"name": f"p{n}"})).json()["id"] for n in range(7)]
    first = (await sandbox.api("GET", "products?limit=3")).json()
    assert first["has_more"]
    assert [entry["id"] for entry in first["data"]] == made[:3:-1]
    after = (await sandbox.api("GET", f"products?limit=3&starting_after={made[4]}")).json()
    assert [entry["id"] for entry in after["data"]] == made[3:0:-1]
    before = (await sandbox.api("GET", f"products?limit=3&ending_before={made[0]}")).json()
    assert [entry["id"] for entry in before["data"]] == made[3:0:-1]  # the page beside the cursor
    assert before["has_more"]
    newest = (await sandbox.api("GET", f"products?ending_before={made[-1]}")).json()
    assert (newest["data"], newest["has_more"]) == ([], False)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "starting_after=evt_x&ending_before=evt_y", "starting_after=evt_x", "a=1"],
)
async def test_a_page_that_cannot_be_is_refused(sandbox: Sandbox, query: str) -> None:
    assert (await sandbox.api("GET", f"events?{query}")).is_client_error


async def test_more_than_twenty_types_are_refused(sandbox: Sandbox) -> None:
    query = "&".join(f"types[{n}]=charge.updated" for n in range(21))
    assert (await sandbox.api("GET", f"events?{query}")).status_code == 400


async def test_ids_expand_along_a_path_of_at_most_four(sandbox: Sandbox) -> None:
    session = await new_session(sandbox)
    await sandbox.pay(session["id"])
    path = f"checkout/sessions/{session['id']}?expand[]=payment_intent.latest_charge.balance_transaction"
    found = (await sandbox.api("GET", f"{path}&expand[]=line_items")).json()
    charge = found["payment_intent"]["latest_charge"]
    assert charge["balance_transaction"]["net"] == 1800 - 82
    assert found["line_items"]["data"][0]["price"]["object"] == "price"
    for wrong in ("nonsense", "payment_intent.latest_charge.balance_transaction.source.more"):
        assert (
            await sandbox.api("GET", f"checkout/sessions/{session['id']}?expand[]={wrong}")
        ).status_code == 400


async def test_the_sdk_pages_and_types_what_it_is_told(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    for _ in range(12):
        await new_session(sandbox)
    page = await sdk.v1.checkout.sessions.list_async({"limit": 5})
    seen = []
    async for session in page.auto_paging_iter():
        assert isinstance(session, stripe.checkout.Session)
        seen.append(session.id)
        if len(seen) == 12:
            break
    assert len(set(seen)) == 12
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await sdk.v1.payment_intents.retrieve_async("pi_nothing")
    assert missing.value.code == "resource_missing"


# --- webhooks, time, and restarts ------------------------------------------------------------------


async def test_our_signature_is_the_one_the_sdk_makes() -> None:
    made = stripe.WebhookSignature.generate_signature_header('{"a":"é"}', "whsec_x", 1_700_000_000)
    assert sign('{"a":"é"}'.encode(), "whsec_x", 1_700_000_000) == made


async def test_an_endpoint_made_by_the_api_gets_its_own_secret_and_only_its_types(
    sandbox: Sandbox, inbox: Inbox, sdk: stripe.StripeClient
) -> None:
    url = f"http://127.0.0.1:{inbox.port}/elsewhere"
    endpoint = await sdk.v1.webhook_endpoints.create_async(
        {"url": url, "enabled_events": ["customer.created"], "api_version": "2026-10-28.endive"}
    )
    await sandbox.api("POST", "products", data={"name": "unwanted"})
    customer = (await sandbox.api("POST", "customers", data={"email": "a@example.org"})).json()
    all_ = await inbox.wait(lambda ms: sum(m.is_about("customer.created", customer["id"]) for m in ms) == 2)
    secrets = 0
    for message in all_:
        header = {name.lower(): value for name, value in message.headers.items()}["stripe-signature"]
        try:
            stripe.WebhookSignature.verify_header(message.body, header, endpoint.secret, 300)
        except stripe.SignatureVerificationError:
            continue
        secrets += 1
        assert message.event["type"] == "customer.created"
    assert secrets == 1
    listed = (await sandbox.api("GET", f"webhook_endpoints/{endpoint.id}")).json()
    assert listed["secret"] is None
    await sdk.v1.webhook_endpoints.delete_async(endpoint.id)


async def test_a_session_expires_by_itself(sandbox: Sandbox, world: CardWorld) -> None:
    session = await new_session(sandbox)
    await sandbox.control("clock", {"advance_seconds": 25 * 3600})
    found = (await sandbox.api("GET", f"checkout/sessions/{session['id']}")).json()
    assert (found["status"], found["url"]) == ("expired", None)
    again = await sandbox.api("POST", f"checkout/sessions/{session['id']}/expire")
    assert again.status_code == 400


async def test_refunds_never_exceed_the_charge(sandbox: Sandbox) -> None:
    session = await new_session(sandbox)
    intent = (await sandbox.pay(session["id"]))["payment_intent"]
    form = {"payment_intent": intent, "amount": "1000"}
    assert (await sandbox.api("POST", "refunds", data=form)).status_code == 200
    assert (await sandbox.api("POST", "refunds", data=form)).status_code == 400
    assert (await sandbox.api("POST", "refunds", data={"payment_intent": intent})).json()["amount"] == 800
    empty = await sandbox.api("POST", "refunds", data={"payment_intent": intent})
    assert empty.json()["error"]["code"] == "charge_already_refunded"


async def test_the_books_of_the_account_balance(sandbox: Sandbox) -> None:
    session = await new_session(sandbox)
    await sandbox.pay(session["id"])
    await sandbox.control("refund", {"session": session["id"], "amount": 500})
    await sandbox.control("dispute", {"session": session["id"]})
    await sandbox.control("dispute", {"session": session["id"], "status": "won"})
    entries = (await sandbox.api("GET", "balance_transactions?limit=4")).json()["data"]
    assert all(entry["net"] == entry["amount"] - entry["fee"] for entry in entries)
    assert sum(entry["amount"] for entry in entries) == 1800 - 500
    assert sum(entry["fee"] for entry in entries) == 82


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("faults", {"duplicate": "many"}),
        ("faults", {"unheard_of": 1}),
        ("clock", {}),
        ("checkout/cs_test_nothing/pay", {"outcome": "paid"}),
        ("dispute", {}),
        ("refund", {"session": "cs_test_nothing"}),
    ],
)
async def test_control_refuses_what_it_does_not_understand(
    sandbox: Sandbox, path: str, values: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, verify=False) as client:
        assert (await client.post(f"/sandbox/{path}", json=values)).is_client_error


async def test_nothing_is_lost_by_kill_9(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> None:
    sandbox = Sandbox(tmp_path_factory.mktemp("crash"), f"http://127.0.0.1:{inbox.port}/v1/hooks/card")
    await sandbox.start()
    inbox.status = 500
    refused = inbox.refused
    session = await new_session(sandbox)
    await sandbox.control("clock", {"advance_seconds": 60})
    await sandbox.pay(session["id"])
    await inbox.refusals(refused + 1)
    sandbox.stop(signal.SIGKILL)
    inbox.status = 200
    await sandbox.start()
    await inbox.message("checkout.session.completed", session["id"])
    assert (await sandbox.control("clock"))["offset_seconds"] == 60
    assert (await sandbox.control(f"checkout/{session['id']}"))["payment_status"] == "paid"
    assert await asyncio.to_thread(sandbox.stop) == 0
    assert KEY not in await sandbox.logged()
