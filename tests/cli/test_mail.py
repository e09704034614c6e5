"""`llamasketch mail`: what was parked is seen and sent again; a test message is sent now."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.cli.conftest import Lived, Llamasketch

PARKED = "receipt:pay_1:3"


@pytest.fixture
def parked(lived: Lived) -> str:
    """A database with one parked mail and one that waits."""
    with psycopg.connect(lived.database) as connection:
        for mail, state in ((PARKED, "parked"), ("receipt:pay_2:3", "waiting")):
            connection.execute(
                "INSERT INTO mail_outbox (mail_id, account_id, letter, state, due_at, caused_at, attempts, last_problem)"
                " VALUES (%s, 'acct_1', '{}', %s, now() + interval '30 days', now(), 1, 'mail_refused: … 550 5.1.1')",
                (mail, state),
            )
    return lived.database


def test_parked_mail_is_listed_with_why(llamasketch: Llamasketch, parked: str) -> None:
    (row,) = llamasketch("mail", "--json").json["parked"]
    assert (row["mail_id"], row["attempts"]) == (PARKED, 1)
    assert "550 5.1.1" in llamasketch("mail").text
    kinds = {row["kind"]: row for row in llamasketch("followups", "--json").json["followups"]}
    assert kinds["mail"]["failing"] == 2


def test_parked_mail_is_sent_again_by_its_id_or_all_of_it(llamasketch: Llamasketch, parked: str) -> None:
    assert llamasketch("mail", "again", "receipt:pay_2:3").code == 1
    done = llamasketch("mail", "again", PARKED)
    assert (done.code, done.text.split()[0]) == (0, "1")
    with psycopg.connect(parked) as connection:
        query = "SELECT state, due_at <= now(), attempts, last_problem FROM mail_outbox WHERE mail_id = %s"
        assert connection.execute(query, (PARKED,)).fetchone() == ("waiting", True, 0, None)
    done = llamasketch("mail", "again")
    assert (done.code, done.text) == (1, "No mail is parked.\n")
    assert llamasketch("mail").text == "No mail is parked.\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Stand, str]]:
    """A mail server in a thread of its own: commands run their own loops."""
    stand, port = Stand(tmp_path, product_url="", now=lambda: datetime.now(UTC)), free_port()
    begun, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def receive() -> None:
        async with stand.receiving(port, Door()):
            begun.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(receive()))
    thread.start()
    begun.wait(10)
    yield stand, f"smtp+plain://127.0.0.1:{port}"
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    loop.close()


def test_a_test_message_is_sent_and_the_servers_answer_said(
    llamasketch: Llamasketch, server: tuple[Stand, str]
) -> None:
    stand, url = server
    environment = {"LLAMASKETCH_SMTP_URL": url, "LLAMASKETCH_MAIL_FROM": "LlamaSketch <mail@llamas.art>"}
    done = llamasketch("mail", "test", "ada@llamas.art", environment=environment)
    assert done.code == 0, done.text
    (kept,) = stand.mailbox.all()
    assert kept.recipients == ["ada@llamas.art"]
    assert str(kept.parsed()["Message-ID"]) in done.text
    stand.faults.change({"unknown_recipients": 1})
    done = llamasketch("mail", "test", "eve@llamas.art", environment=environment)
    assert done.code == 1
    assert "550 5.1.1" in done.text
    done = llamasketch("mail", "test", "nobody", environment=environment)
    assert done.code == 1
    assert "not one to which mail can be sent" in done.text


def test_without_a_mail_server_a_test_says_that_mail_is_off(llamasketch: Llamasketch) -> None:
    done = llamasketch("mail", "test", "ada@llamas.art")
    assert (done.code, done.text) == (2, "Mail is off: LLAMASKETCH_SMTP_URL is not given.\n")


def test_check_config_says_that_mail_is_off(llamasketch: Llamasketch) -> None:
    assert "Off: mail: LLAMASKETCH_SMTP_URL is not given" in llamasketch("check-config").text
    environment = {
        "LLAMASKETCH_SMTP_URL": "smtp+plain://127.0.0.1",
        "LLAMASKETCH_MAIL_FROM": "mail@llamas.art",
    }
    assert llamasketch("check-config", "--json", environment=environment).json["off"] == []
