"""What operators type about money: each write has an actor and a reason, and is done once per key."""

from __future__ import annotations

import psycopg
import pytest

from tests.cli.conftest import EMAIL, Lived, Llamasketch

WHO = ("--actor", "grace", "--reason", "a test")


def test_payments_are_listed_found_and_shown_with_their_events(
    llamasketch: Llamasketch, lived: Lived
) -> None:
    for search in ((), (lived.topup,), (lived.account,), (EMAIL,)):
        found = llamasketch("payments", "list", *search, "--json").json["payments"]
        assert [row["payment_id"] for row in found] == [lived.topup]
    assert lived.topup in llamasketch("payments", "list").text
    assert "No such payment." in llamasketch("payments", "list", "nobody@example.com").text
    shown = llamasketch("payments", "show", lived.topup, "--json").json
    assert shown["payment"]["state"] == "paid"
    assert shown["events"][0]["event"] == "rails.payment_opened.v1"
    assert f"rails.payment_opened.v1  by {lived.account}" in llamasketch("payments", "show", lived.topup).text
    assert llamasketch("payments", "show", "pay_1").code == 2


def test_a_refund_is_requested_once_per_key_with_its_actor_and_reason(
    llamasketch: Llamasketch, lived: Lived
) -> None:
    command = ("payments", "refund", lived.topup, "--credits", "30", "--by-hand", "--key", "ticket 7", *WHO)
    first, again = llamasketch(*command, "--json"), llamasketch(*command, "--json")
    assert first.code == again.code == 0, first.text
    [refund] = again.json["refunds"]
    assert (refund["credits"], refund["state"]) == (30, "requested")
    other = llamasketch(
        "payments", "refund", lived.topup, "--credits", "31", "--by-hand", "--key", "ticket 7", *WHO
    )
    assert (other.code, other.text) == (1, "This --key was used for something else.\n")
    second = llamasketch("payments", "refund", lived.topup, "--by-hand", *WHO)
    assert second.code == 1
    assert "refund_under_way" in second.text
    event = llamasketch("payments", "show", lived.topup, "--json").json["events"][-1]
    assert (event["event"], event["actor"]) == ("rails.refund_requested.v1", "operator:grace")
    assert event["data"]["reason"] == "a test"
    with psycopg.connect(lived.database) as connection:
        rows = connection.execute("SELECT refund_id, by_hand FROM rail_refunds").fetchall()
    assert rows == [(refund["id"], True)]
    sent = ("payments", "refund-sent", lived.topup, refund["id"], "--reference", "txid", *WHO)
    assert "sent" in llamasketch(*sent).text
    assert llamasketch(*sent).code == 1


def test_a_rail_that_is_not_configured_here_is_not_taken_for_one_that_cannot_send(
    llamasketch: Llamasketch, lived: Lived
) -> None:
    refused = llamasketch("payments", "refund", lived.topup, *WHO)
    assert (refused.code, "unknown_rail" in refused.text) == (1, True)


def test_a_refund_by_hand_that_cannot_be_sent_gives_the_credits_back(
    llamasketch: Llamasketch, lived: Lived
) -> None:
    [refund] = llamasketch("payments", "refund", lived.topup, "--by-hand", "--json", *WHO).json["refunds"]
    assert llamasketch("payments", "refund-failed", lived.topup, refund["id"], *WHO).code == 0
    events = llamasketch("payments", "show", lived.topup, "--json").json["events"]
    assert events[-1]["event"] == "rails.refund_rejected.v1"


def test_credits_are_adjusted_once_per_key_and_never_below_nothing(
    llamasketch: Llamasketch, lived: Lived
) -> None:
    command = ("adjust", lived.account, "--credits", "7", "--key", "gift", *WHO, "--json")
    first, again = llamasketch(*command).json, llamasketch(*command).json
    assert first == again
    taken = llamasketch("adjust", lived.account, "--credits", "-7", "--json", *WHO).json
    assert taken["available"] == first["available"] - 7
    refused = llamasketch("adjust", lived.account, "--credits", "-100000", *WHO)
    assert (refused.code, "insufficient_credits" in refused.text) == (1, True)
    assert "no_debt" in llamasketch("forgive", lived.account, "--credits", "1", *WHO).text
    unknown = llamasketch("adjust", "acct_nobody", "--credits", "7", *WHO)
    assert "account_not_found" in unknown.text


@pytest.mark.parametrize(
    "command",
    [
        ("adjust", "acct_1", "--credits", "1"),
        ("forgive", "acct_1", "--credits", "1"),
        ("operators", "add", "x"),
    ],
)
def test_nothing_is_written_without_an_actor(llamasketch: Llamasketch, command: tuple[str, ...]) -> None:
    assert llamasketch(*command).code == 2


def test_a_reason_has_words_in_it(llamasketch: Llamasketch, lived: Lived) -> None:
    command = ("adjust", lived.account, "--credits", "1", "--actor", "grace", "--reason", " ")
    assert "reason_missing" in llamasketch(*command).text


def test_where_nothing_waits_it_says_so(llamasketch: Llamasketch) -> None:
    assert "No money waits." in llamasketch("suspense", "list").text
    assert llamasketch("suspense", "list", "--json").json == {"suspended": [], "unmatched": []}
    assert "Nothing is disputed." in llamasketch("disputes", "list").text
    assert "Nobody owes anything." in llamasketch("debts", "list").text
    refused = llamasketch("suspense", "accept", "pay_" + "0" * 26, "x:1", *WHO)
    assert "payment_not_found" in refused.text


def test_people_are_let_in_as_operators_and_taken_out(llamasketch: Llamasketch, lived: Lived) -> None:
    assert "Nobody is an operator." in llamasketch("operators", "list").text
    assert llamasketch("operators", "add", EMAIL.upper(), "--actor", "grace").code == 0
    [listed] = llamasketch("operators", "list", "--json").json["operators"]
    assert (listed["account_id"], listed["email"], listed["added_by"]) == (lived.account, EMAIL, "grace")
    assert llamasketch("operators", "remove", lived.account, "--actor", "grace").code == 0
    assert llamasketch("operators", "list", "--json").json == {"operators": []}
    nobody = llamasketch("operators", "add", "nobody@example.com", "--actor", "grace")
    assert nobody.code == 1
