"""The message: its headers, its two parts, and what is no address."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mail.domain.message import ADDRESS_CHARACTERS_MAX, Sender, compose, message_id_of
from mail.domain.writing import Written
from mail.errors import NotAnAddress, TooLarge
from tests.mail.letters import MOMENT

WRITTEN = Written(
    "Receipt: $5.95 for 500 credits", "5,95 € — text\n", "<html><head></head><p>5,95 €</p></html>"
)
SENDER = Sender("LlamaSketch", "mail@llamas.art")


def composed(**changes: object) -> email.message.EmailMessage:
    asked = {"mail_id": "receipt:pay_x:3", "sender": SENDER, "to": "ada@llamas.art", "written_at": MOMENT,
             "turn_off_url": "https://llamas.art/v1/mail/x", **changes}  # fmt: skip
    written = asked.pop("written", WRITTEN)
    return compose(written, **asked)  # type: ignore[arg-type]


def test_a_message_has_what_mail_programs_look_for() -> None:
    message = email.message_from_bytes(composed().as_bytes(), policy=email.policy.default)
    assert message["From"] == "LlamaSketch <mail@llamas.art>"
    assert message["To"] == "ada@llamas.art"
    assert message["Subject"] == WRITTEN.subject
    assert message["Date"].datetime == MOMENT
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe"] == "<https://llamas.art/v1/mail/x>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message.get_content_type() == "multipart/alternative"
    kinds = [part.get_content_type() for part in message.iter_parts()]
    assert kinds == ["text/plain", "text/html"], "the best comes last"
    assert [part.get_content().strip() for part in message.iter_parts()] == [
        WRITTEN.text.strip(),
        WRITTEN.html,
    ]


def test_what_cannot_be_turned_off_offers_nothing() -> None:
    message = composed(turn_off_url=None)
    assert "List-Unsubscribe" not in message
    assert "List-Unsubscribe-Post" not in message


def test_the_same_mail_has_the_same_message_id_for_ever_and_another_has_another() -> None:
    assert composed()["Message-ID"] == composed(written_at=MOMENT.replace(year=2027))["Message-ID"]
    assert (
        message_id_of("receipt:pay_x:3", "llamas.art")
        == "<12a3a5012bd0643f380fbe629ccdbf5b7ed7047f@llamas.art>"
    )
    assert composed()["Message-ID"] != composed(mail_id="receipt:pay_x:4")["Message-ID"]
    assert "pay_x" not in composed()["Message-ID"], "it is seen by every server on the way"


@pytest.mark.parametrize(
    "address",
    ["", "ada", "ada@", "@llamas.art", "ada@localhost", "ada@llamas.art\nBcc: x@y.z", "ada@llamas.art, b@y.z",
     "Ada <ada@llamas.art>", "a b@llamas.art", "a@b@llamas.art", "x" * ADDRESS_CHARACTERS_MAX + "@llamas.art"],
)  # fmt: skip
def test_what_is_no_single_address_gets_no_mail(address: str) -> None:
    with pytest.raises(NotAnAddress):
        composed(to=address)


@given(st.text(max_size=60))
@example("[")
def test_anything_is_an_address_or_none_and_never_another_header(text: str) -> None:
    for address in (text, f"{text}@llamas.art", f"ada@{text}.art"):
        try:
            message = composed(to=address)
        except NotAnAddress:
            continue
        read = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
        assert set(read.keys()) == set(composed().keys())
        assert len(read["To"].addresses) == 1


def test_a_sender_is_one_address_with_or_without_a_name() -> None:
    assert Sender.parse("LlamaSketch <mail@llamas.art>") == SENDER
    assert Sender.parse("mail@llamas.art") == replace(SENDER, name="")
    for text in ("", "LlamaSketch", "LlamaSketch <mail>", "a@llamas.art, b@llamas.art"):
        with pytest.raises(NotAnAddress):
            Sender.parse(text)


def test_a_message_has_a_largest_size() -> None:
    with pytest.raises(TooLarge):
        composed(written=WRITTEN._replace(html="x" * 100_000))
