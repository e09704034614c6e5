"""An operator's file of plans and packs, with anything in it."""

from __future__ import annotations

import contextlib

from hypothesis import strategies as st

from ledger.catalogue import CatalogueInvalid, read_catalogue
from tests.fuzz.fuzzing import fuzzed
from tests.ledger.test_catalogue import FILE

LINES = FILE.splitlines()
PIECES = st.one_of(
    st.sampled_from(LINES), st.text(max_size=30), st.sampled_from(["credits = -1", "[plans]", "x = [[["])
)


@fuzzed(pieces=st.lists(PIECES, max_size=12), noise=st.binary(max_size=20))
def test_a_catalogue_is_read_or_refused(pieces: list[str], noise: bytes) -> None:
    for data in ("\n".join(pieces).encode("utf-8", "surrogatepass"), noise, FILE.encode() + noise):
        with contextlib.suppress(CatalogueInvalid):
            found = read_catalogue(data)
            assert found.plans["free"].price_usd_minor == 0
            assert all(plan.credits > 0 for plan in found.plans.values())
