"""`llamasketch verify`, `seal`, `rebuild` and `erase` on a database in which people have lived."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.cli.conftest import EMAIL, PROMPT, Lived, Llamasketch

Tamper = Callable[[str], None]


def test_a_life_is_whole(llamasketch: Llamasketch) -> None:
    reported = llamasketch("verify", "--json")
    report = reported.json
    assert report["findings"] == []
    assert (reported.code, report["ok"]) == (0, True)
    assert report["streams"] >= 6
    returned = llamasketch("verify").text
    assert "Everything is as it was recorded" in returned
    assert "Not proven" in returned


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE balances SET posted = posted + 1", "balances"),
        ("UPDATE statement_entries SET credits = credits + 1 WHERE kind = 'captured'", "statement_entries"),
        ("DELETE FROM statement_entries WHERE kind = 'captured'", "statement_entries"),
        ("DELETE FROM account_feed WHERE topic = 'topup'", "account_feed"),
        ("UPDATE stream_owners SET account_id = 'acct_other'", "stream_owners"),
    ],
)
def test_a_read_model_that_lies_is_found_and_can_be_rebuilt(
    llamasketch: Llamasketch, tamper: Tamper, change: str, table: str
) -> None:
    tamper(change)
    reported = llamasketch("verify", "--json")
    assert reported.code == 1
    assert {finding["part"] for finding in reported.json["findings"]} == {"projection"}
    assert table in reported.json["first"]["why"]
    assert llamasketch("rebuild").code == 0
    assert llamasketch("verify").code == 0


def test_the_first_wrong_event_is_named(llamasketch: Llamasketch, tamper: Tamper, lived: Lived) -> None:
    tamper(
        "UPDATE stored_events SET state = convert_to(replace(convert_from(state, 'UTF8'), "
        f"'\"captured_credits\":1', '\"captured_credits\":7'), 'UTF8') WHERE originator_id = '{lived.painted}' "
        "AND topic = 'generation.job_completed.v1'"
    )
    first = llamasketch("verify", "--json").json["first"]
    assert first["stream"] == lived.painted
    assert "7 credits were captured, the account says 1" in first["why"]
    returned = llamasketch("verify")
    assert returned.code == 1
    assert f"position {first['position']} · {lived.painted}, version {first['version']}" in returned.text


def test_a_settlement_without_its_grant_is_found(
    llamasketch: Llamasketch, tamper: Tamper, lived: Lived
) -> None:
    tamper(
        "UPDATE stored_events SET state = convert_to(regexp_replace(convert_from(state, 'UTF8'), "
        "'\"lot_id\":\"lot_.', '\"lot_id\":\"lot_z'), 'UTF8') "
        f"WHERE originator_id = '{lived.topup}' AND topic = 'rails.payment_settled.v1'"
    )
    findings = llamasketch("verify", "--json").json["findings"]
    assert any("settled without granting its lot" in finding["why"] for finding in findings)


def test_a_cut_tail_is_found_against_a_sealed_head(
    llamasketch: Llamasketch, lived: Lived, tmp_path: Path
) -> None:
    seal = tmp_path / "away" / "seal.json"
    assert llamasketch("seal", "--output", str(seal)).code == 0
    assert llamasketch("verify", "--seal", str(seal)).code == 0
    with psycopg.connect(lived.database) as connection:
        connection.execute("DELETE FROM log_batches WHERE batch = (SELECT max(batch) FROM log_batches)")
        connection.execute("DELETE FROM log_outcomes WHERE batch > (SELECT max(batch) FROM log_batches)")
        connection.execute(
            "DELETE FROM stored_events WHERE notification_id > (SELECT max(last_position) FROM log_batches)"
        )
    reported = llamasketch("verify", "--seal", str(seal), "--json")
    assert reported.code == 1
    assert any("the tail was cut off" in finding["why"] for finding in reported.json["findings"])
    seal.write_text(seal.read_text().replace('"position": ', '"position": 1'))
    reported = llamasketch("verify", "--seal", str(seal))
    assert (reported.code, "signature does not hold" in reported.text) == (2, True)


@pytest.mark.parametrize("by_email", [True, False])
def test_an_erased_person_is_gone_and_the_books_are_whole(
    llamasketch: Llamasketch, lived: Lived, by_email: bool
) -> None:
    left_by_a_worker = lived.data / "objects" / "uploads" / lived.failed / "1"
    left_by_a_worker.parent.mkdir(parents=True, exist_ok=True)
    left_by_a_worker.write_bytes(b"a picture that was never reported")
    pictures = [path for path in (lived.data / "objects").rglob("*") if path.is_file()]
    assert len([path for path in pictures if lived.painted in path.name]) == 3, "sketch, image and thumbnail"
    reported = llamasketch("erase", EMAIL if by_email else lived.account, "--yes", "--json")
    assert reported.code == 0
    counts = reported.json[lived.account]
    assert (counts["sign_ins"], counts["payment_instructions"]) == (1, 1)
    assert counts["prompts"] >= 3
    assert not any(path.exists() for path in pictures)
    assert _texts_holding(lived.database, EMAIL, PROMPT) == []
    assert llamasketch("verify").code == 0
    assert llamasketch("erase", EMAIL, "--yes").code == 1, "nobody is known by this address any more"


def test_erasing_asks_first(llamasketch: Llamasketch, lived: Lived) -> None:
    assert llamasketch("erase", EMAIL).code == 1
    assert _texts_holding(lived.database, PROMPT) != []


def _texts_holding(url: str, *words: str) -> list[str]:
    """The tables in which any of these words can still be read."""
    found = []
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for word in words:
                query = f'SELECT count(*) FROM "{table}" AS row WHERE row::text LIKE %s'
                hexed = f"%{word.encode().hex()}%"
                for pattern in (f"%{word}%", hexed):
                    if connection.execute(query.encode(), (pattern,)).fetchone() != (0,):
                        found.append(table)
    return found
