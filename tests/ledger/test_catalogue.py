"""What is for sale is data that an operator changes: read whole or refused with the place that is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ledger.catalogue import BUILT_IN, BYTES_MAX, CatalogueInvalid, load_catalogue, read_catalogue
from ledger.plans import PLANS, Pack, Plan, Promotion

FILE = """
[[plans]]
name = "gold"
label = "Gold"
price_usd_minor = 1500
year_usd_minor = 15000
period = "month"
credits = 5000
rank = 2
priority = true

[[plans]]
name = "daily"
label = "Every day"
price_usd_minor = 900
period = "day"
credits = 300
rank = 1

[[packs]]
name = "pack_50"
label = "50 images"
price_usd_minor = 60
credits = 50

[[packs]]
name = "evening"
label = "An evening"
price_usd_minor = 100
credits = 400
kind = "pass"
lasts_seconds = 10800

[[promotions]]
code = "SPRING25"
label = "Spring"
percent_off = 25
months = 3
plans = ["gold"]
redemptions_max = 100
first_purchase = true
ends_at = 2027-02-01T00:00:00Z
"""


def test_promotions_are_read_as_they_are_written() -> None:
    assert dict(read_catalogue(FILE.encode()).promotions) == {
        "SPRING25": Promotion(
            code="SPRING25",
            label="Spring",
            percent_off=25,
            months=3,
            plans=("gold",),
            redemptions_max=100,
            first_purchase=True,
            ends_at=datetime(2027, 2, 1, tzinfo=UTC),
        )
    }
    assert dict(BUILT_IN.promotions) == {}


def test_a_file_says_what_is_for_sale_and_everybody_keeps_the_free_plan() -> None:
    found = read_catalogue(FILE.encode())
    assert dict(found.plans) == {
        "free": PLANS["free"],
        "gold": Plan(
            name="gold",
            label="Gold",
            price_usd_minor=1_500,
            year_usd_minor=15_000,
            period="month",
            credits=5_000,
            rank=2,
            priority=True,
            grace_seconds=86_400,
        ),
        "daily": Plan(
            name="daily",
            label="Every day",
            price_usd_minor=900,
            period="day",
            credits=300,
            rank=1,
            grace_seconds=86_400,
        ),
    }
    assert dict(found.packs) == {
        "pack_50": Pack(name="pack_50", label="50 images", price_usd_minor=60, credits=50),
        "evening": Pack(
            name="evening",
            label="An evening",
            price_usd_minor=100,
            credits=400,
            kind="pass",
            lasts_seconds=10_800,
        ),
    }


def test_without_a_file_what_is_built_in_is_for_sale_and_could_stand_in_one(tmp_path: Path) -> None:
    assert load_catalogue("") is BUILT_IN
    lines: list[str] = []
    for table, rows in (("plans", BUILT_IN.plans), ("packs", BUILT_IN.packs)):
        for row in rows.values():
            if row.name == "free":
                continue
            lines.append(f"[[{table}]]")
            for name, value in msgspec.to_builtins(row).items():
                shown = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
                lines.append(f"{name} = {shown}")
    written = tmp_path / "catalogue.toml"
    written.write_text("\n".join(lines))
    assert load_catalogue(str(written)) == BUILT_IN


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("credits = 5000", "credits = 0", "Expected `int` >= 1 - at `$.plans[0].credits`"),
        ("credits = 5000", 'credits = "many"', "Expected `int`, got `str` - at `$.plans[0].credits`"),
        ("credits = 5000", "credits = 5e3", "Expected `int`, got `float` - at `$.plans[0].credits`"),
        (
            "price_usd_minor = 1500",
            "price_usd_minor = -1",
            "Expected `int` >= 1 - at `$.plans[0].price_usd_minor`",
        ),
        ("price_usd_minor = 1500", "", "missing required field `price_usd_minor` - at `$.plans[0]`"),
        ("priority = true", "prioritty = true", "unknown field `prioritty` - at `$.plans[0]`"),
        ('period = "month"', 'period = "week"', "Invalid enum value 'week' - at `$.plans[0].period`"),
        ('name = "gold"', 'name = "Gold!"', "at `$.plans[0].name`"),
        ('name = "gold"', 'name = "free"', "the plan free is built in and is not sold"),
        ('name = "gold"', 'name = "evening"', "the name evening is there twice"),
        ("rank = 2", "rank = 1", "two plans have the same rank"),
        (
            "rank = 2",
            "rank = 2\noverage_limit = 1",
            "gold: overage_limit and overage_usd_minor are there together",
        ),
        (
            "rank = 2",
            "rank = 2\noverage_usd_minor = 1",
            "gold: overage_limit and overage_usd_minor are there together",
        ),
        (
            'period = "month"',
            'period = "day"\noverage_limit = 1\noverage_usd_minor = 1',
            "gold: overage_limit is for a plan by the month",
        ),
        ("lasts_seconds = 10800", "", "evening: a pass has lasts_seconds, and a pack has none"),
        ('kind = "pass"', "", "evening: a pass has lasts_seconds, and a pack has none"),
        ("[[packs]]", "[[pax]]", "unknown field `pax`"),
        ("[[plans]]", "[[plans", "it is not TOML: (at line 2"),
        ("percent_off = 25", "percent_off = 100", "Expected `int` <= 90 - at `$.promotions[0].percent_off`"),
        ("percent_off = 25", "", "SPRING25: it takes off percent_off or off_usd_minor, and not both"),
        (
            "percent_off = 25",
            "percent_off = 25\noff_usd_minor = 100",
            "SPRING25: it takes off percent_off or off_usd_minor, and not both",
        ),
        ('plans = ["gold"]', 'plans = ["silver"]', "SPRING25: there is no plan silver"),
        ('code = "SPRING25"', 'code = "spring 25"', "at `$.promotions[0].code`"),
        ("2027-02-01T00:00:00Z", "2027-02-01T00:00:00", "at `$.promotions[0].ends_at`"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, says: str) -> None:
    with pytest.raises(CatalogueInvalid) as refused:
        read_catalogue(FILE.replace(old, new, 1).encode())
    assert says in str(refused.value)


def test_what_is_no_text_or_too_much_is_refused() -> None:
    for data, says in ((b"\xff", "not UTF-8"), (b"#" * (BYTES_MAX + 1), "more than")):
        with pytest.raises(CatalogueInvalid, match=says):
            read_catalogue(data)
