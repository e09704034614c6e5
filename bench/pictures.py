"""What pictures cost: processor milliseconds of every process for a sketch that is taken and an image that is delivered.

Starts PostgreSQL, Valkey and the API with its processes for pictures. People and workers are a program of their own and
are not counted. Each figure stands beside bare decodes of the same file by the same library in the same run. The first
mix has a sketch and an image of 64 pixels a side: what a request and a delivery cost without their pictures.

    llamasketch bench pictures [--json] [--images 60]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import structlog
from PIL import Image, ImageDraw, ImageFilter, PngImagePlugin

from bench.surroundings import descendants, machine, own_postgres, run
from gateway.database.schema import migrate_async
from sandbox.embedded.ports import free_port
from sandbox.embedded.running import RunningServer
from sandbox.embedded.valkey import EmbeddedValkey
from tests.gateway.stack import Gateway, generation_request, picture, running, settings_for, sketch
from tests.hostile.attacks import cpu_seconds

SIDE = 1024
LANES = 4
"""People who ask and workers who paint at the same time, one of each in a lane."""
DECODING_SECONDS = 1.5
_CORES = 2


class Mix(NamedTuple):
    """Which files a request and a delivery of it send."""

    sketch: str
    image: str


MIXES: Mapping[str, Mix] = {
    "without pictures": Mix("small", "small"),
    "sketch": Mix("drawing", "small"),
    "sketch to scale": Mix("large drawing", "small"),
    "image": Mix("small", "painting"),
    "image with text": Mix("small", "painting with text"),
    "image as WebP": Mix("small", "painting as WebP"),
    "both": Mix("drawing", "painting"),
}


def files() -> dict[str, bytes]:
    """By name: what is drawn, and what is painted."""
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", json.dumps({"1": {"class_type": "KSampler"}}) * 20)
    painted = painting()
    return {
        "small": picture(),
        "drawing": saved(drawing(SIDE), "PNG"),
        "large drawing": saved(drawing(2 * SIDE), "PNG"),
        "painting": saved(painted, "PNG", compress_level=4),
        "painting with text": saved(painted, "PNG", compress_level=4, pnginfo=text),
        "painting as WebP": saved(painted, "WEBP", quality=90),
    }


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def drawing(side: int) -> Image.Image:
    """Soft dark lines on white, opaque, with the channel for transparency that browsers write."""
    chance = random.Random(1)
    image = Image.new("RGBA", (side, side), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(40):
        corners = [(chance.randrange(side), chance.randrange(side)) for _ in range(6)]
        pen.line(corners, fill=(29, 26, 23, 255), width=chance.randrange(2, 12), joint="curve")
    return image.filter(ImageFilter.SMOOTH)


def painting() -> Image.Image:
    """Shapes of all sizes and a little grain: it compresses as far as a painted image does, to half."""
    chance = random.Random(2)

    def layer(side: int) -> Image.Image:
        small = Image.frombytes("RGB", (side, side), chance.randbytes(side * side * 3))
        return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    image = layer(8)
    for side, share in ((64, 0.4), (256, 0.15), (SIDE, 0.02)):
        image = Image.blend(image, layer(side), share)
    return image


# --- the library alone ---


def decoded(data: bytes) -> float:
    """Processor milliseconds of decoding a file once: the middle of nine."""
    taken = []
    for _ in range(9):
        before = time.process_time()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        taken.append(1000 * (time.process_time() - before))
    return sorted(taken)[4]


def decodes(data: bytes, seconds: float) -> float:
    """Decodes of a file in a second, one after the other."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        count += 1
    return count / passed


def decodes_on_all_cores(data: bytes) -> float:
    """Decodes of a file in a second by as many processes as there are cores, two at most."""
    count = min(_CORES, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(count) as pool:
        return sum(pool.map(decodes, [data] * count, [DECODING_SECONDS] * count))


# --- people and workers, in a process of their own ---


class Order(NamedTuple):
    """What the program of people and workers is told."""

    url: str
    people: list[str]
    workers: list[str]
    sketch: str
    image: str
    images: int


async def deliver(order: Order) -> float:
    """Ask for images, paint and report them, until so many are delivered. Returns the seconds it took."""
    every = files()
    left = iter(range(order.images))
    body = generation_request() | {"sketch": sketch(every[order.sketch])}
    async with httpx.AsyncClient(base_url=order.url, timeout=60, trust_env=False) as client:
        lanes = zip(order.people, order.workers, strict=True)
        began = time.perf_counter()
        await asyncio.gather(*(_lane(client, lane, left, body, every[order.image]) for lane in lanes))
        return time.perf_counter() - began


async def _lane(
    client: httpx.AsyncClient, tokens: tuple[str, str], left: Any, body: dict[str, Any], image: bytes
) -> None:
    person, worker = ({"Authorization": f"Bearer {token}"} for token in tokens)
    digest = hashlib.sha256(image).hexdigest()
    for _ in left:
        asked = await client.post("/v1/generations", json=body, headers=person)
        assert asked.status_code == 202, asked.text
        claimed = await client.post("/v1/worker/claim", json={"wait_seconds": 20}, headers=worker)
        job = claimed.json()["job"]
        (await client.put(job["upload"]["url"], content=image)).raise_for_status()
        report = {"epoch": job["epoch"], "sha256": digest, "size": len(image)}
        report |= {"content_type": "image/png", "gpu_ms": 1000}
        done = await client.post(f"/v1/worker/jobs/{job['id']}/complete", json=report, headers=worker)
        assert done.json()["state"] == "completed", done.text


# --- measuring ---


class Spent(NamedTuple):
    """What a mix took, for each image."""

    cpu_ms: float
    """Of the API, its processes for pictures, PostgreSQL and Valkey."""
    images_per_second: float


async def spent(gateway: Gateway, tokens: tuple[list[str], list[str]], mix: Mix, images: int) -> Spent:
    """Let people and workers do it once to warm up, then count."""
    order = Order(gateway.url, *tokens, *mix, images)
    await people_and_workers(order._replace(images=LANES))
    before = _processor_seconds()
    seconds = await people_and_workers(order)
    processor = _processor_seconds() - before
    return Spent(1000 * processor / images, images / seconds)


async def people_and_workers(order: Order) -> float:
    """Seconds that they took. They have ended when this returns, so that they are in nobody's count."""
    order_text = base64.b64encode(json.dumps(order).encode()).decode()
    command = (sys.executable, "-m", "bench.pictures", "--deliver", order_text)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return float(printed)


def _processor_seconds() -> float:
    return time.process_time() + sum(map(cpu_seconds, descendants(os.getpid())))


def ratios(spent: Mapping[str, Spent], decode_ms: Mapping[str, float], decodes: float) -> dict[str, float]:
    """Every figure in decodes of its file; `decodes` are those of the painting on all cores in a second."""
    bare = spent["without pictures"].cpu_ms

    def own(mix: str) -> float:
        return spent[mix].cpu_ms - bare

    return {
        "sketch_ms": round(own("sketch"), 1),
        "sketch_in_decodes": round(own("sketch") / decode_ms["drawing"], 2),
        "image_in_decodes": round(own("image") / decode_ms["painting"], 2),
        "image_with_text_in_decodes": round(own("image with text") / decode_ms["painting with text"], 2),
        "image_as_webp_ms": round(own("image as WebP"), 1),
        "delivered_in_decodes": round(spent["image"].cpu_ms / decode_ms["painting"], 2),
        "delivered_per_second_by_decodes_per_second": round(spent["image"].images_per_second / decodes, 3),
    }


async def measure(images: int) -> dict[str, Any]:
    """All mixes on a stack of its own."""
    surroundings, every = machine(), files()
    decode_ms = {name: round(decoded(data), 2) for name, data in every.items()}
    per_second = await asyncio.to_thread(decodes_on_all_cores, every["painting"])
    with tempfile.TemporaryDirectory(prefix="bench-") as name, own_postgres() as postgres:
        folder = Path(name)
        await migrate_async(postgres.url.replace("postgresql://", "postgresql+psycopg://", 1))
        valkey = EmbeddedValkey(folder / "valkey", free_port())
        with RunningServer(valkey.command(), folder / "valkey.log") as cache:
            settings = settings_for(
                postgres.url,
                cache.url,
                folder / "data",
                upload_megabytes_per_hour=1_000_000,
                upload_megabytes_per_hour_network=1_000_000,
            )
            async with running(settings) as gateway:
                tokens = await _lanes(gateway, images)
                found = {name: await spent(gateway, tokens, mix, images) for name, mix in MIXES.items()}
    return {
        "machine": surroundings,
        "bytes": {name: len(data) for name, data in every.items()},
        "decode_ms": decode_ms,
        "decodes_per_second": round(per_second, 1),
        "mixes": {
            name: {key: round(value, 1) for key, value in each._asdict().items()}
            for name, each in found.items()
        },
        "ratios": ratios(found, decode_ms, per_second),
    }


async def _lanes(gateway: Gateway, images: int) -> tuple[list[str], list[str]]:
    """Tokens of people who have paid and of workers, one of each for a lane."""
    people, workers = [], []
    for number in range(LANES):
        person = await gateway.visitor()
        await gateway.top_up(person, min(100_000, (images + LANES) * len(MIXES) + 100))
        worker = await gateway.worker(f"lane-{number}")
        people.append(person.headers["Authorization"].removeprefix("Bearer "))
        workers.append(worker.client.headers["Authorization"].removeprefix("Bearer "))
    return people, workers


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line")
    parser.add_argument("--images", type=int, default=60, help="of each mix")
    parser.add_argument("--deliver", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if arguments.deliver:
        print(run(deliver(Order(*json.loads(base64.b64decode(arguments.deliver))))))
        return 0
    print(json.dumps(run(measure(arguments.images)), indent=None if arguments.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
