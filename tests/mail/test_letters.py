"""Letters: what is read, as text and as HTML that is whole in itself."""

from __future__ import annotations

import re
from typing import get_args

import msgspec
import pytest

from mail.domain.amounts import money, plural
from mail.domain.letters import AnyLetter, SignInLink, name_of
from mail.domain.writing import TEMPLATES, Writer
from mail.outbox import letter_of, mail_row
from tests.mail.letters import ACCOUNT, CARD, FAILED, LETTERS, LIGHTNING, MOMENT, PLAN, TAXED, TETHER, WITHIN

SITE = "https://sketch.llamas.art"
CHOICES = f"{SITE}/mail/lsm1.x"
ACTION = f"{SITE}/sign-in#sil_x.y"


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(f"{SITE}/")


@pytest.mark.parametrize(
    ("minor", "asset", "shown"),
    [
        (0, "USD", "$0.00"),
        (123_456_789, "USD", "$1,234,567.89"),
        (5_120_000, "BTC", "5,120 sats"),
        (5_120_250, "BTC", "5,120.25 sats"),
        (500_000_000, "USDT", "5.00 USDT"),
        (500_000_001, "USDT", "5.00000001 USDT"),
        (5_120, "L-BTC", "0.00005120 L-BTC"),
        (7, "XAU", "7 minor units of XAU"),
    ],
)
def test_an_amount_is_written_as_on_the_pages(minor: int, asset: str, shown: str) -> None:
    assert money(minor, asset) == shown


def test_one_is_not_many() -> None:
    assert [plural(count, "credit") for count in (0, 1, 2_000)] == ["0 credits", "1 credit", "2,000 credits"]


def test_there_is_a_sample_of_every_letter_and_two_templates_for_each() -> None:
    names = {kind.__struct_config__.tag for kind in get_args(AnyLetter)}
    assert {name_of(letter) for letter in LETTERS.values()} == names
    files = {path.name for path in TEMPLATES.glob("[a-z]*")}
    assert files == {f"{name}.{kind}" for name in names for kind in ("txt", "html")}


@pytest.mark.parametrize("name", LETTERS)
def test_a_letter_comes_back_out_of_its_row(name: str) -> None:
    row = mail_row(LETTERS[name], account_id=ACCOUNT, cause="pay_x:3", now=MOMENT)
    kept = {**row, "letter": msgspec.json.decode(msgspec.json.encode(row["letter"]))}
    assert letter_of(kept) == LETTERS[name]
    assert row["mail_id"] == f"{name_of(LETTERS[name])}:pay_x:3"


@pytest.mark.parametrize("name", LETTERS)
def test_html_loads_nothing_and_runs_nothing_and_knows_the_dark(writer: Writer, name: str) -> None:
    html = writer.write(LETTERS[name], CHOICES, ACTION).html
    assert not re.search(r"<(img|script|link|iframe|object|form|input|video|svg)\b", html)
    assert not re.search(r"\b(src|background)=|url\(|@import|@font-face|javascript:", html)
    assert "prefers-color-scheme: dark" in html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert "None" not in html
    assert len(html) < 20_000


@pytest.mark.parametrize("name", LETTERS)
def test_every_link_leads_to_us(writer: Writer, name: str) -> None:
    written = writer.write(LETTERS[name], CHOICES, ACTION)
    links = re.findall(r'href="([^"]*)"', written.html) + re.findall(r"https?://\S+", written.text)
    assert links
    assert all(link == SITE or link.startswith(f"{SITE}/") for link in links), links


@pytest.mark.parametrize("name", LETTERS)
def test_text_and_html_say_the_same_numbers_and_lines_are_short(writer: Writer, name: str) -> None:
    letter = LETTERS[name]
    written = writer.write(letter, CHOICES, ACTION)
    shown = {name: value for name, value in msgspec.to_builtins(letter).items() if isinstance(value, int)}
    wanted = "16:20 UTC" if isinstance(letter, SignInLink) else "LlamaSketch"
    if shown.get("credits"):
        wanted = plural(shown["credits"], "credit").split()[0]
    assert wanted in written.text
    assert wanted in written.html
    assert max(len(line) for line in written.text.splitlines()) <= 110
    assert "\n\n\n" not in written.text


def test_a_receipt_says_what_was_paid_in_its_asset_what_it_was_worth_and_where_it_is(writer: Writer) -> None:
    for letter, paid, worth in (
        (CARD, "$5.95", None),
        (LIGHTNING, "5,120 sats", "$4.99"),
        (TETHER, "20.00 USDT", "$19.99"),
    ):
        written = writer.write(letter, None)
        for text in (written.subject, written.text, written.html):
            assert paid in text
        assert f"{SITE}/topups/{letter.payment_id}" in written.text
        assert (worth is None) == ("orth" not in written.text)
        assert worth is None or worth in written.html
    assert "$0.95" in writer.write(CARD, None).text
    assert "Tax" not in writer.write(LIGHTNING, None).html


def test_a_receipt_shows_price_discount_net_tax_and_total(writer: Writer) -> None:
    written = writer.write(TAXED, None)
    for text in (written.text, written.html):
        for amount in ("$5.00", "−$1.00", "$4.00", "$0.80", "$4.80"):
            assert amount in text
        assert "included" not in text
    within = writer.write(WITHIN, None)
    for text in (within.text, within.html):
        for words in ("$8.00", "$6.67", "$1.33", "included"):
            assert words in text
        assert "Discount" not in text
        assert "Price" not in text


def test_a_receipt_of_a_plan_says_which_and_until_when_and_counts_no_credits_that_come_by_the_day(
    writer: Writer,
) -> None:
    written = writer.write(PLAN, None)
    assert written.subject == "Receipt: $40.00 for Unlimited"
    for text in (written.text, written.html):
        assert "29 November 2026" in text
        assert "Credits" not in text


def test_a_failed_payment_says_where_it_is_put_right_and_when_it_is_tried_again(writer: Writer) -> None:
    written = writer.write(FAILED, None, ACTION)
    assert written.subject == "Your payment for Pro did not go through"
    for text in (written.text, written.html):
        assert ACTION in text
        assert "We try again on 29 November 2026" in text
    for_good = writer.write(LETTERS["payment failed for good"], None, ACTION)
    assert "try again" not in for_good.text + for_good.html


def test_only_what_can_be_turned_off_says_where(writer: Writer) -> None:
    for letter in LETTERS.values():
        written = writer.write(letter, CHOICES, ACTION)
        assert (CHOICES in written.text, CHOICES in written.html) == (letter.optional, letter.optional)


def test_what_came_from_outside_is_text_in_html(writer: Writer) -> None:
    written = writer.write(msgspec.structs.replace(CARD, rail="<b>x</b>"), None)
    assert "&lt;b&gt;x" in written.html
    assert "<b>x" not in written.html
