"""The client against the stand-in, over real HTTP and WebSockets, with faults."""

from __future__ import annotations

import asyncio
import io
import uuid
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.waiting import SECONDS_MAX
from tests.worker.comfyui.pictures import blank, sketch
from tests.worker.comfyui.server import ComfyServer
from worker.comfyui.client import ComfyClient
from worker.comfyui.faults import (
    ComfyFault,
    DriverFailed,
    GraphRefused,
    NodeFailed,
    OutOfMemory,
    RunHung,
    RunInterrupted,
    RunLost,
    ServerDied,
    ServerUnreachable,
    SketchRefused,
    fault_of_error,
)
from worker.comfyui.library import load_graphs
from worker.comfyui.run import GraphRun, RunProgress, RunResult

GRAPHS = load_graphs()


def sleeping_graph(seconds: float, *, preview: bool = False, fail: str | None = None) -> dict[str, Any]:
    seed = uuid.uuid4().int % 2**32
    middle = {
        "class_type": "TestSleep",
        "inputs": {
            "seconds": seconds,
            "steps": 20,
            "seed": seed,
            "honour_interrupt": True,
            "preview": preview,
            "image": ["1", 0],
        },
    }
    if fail is not None:
        middle = {"class_type": "TestFail", "inputs": {"kind": fail, "seed": seed, "image": ["1", 0]}}
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255},
        },
        "4": middle,
        "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": f"t/{seed}"}},
    }


async def run_graph(client: ComfyClient, graph: dict[str, Any], **options: Any) -> RunResult:
    return await GraphRun(client)(graph, "9", lambda _: None, **options)


async def painted(
    client: ComfyClient, prompt: str, content: bytes, seed: int, observed: list[RunProgress]
) -> bytes:
    graph = GRAPHS.get("sketch@1")
    stored = await client.upload(content, "sk.png")
    values = {
        "prompt": prompt,
        "seed": seed,
        "width": 256,
        "height": 256,
        "sketch": stored.reference,
        "filename_prefix": f"t/{uuid.uuid4().hex}",
    }
    result = await GraphRun(client)(graph.fill(values), graph.output, observed.append, loaders=graph.loaders)
    return result.images[0]


async def test_the_flux_graph_paints_with_progress_and_previews(client: ComfyClient) -> None:
    observed: list[RunProgress] = []
    image = await painted(client, "a llama", sketch(), 7, observed)
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.size == (256, 256)
    steps = {(one.value, one.maximum) for one in observed if one.preview is None}
    assert steps == {(0, 0), *((step, 4) for step in range(1, 5))}
    assert observed[0].maximum == 0, "nodes that begin are progress before the first step"
    assert sum(one.preview is not None for one in observed) == 4


async def test_the_same_sketch_prompt_and_seed_give_the_same_pixels(client: ComfyClient) -> None:
    first = await painted(client, "a cat", sketch(), 1, [])
    again = await painted(client, "a cat", sketch(), 1, [])
    other = await painted(client, "a cat", sketch(), 2, [])
    pixels = [Image.open(io.BytesIO(image)).convert("RGB").tobytes() for image in (first, again, other)]
    assert pixels[0] == pixels[1] != pixels[2]


async def test_a_value_error_of_any_node_but_the_loader_is_the_machines(client: ComfyClient) -> None:
    with pytest.raises(NodeFailed, match="blank") as caught:
        await painted(client, "a llama", blank(), 1, [])
    assert caught.value.node == "SamplerCustomAdvanced#64"
    assert caught.value.failure == "infrastructure"


async def test_a_model_file_that_cannot_be_loaded_is_the_machines_fault(
    client: ComfyClient, comfyui: ComfyServer
) -> None:
    comfyui.faults(corrupt_models=["flux2-vae.safetensors"])
    await client.free()
    with pytest.raises(NodeFailed, match="KeyError") as caught:
        await painted(client, "a llama", sketch(), 11, [])
    assert (caught.value.node, caught.value.failure) == ("VAELoader#72", "infrastructure")


async def test_what_the_loader_of_the_persons_image_does_not_like_is_the_inputs_fault(
    client: ComfyClient,
) -> None:
    with pytest.raises(SketchRefused, match="failure") as caught:
        await painted(client, "please sandbox-fail now", sketch(colour="green"), 1, [])
    assert (caught.value.node, caught.value.failure) == ("LoadImage#76", "input")
    with pytest.raises(SketchRefused) as caught:
        await painted(client, "a llama", b"rubbish", 1, [])
    assert caught.value.failure == "input"


@pytest.mark.parametrize(
    "lost", [{"lost_nodes": ["Flux2Scheduler"]}, {"lost_models": ["flux2-vae.safetensors"]}], ids=str
)
async def test_a_refusal_of_our_graph_is_the_machines_fault(
    client: ComfyClient, comfyui: ComfyServer, lost: dict[str, list[str]]
) -> None:
    comfyui.faults(**lost)
    with pytest.raises(GraphRefused) as caught:
        await painted(client, "a llama", sketch(), 1, [])
    assert caught.value.failure == "infrastructure"


LOADERS = frozenset({"1"})


@pytest.mark.parametrize(
    ("kind", "node", "fault", "failure", "restart"),
    [
        ("PIL.UnidentifiedImageError", "1", SketchRefused, "input", False),
        ("ValueError", "1", SketchRefused, "input", False),
        ("ValueError", "2", NodeFailed, "infrastructure", False),
        ("KeyError", "2", NodeFailed, "infrastructure", False),
        ("OSError", "1", NodeFailed, "infrastructure", False),
        ("torch.OutOfMemoryError", "1", OutOfMemory, "infrastructure", True),
        ("torch.AcceleratorError", "2", DriverFailed, "infrastructure", True),
    ],
)
def test_the_kind_of_error_and_its_node_decide_and_never_its_words(
    kind: str, node: str, fault: type[ComfyFault], failure: str, restart: bool
) -> None:
    for words in ("", "CUDA out of memory", "the sketch is bad", "key 'prompt'"):
        found = fault_of_error({"exception_type": kind, "exception_message": words, "node_id": node}, LOADERS)
        assert (type(found), found.failure, found.restart) == (fault, failure, restart)


async def test_an_invalid_graph_is_refused_with_its_reasons(client: ComfyClient) -> None:
    graph = sleeping_graph(0.0)
    graph["1"]["inputs"]["width"] = 999999999
    with pytest.raises(GraphRefused, match="bigger than max") as caught:
        await run_graph(client, graph)
    assert caught.value.node == "1"


async def test_a_half_valid_graph_is_refused_and_does_not_run_on(client: ComfyClient) -> None:
    graph = sleeping_graph(2.0)
    graph["8"] = {"class_type": "LoadImage", "inputs": {"image": "nope.png"}}
    graph["19"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "z"}}
    with pytest.raises(GraphRefused, match=r"nope\.png"):
        await run_graph(client, graph)
    view = await client.queue()
    assert not view.running
    assert not view.pending


async def test_out_of_memory_is_the_boxs_fault(client: ComfyClient) -> None:
    with pytest.raises(OutOfMemory) as caught:
        await run_graph(client, sleeping_graph(0, fail="OOM"))
    assert (caught.value.failure, caught.value.restart) == ("infrastructure", True)


async def test_a_lost_answer_to_a_prompt_is_looked_up_and_never_posted_twice(
    client: ComfyClient, comfyui: ComfyServer
) -> None:
    comfyui.faults(lose_prompt_answer=1)
    graph = sleeping_graph(0.1)
    prompt_id = str(uuid.uuid4())
    result = await run_graph(client, graph, prompt_id=prompt_id)
    assert result.images
    answer = httpx.get(f"{comfyui.url}/history").json()
    assert [name for name, entry in answer.items() if entry["prompt"][2] == graph] == [prompt_id]


async def test_a_run_survives_the_loss_of_its_socket(client: ComfyClient, comfyui: ComfyServer) -> None:
    comfyui.faults(drop_ws=1)
    assert (await run_graph(client, sleeping_graph(0.4))).images


async def test_a_late_history_entry_is_waited_for(client: ComfyClient, comfyui: ComfyServer) -> None:
    comfyui.faults(history_lag_ms=300)
    assert (await run_graph(client, sleeping_graph(0.0))).images


async def test_a_cancel_interrupts_even_if_the_first_interrupts_are_lost(
    client: ComfyClient, comfyui: ComfyServer
) -> None:
    comfyui.faults(lose_interrupt=3)
    cancel = asyncio.Event()
    started = asyncio.Event()
    run = GraphRun(client, cancel)
    task = asyncio.create_task(run(sleeping_graph(4.0), "9", lambda _: started.set()))
    await asyncio.wait_for(started.wait(), SECONDS_MAX)
    cancel.set()
    with pytest.raises(RunInterrupted):
        await task
    assert not (await client.queue()).running


async def test_a_pending_run_is_cancelled_by_taking_it_out_of_the_queue(client: ComfyClient) -> None:
    await client.submit(sleeping_graph(1.0), str(uuid.uuid4()), "someone-else")
    cancel = asyncio.Event()
    task = asyncio.create_task(GraphRun(client, cancel)(sleeping_graph(1.0), "9", lambda _: None))
    while len((await client.queue()).pending) != 1:
        await asyncio.sleep(0)
    cancel.set()
    with pytest.raises(RunInterrupted):
        await task
    await client.clear()


async def test_a_hanging_run_is_told_from_a_slow_one(client: ComfyClient, comfyui: ComfyServer) -> None:
    comfyui.faults(hang=True)
    with pytest.raises(RunHung):
        await run_graph(client, sleeping_graph(0.1))
    comfyui.faults(reset=True)


async def test_the_death_of_the_server_is_noticed(client: ComfyClient, comfyui: ComfyServer) -> None:
    comfyui.faults(die=1)
    with pytest.raises(ServerDied):
        await run_graph(client, sleeping_graph(0.1))
    with pytest.raises(ServerUnreachable):
        await client.queue()


async def test_a_server_that_restarted_in_between_has_lost_the_run(
    client: ComfyClient, comfyui: ComfyServer
) -> None:
    prompt_id = str(uuid.uuid4())
    run = GraphRun(client)
    task = asyncio.create_task(run(sleeping_graph(20), "9", lambda _: None, prompt_id=prompt_id))
    while prompt_id not in await client.queue():
        await asyncio.sleep(0)
    comfyui.kill()
    await comfyui.start()
    with pytest.raises((RunLost, ServerDied)):
        await task


async def test_a_picture_may_come_over_the_socket_without_a_file(
    client: ComfyClient, comfyui: ComfyServer
) -> None:
    graph = sleeping_graph(0.1, preview=True)
    graph["9"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["4", 0]}}
    result = await run_graph(client, graph)
    assert result.files == ()
    with Image.open(io.BytesIO(result.images[0])) as image:
        assert (image.format, image.size) == ("PNG", (64, 64))


async def test_uploads_answer_with_the_name_to_use(client: ComfyClient) -> None:
    first = await client.upload(sketch(colour="red"), "twice.png")
    second = await client.upload(sketch(colour="blue"), "twice.png")
    assert (first.reference, second.reference) == ("twice.png", "twice (1).png")
