"""The figures of what pictures cost are told in decodes, and without what a request costs anyway."""

from __future__ import annotations

from bench.pictures import MIXES, Spent, decoded, decodes, files, ratios

DECODE_MS = {"drawing": 10.0, "painting": 30.0, "painting with text": 30.0}


def spent(**cpu_ms: float) -> dict[str, Spent]:
    every = {name: Spent(20.0, 10.0) for name in MIXES}
    return every | {name.replace("_", " "): Spent(value, 12.0) for name, value in cpu_ms.items()}


def test_a_picture_costs_what_comes_on_top_of_a_request_without_one() -> None:
    found = ratios(spent(sketch=35.0, image=80.0, image_with_text=110.0), DECODE_MS, 60.0)
    assert found["sketch_ms"] == 15.0
    assert found["sketch_in_decodes"] == 1.5
    assert found["image_in_decodes"] == 2.0
    assert found["image_with_text_in_decodes"] == 3.0


def test_a_delivered_image_counts_whole() -> None:
    found = ratios(spent(image=90.0), DECODE_MS, 60.0)
    assert found["delivered_in_decodes"] == 3.0
    assert found["delivered_per_second_by_decodes_per_second"] == 0.2


def test_every_mix_sends_files_that_there_are() -> None:
    every = files()
    assert {name for mix in MIXES.values() for name in mix} == set(every)
    assert len(every["painting"]) > 1_000_000
    assert decoded(every["small"]) >= 0
    assert decodes(every["small"], 0.01) > 0
