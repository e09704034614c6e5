"""Whatever a ComfyUI or the gateway answers to a worker: it is read, or refused by name."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import JUNK, Question, answered, bodies, server, spoiled
from worker.api import ApiFault, LeaseLost, WorkerApi
from worker.backoff import Backoff
from worker.comfyui.client import ComfyClient, RetryPause, describe_refusal
from worker.comfyui.faults import ComfyFault, fault_of_error
from worker.comfyui.library import load_graphs
from worker.comfyui.run import GraphRun, _Watch
from worker.comfyui.socket import decode_frame
from worker.protocol import FailRequest, HeartbeatRequest

ID = "a"
QUEUE = {"queue_running": [[1, ID, {}, {}]], "queue_pending": []}
ERROR = {"exception_type": "ValueError", "exception_message": "bad\nworse", "node_id": "1", "node_type": "X"}
ENTRIES: tuple[dict[str, Any], ...] = (
    {
        "status": {"status_str": "success", "completed": True, "messages": []},
        "outputs": {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}},
    },
    {"status": {"status_str": "error", "completed": False, "messages": [["execution_error", ERROR]]}},
)
REFUSAL = {
    "error": {"message": "m", "details": "d"},
    "node_errors": {"1": {"class_type": "X", "errors": [{"message": "m", "details": "d"}]}},
}
INFO = {"LoadImage": {"input": {"required": {"image": [["a"], {}]}, "optional": {}}, "output_node": False}}
MESSAGES = (
    {"type": "progress", "data": {"value": 1, "max": 4, "prompt_id": ID}},
    {"type": "executing", "data": {"node": None, "prompt_id": ID}},
)
PAUSE = RetryPause(interrupt_attempts=1, interrupt_pause=0, submit_checks=1)


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


@fuzzed(
    body=bodies(QUEUE, {ID: ENTRIES[0]}, {"name": "a.png"}, REFUSAL), status=st.sampled_from([200, 200, 400])
)
def test_an_answer_of_comfyui_is_read_or_refused(loop: asyncio.Runner, body: bytes, status: int) -> None:
    comfy = ComfyClient("http://node.test", server(body, status), wait_max=PAUSE, sleep=_at_once)
    questions: list[Question] = [
        comfy.queue,
        comfy.system_stats,
        comfy.object_info,
        comfy.clear,
        lambda: comfy.history(ID),
        lambda: comfy.upload(b"x", "x.png"),
        lambda: comfy.submit({}, ID, "c"),
    ]
    for question in questions:
        answered(loop, question, ComfyFault)


@fuzzed(
    entry=spoiled(*ENTRIES), error=spoiled(ERROR), refusal=spoiled(REFUSAL), picture=st.binary(max_size=4)
)
def test_a_history_entry_is_a_result_or_a_fault(
    loop: asyncio.Runner, entry: Any, error: Any, refusal: Any, picture: bytes
) -> None:
    run = GraphRun(ComfyClient("http://node.test", server(picture), wait_max=PAUSE, sleep=_at_once))
    if isinstance(entry, dict):
        answered(loop, lambda: run._collect(entry, _Watch(ID, "9", lambda _: None), ()), ComfyFault)
    if isinstance(error, dict):
        assert fault_of_error(error).code
    if isinstance(refusal, dict):
        assert describe_refusal(refusal)


@fuzzed(info=spoiled(INFO))
def test_what_a_server_says_of_its_nodes_is_understood_or_a_complaint(info: Any) -> None:
    graphs = load_graphs()
    for label in graphs.labels():
        if isinstance(info, dict):
            assert graphs.get(label).complaints(info)


@fuzzed(raw=st.one_of(bodies(*MESSAGES), JUNK, st.binary(max_size=12).map(lambda tail: b"\0\0\0\x04" + tail)))
def test_a_frame_of_the_socket_is_digested_or_passed_over(raw: bytes) -> None:
    watch = _Watch(ID, "9", lambda _: None)
    for frame in (decode_frame(raw), decode_frame(raw.decode(errors="replace"))):
        if frame is not None:
            watch.take(frame)
    assert 0 <= watch.value <= watch.maximum


CLAIMED = {
    "job": {
        "id": "job_1",
        "epoch": 1,
        "graph": "sketch@1",
        "inputs": {"prompt": "a", "seed": 1, "width": 64, "height": 64},
        "sketch": {"url": "/x", "sha256": "0" * 64, "content_type": "image/png"},
        "upload": {"url": "/y", "headers": {}, "max_bytes": 5},
        "lease_seconds": 30.0,
        "deadline": "2026-11-22T12:00:00+00:00",
    }
}


@fuzzed(
    body=bodies(CLAIMED, {"command": "continue"}, {"code": "rate_limited"}),
    status=st.sampled_from([200, 200, 204, 400, 409, 503]),
)
def test_an_answer_of_the_gateway_is_read_or_refused(loop: asyncio.Runner, body: bytes, status: int) -> None:
    api = WorkerApi("http://node.test", server(body, status))
    failed = FailRequest(epoch=1, failure="infrastructure", code="x")
    questions: list[Question] = [
        api.renew,
        lambda: api.claim(0),
        lambda: api.heartbeat("job_1", HeartbeatRequest(epoch=1)),
        lambda: api.report("job_1", failed, Backoff(random.Random(1)), attempts=1),
    ]
    for question in questions:
        answered(loop, question, ApiFault, LeaseLost)
