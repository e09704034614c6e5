"""Workers' results are read within bounds of their own; what is clean is kept as it is compressed, and nothing else."""

from __future__ import annotations

import hashlib
import io
import resource
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from generation.domain.errors import ObjectMissing, ResultRejected
from generation.images.checking import Result, read_sketch, verify_result, verify_upload
from generation.images.object_store import DiskStore, LinkSigner
from generation.images.results import ResultProcesses
from ledger.clock import system_clock
from tests.generation.core.test_blank_sketches import lined
from tests.generation.core.test_executors import die, endless
from tests.hostile.pictures import PNG_SIGNATURE, chunk

SIDE = 96


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def painted(mode: str = "RGB") -> Image.Image:
    image = Image.merge(
        "RGB", [Image.radial_gradient("L"), Image.linear_gradient("L"), Image.new("L", (256, 256))]
    )
    return image.resize((SIDE, SIDE)).convert(mode)


def verified(data: bytes) -> bytes:
    return verifying(data).data


def verifying(data: bytes) -> Result:
    return verify_result(data, sha256=hashlib.sha256(data).hexdigest())


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and body of each chunk of a PNG; it ends with its last one."""
    found, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from("!I4s", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        assert data[at : at + 12 + length] == chunk(*found[-1])
        at += 12 + length
    return found


def deflated(data: bytes) -> bytes:
    return b"".join(body for kind, body in chunks(data) if kind == b"IDAT")


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").tobytes()


def with_data(data: bytes, *idat: bytes) -> bytes:
    """The same PNG with other chunks of data."""
    header = chunks(data)[0][1]
    return b"".join(
        (PNG_SIGNATURE, chunk(b"IHDR", header), *(chunk(b"IDAT", part) for part in idat), chunk(b"IEND", b""))
    )


@pytest.fixture
async def results() -> AsyncIterator[ResultProcesses]:
    processes = ResultProcesses(1, cpu_seconds_max=1)
    yield processes
    await processes.close()


@pytest.mark.parametrize("work", [endless, die])
async def test_a_result_that_takes_too_much_is_ended_by_the_kernel_and_rejected(
    results: ResultProcesses, work: Callable[[], None]
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(ResultRejected, match="more than an image is worth"):
        await results.run(work)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 6
    data = saved(painted())
    result = await results.run(verifying, data)  # the next one is read
    assert (result.width, result.data) == (SIDE, data)


async def test_a_stored_result_is_read_within_the_bounds(results: ResultProcesses, tmp_path: Path) -> None:
    store = DiskStore(tmp_path, LinkSigner(b"s" * 32, system_clock), "http://127.0.0.1", checker=results)
    data = saved(painted())
    await store.put("uploads/job/1", data, "image/png")
    verify = partial(verify_result, sha256=hashlib.sha256(data).hexdigest())
    assert (await store.use("uploads/job/1", verify, limit_bytes=1_000_000)).data == data
    with pytest.raises(ObjectMissing):
        await store.use("uploads/job/2", verify, limit_bytes=1_000_000)
    with pytest.raises(ResultRejected):
        await store.use("uploads/job/1", partial(verify_result, sha256="0" * 64), limit_bytes=1_000_000)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_clean_result_is_kept_as_it_is_compressed(mode: str) -> None:
    data = saved(painted(mode), compress_level=9)
    assert deflated(verified(data)) == deflated(data)
    assert [kind for kind, _ in chunks(verified(data))] == [b"IHDR", b"IDAT", b"IEND"]


def test_everything_but_pixels_is_left_behind_without_compressing_again() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "a secret llama")
    image = painted()
    data = saved(
        image, pnginfo=text, dpi=(300, 300), icc_profile=b"profile", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"
    )
    clean = verified(data + b"behind the end")
    assert clean == verified(saved(image))
    assert b"secret" not in clean


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_kept_as_it_is_and_nothing_but_its_pixels(lossless: bool) -> None:
    plain = saved(painted(), "WEBP", lossless=lossless)
    more = saved(
        painted(),
        "WEBP",
        lossless=lossless,
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0",
        xmp=b"a secret llama",
        icc_profile=b"p",
    )
    for data in (plain, more):
        result = verify_result(data, sha256=hashlib.sha256(data).hexdigest())
        assert (result.content_type, result.width) == ("image/webp", SIDE)
        assert result.data is not None
        assert b"secret" not in result.data
        with Image.open(io.BytesIO(result.data)) as kept, Image.open(io.BytesIO(plain)) as sent:
            assert not {"exif", "xmp", "icc_profile"} & set(kept.info)
            assert kept.convert("RGB").tobytes() == sent.convert("RGB").tobytes()
    assert verify_upload(plain, sha256=hashlib.sha256(plain).hexdigest()).data is None


def test_a_webp_with_transparent_pixels_is_encoded_anew_as_png() -> None:
    image = painted().convert("RGBA")
    image.putalpha(128)
    data = saved(image, "WEBP")
    result = verify_result(data, sha256=hashlib.sha256(data).hexdigest())
    assert result.content_type == "image/png"
    assert result.data is not None
    with Image.open(io.BytesIO(result.data)) as kept:
        assert (kept.format, kept.mode) == ("PNG", "RGB")


@pytest.mark.parametrize("part", [1, 7, 1_000])
def test_data_in_pieces_is_put_together(part: int) -> None:
    data = saved(painted())
    whole = deflated(data)
    pieces = [whole[at : at + part] for at in range(0, min(len(whole), 900 * part), part)]
    pieces.append(whole[sum(map(len, pieces)) :])
    assert verified(with_data(data, *pieces)) == with_data(data, whole)


def hidden() -> dict[str, bytes]:
    data = saved(painted())
    whole = deflated(data)
    rows = zlib.decompress(whole)
    wrong = bytearray(data)
    wrong[-16] ^= 1  # the checksum of the data
    return {
        "bytes behind the deflated data": with_data(data, whole + b"hidden" * 99),
        "a chunk behind the deflated data": with_data(data, whole, b"hidden" * 99),
        "more rows than are shown": with_data(data, zlib.compress(rows + b"hidden" * 99)),
        "a wrong checksum": bytes(wrong),
        "the end's body": data[:-12] + chunk(b"IEND", b"hidden" * 99),
        "transparent pixels": saved(painted("RGBA")),
        "a palette": saved(painted().quantize(16)),
        "two palettes": with_data(data, whole).replace(
            chunk(b"IDAT", whole), chunk(b"PLTE", b"hid" * 9) * 2 + chunk(b"IDAT", whole)
        ),
        "16 bits": saved(Image.frombytes("I;16", (64, 64), bytes(range(256)) * 32)),
        "a colour that is transparent": saved(painted(), transparency=(1, 2, 3)),
        "a JPEG": saved(painted(), "JPEG"),
    }


@pytest.mark.parametrize("name", hidden())
def test_what_may_hide_something_is_encoded_anew_or_rejected(name: str) -> None:
    data = hidden()[name]
    try:
        clean = verified(data)
    except ResultRejected:
        return
    assert [kind for kind, _ in chunks(clean) if kind != b"IDAT"] == [b"IHDR", b"IEND"]
    assert b"hidden" not in clean
    assert len(zlib.decompress(deflated(clean))) in ((3 * side + 1) * side for side in (SIDE, 64))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_a_clean_sketch_is_stored_as_it_is_compressed(mode: str) -> None:
    data = saved(lined("black").convert(mode), compress_level=9)
    sketch = read_sketch(data, "image/png")
    assert deflated(sketch.data) == deflated(data)
    assert pixels(sketch.data) == pixels(data)


@pytest.mark.parametrize(
    "image",
    [
        lined((0, 0, 0, 255), (255, 0, 0, 0), "RGBA"),
        lined((0, 255), (99, 0), "LA"),
        lined("black").resize((2048, 1024)),
    ],
    ids=["RGBA", "LA", "larger than the graph uses"],
)
def test_what_is_hidden_under_transparent_pixels_or_too_large_is_not_stored(image: Image.Image) -> None:
    with Image.open(io.BytesIO(read_sketch(saved(image), "image/png").data)) as stored:
        assert stored.mode == "RGB"
        assert stored.width * stored.height <= 1024 * 1024
        assert stored.getpixel((0, 0)) == (255, 255, 255)
