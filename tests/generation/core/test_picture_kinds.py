"""A sketch means what a person sees of its file, in whichever way it was saved."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from generation.domain.errors import SketchRejected
from generation.images.checking import read_sketch
from tests.pictures.kinds import COMPRESSED, Saved, difference, kinds, media_type, refused_kinds

KINDS, REFUSED = kinds(), refused_kinds()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_kept_of_a_sketch_is_what_is_seen_of_its_file(kind: Saved) -> None:
    assert isinstance(kind.seen, Image.Image)
    with Image.open(io.BytesIO(read_sketch(kind.data, media_type(kind.data)).data)) as kept:
        assert difference(kept, kind.seen) < COMPRESSED


@pytest.mark.parametrize("kind", REFUSED.values(), ids=REFUSED)
def test_what_is_no_sketch_is_refused_by_its_name(kind: Saved) -> None:
    with pytest.raises(SketchRejected) as rejected:
        read_sketch(kind.data, "")
    assert rejected.value.code == kind.seen or (kind.data, rejected.value.code) == (b"", "sketch_type")
