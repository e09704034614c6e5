"""The worker between a gateway and a ComfyUI, over real HTTP, with everything that goes wrong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import stat
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.waiting import SECONDS_MAX, eventually
from tests.worker.comfyui.pictures import blank, sketch
from tests.worker.comfyui.server import ComfyServer
from tests.worker.conftest import StartWorker
from tests.worker.gateway import FakeGateway
from worker.loop import RegistrationRefused


class CountingProcess:
    """A ComfyUI process that grows and that somebody restarts."""

    def __init__(self, comfyui: ComfyServer, rss_bytes: int | None = None) -> None:
        self._comfyui = comfyui
        self._rss = rss_bytes
        self.restarts = 0

    async def rss_bytes(self) -> int | None:
        return self._rss

    async def restart(self) -> bool:
        self.restarts += 1
        self._comfyui.kill()
        await self._comfyui.start()
        return True


async def test_a_job_is_painted_uploaded_and_reported_with_its_digest(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    gateway.offer(sketch(), epoch=3)
    await start_worker()
    what, report = await gateway.report()
    image = gateway.stored["job_1-3"]
    assert (what, report.epoch, report.size) == ("complete", 3, len(image))
    assert report.sha256 == hashlib.sha256(image).hexdigest()
    assert report.content_type == "image/png"
    assert report.gpu_ms >= 200
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.size == (256, 256)
    assert gateway.registrations[0].capabilities.graphs == ["invert@1", "sketch@1"]
    await eventually(lambda: not list(comfyui.folder.glob("*/**/*job_1*")), "its files are pruned")


async def test_a_worker_that_is_told_so_uploads_a_webp(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.offer(sketch())
    await start_worker(webp_quality=80)
    _, report = await gateway.report()
    image = gateway.stored["job_1-1"]
    assert (report.content_type, report.size) == ("image/webp", len(image))
    assert report.sha256 == hashlib.sha256(image).hexdigest()
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.size) == ("WEBP", (256, 256))


async def test_heartbeats_carry_progress_and_small_previews(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(slow=12)
    gateway.offer(sketch())
    await start_worker()
    await gateway.report()
    seen = [beat.progress.value for beat in gateway.beats if beat.progress is not None]
    assert seen == sorted(seen)
    assert len(set(seen)) >= 2
    previews = [base64.b64decode(beat.preview) for beat in gateway.beats if beat.preview is not None]
    assert previews
    for preview in previews:
        with Image.open(io.BytesIO(preview)) as image:
            assert (image.format, max(image.size)) == ("JPEG", 128)


async def test_the_model_free_graph_runs_too(gateway: FakeGateway, start_worker: StartWorker) -> None:
    gateway.offer(sketch(), graph="invert@1", inputs={"width": 64, "height": 48})
    await start_worker()
    await gateway.report()
    with Image.open(io.BytesIO(gateway.stored["job_1-1"])) as image:
        assert image.size == (64, 48)
        assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


async def test_a_blank_sketch_is_an_input_failure(gateway: FakeGateway, start_worker: StartWorker) -> None:
    gateway.offer(blank())
    await start_worker()
    what, report = await gateway.report()
    assert (what, report.failure, report.code) == ("fail", "input", "blank_sketch")
    assert not gateway.stored


async def test_a_failing_prompt_is_reported_without_its_words(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.offer(sketch(), inputs={"prompt": "sandbox-fail the purple secret"})
    await start_worker()
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("input", "node_refused")
    assert "secret" not in report.model_dump_json()


async def test_rubbish_is_an_input_failure_and_an_unknown_graph_the_workers(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.offer(b"not an image")
    await start_worker()
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("input", "sketch_unreadable")
    gateway.offer(sketch(), job_id="job_2", graph="sketch@99")
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("infrastructure", "graph_unknown")
    gateway.offer(sketch(), job_id="job_3", inputs={"width": 250})
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("input", "inputs_refused")


async def test_a_sketch_with_a_wrong_digest_is_not_painted(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.offer(sketch())
    gateway.sketches["job_1"] = sketch(colour="red")
    await start_worker()
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("service", "sketch_missing")


async def test_a_black_image_is_not_delivered(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    await start_worker()
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(black_image=1)
    gateway.offer(sketch())
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("infrastructure", "blank_image")
    assert not gateway.stored


async def test_out_of_memory_is_reported_and_comfyui_restarted(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    process = CountingProcess(comfyui)
    await start_worker(process)
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(oom=1)
    gateway.offer(sketch())
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("infrastructure", "out_of_memory")
    gateway.offer(sketch(), job_id="job_2")
    what, _ = await gateway.report()
    assert (what, process.restarts) == ("complete", 1)


async def test_a_hanging_comfyui_is_reported_and_gets_no_job_until_it_is_well(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    await start_worker()
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(hang=True)
    gateway.offer(sketch())
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("infrastructure", "run_hung")
    gateway.offer(sketch(), job_id="job_2")
    assert not gateway.jobs.empty()
    comfyui.faults(reset=True)
    what, _ = await gateway.report()
    assert what == "complete"


async def test_a_comfyui_that_dies_is_waited_for(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    await start_worker()
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.faults(die=1)
    gateway.offer(sketch())
    _, report = await gateway.report()
    assert (report.failure, report.code) == ("infrastructure", "server_died")
    gateway.offer(sketch(), job_id="job_2")
    await eventually(comfyui.dead, "the server is gone")
    assert not gateway.jobs.empty()
    await comfyui.start()
    what, _ = await gateway.report()
    assert what == "complete"


async def test_a_cancelled_job_is_interrupted_and_given_back(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(slow=30)  # four steps of 1.5 s: time to answer a heartbeat on a busy machine
    await start_worker(gate_graph="invert@1")
    gateway.offer(sketch())
    await asyncio.wait_for(gateway.moved.wait(), SECONDS_MAX)
    gateway.command = "cancel"
    what, _ = await gateway.report()
    assert what == "give-back"
    assert not gateway.stored


async def test_a_lost_lease_is_dropped_without_a_word(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(slow=30)  # four steps of 1.5 s: time to answer a heartbeat on a busy machine
    await start_worker(gate_graph="invert@1")
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    gateway.claiming.clear()
    gateway.offer(sketch())
    await asyncio.wait_for(gateway.moved.wait(), SECONDS_MAX)
    gateway.command = "lost"
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    assert not gateway.reports
    assert not gateway.stored


@pytest.mark.parametrize(
    ("command", "reported"), [("lost", []), ("cancel", ["give-back"])], ids=["a lost lease", "a cancellation"]
)
async def test_the_upload_ends_with_the_lease(
    gateway: FakeGateway, start_worker: StartWorker, command: str, reported: list[str]
) -> None:
    await start_worker(gate_graph="invert@1")
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    gateway.store_is_deaf = True
    gateway.offer(sketch(), graph="invert@1")
    await eventually(lambda: gateway.calls["store"] == 1, "the upload began")
    gateway.claiming.clear()
    gateway.command = command
    await asyncio.wait_for(gateway.hung_up.wait(), SECONDS_MAX)
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    assert [what for what, _, _ in gateway.reports] == reported


async def test_models_that_are_being_loaded_are_progress_until_the_first_step(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(load_seconds=0.8)
    await comfyui.forget()
    await start_worker(gate_graph="invert@1", stall_seconds=1.0)
    gateway.offer(sketch())
    assert (await gateway.report())[0] == "complete"
    loading = [beat.moved for beat in gateway.beats if beat.progress is None]
    assert loading == sorted(set(loading))
    assert len(loading) >= 3
    # The models are warm now: a beat counts what moves, and nothing else.
    comfyui.faults(hang=True)
    gateway.beats.clear()
    gateway.offer(sketch(), job_id="job_2")
    _, report = await gateway.report()
    assert report.code == "run_hung"
    assert len({beat.moved for beat in gateway.beats[-2:]}) == 1


async def test_a_comfyui_that_was_restarted_is_warmed_before_the_next_claim(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    await start_worker(claim_seconds=0.5)
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    comfyui.kill()
    await comfyui.start()
    await eventually(lambda: "UNETLoader" in comfyui.history(), "a picture was made that nobody asked for")


async def test_a_stale_completion_is_terminal(gateway: FakeGateway, start_worker: StartWorker) -> None:
    gateway.stale = True
    await start_worker()
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    gateway.claiming.clear()
    gateway.offer(sketch())
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    assert gateway.calls["complete"] == 1


async def test_reports_downloads_and_uploads_are_repeated_until_heard(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.failing.update(
        {"complete": 3, "store": 2, "sketch": 1, "heartbeat": 2, "claim": 1, "register": 1}
    )
    gateway.offer(sketch())
    await start_worker()
    what, _ = await gateway.report()
    assert (what, gateway.calls["complete"], gateway.calls["store"]) == ("complete", 4, 3)


async def test_an_absent_gateway_is_waited_for(gateway: FakeGateway, start_worker: StartWorker) -> None:
    await gateway.stop()
    _, task = await start_worker(gate_graph="invert@1")
    assert not task.done()
    await gateway.start()
    gateway.offer(sketch())
    assert (await gateway.report())[0] == "complete"


async def test_the_worker_token_is_kept_private_and_used_again(
    gateway: FakeGateway, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker, task = await start_worker()
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    worker.shutdown.set()
    await task
    file = tmp_path / "worker" / "worker-token.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert gateway.drained.is_set()
    gateway.claiming.clear()
    await start_worker(registration_token=None)
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    assert gateway.calls["register"] == 1
    assert not gateway.drained.is_set(), "a worker that starts again takes back that it was leaving"


async def test_a_token_is_renewed_before_it_expires(gateway: FakeGateway, start_worker: StartWorker) -> None:
    gateway.token_seconds = 60
    gateway.offer(sketch())
    await start_worker()
    await gateway.report()
    assert gateway.calls["renew"] == 1


async def test_a_used_registration_token_ends_the_worker_with_a_reason(
    gateway: FakeGateway, start_worker: StartWorker
) -> None:
    gateway.used_tokens.add("reg_" + "x" * 20)
    _, task = await start_worker(gate_graph="invert@1")
    with pytest.raises(RegistrationRefused, match="worker_not_allowed"):
        await asyncio.wait_for(task, SECONDS_MAX)


async def test_a_job_that_has_hardly_begun_is_given_back_on_shutdown(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(slow=40)
    worker, task = await start_worker(gate_graph="invert@1")
    gateway.offer(sketch())
    await eventually(lambda: len(gateway.beats) > 0, "the job began")
    worker.shutdown.set()
    what, _ = await gateway.report()
    await asyncio.wait_for(task, SECONDS_MAX)
    assert what == "give-back"
    assert gateway.calls["drain"] >= 1


async def test_a_job_that_is_nearly_done_is_finished_on_shutdown(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(slow=15)
    worker, task = await start_worker(gate_graph="invert@1")
    gateway.offer(sketch())
    await eventually(
        lambda: any(beat.progress is not None and beat.progress.value >= 2 for beat in gateway.beats),
        "half done",
    )
    worker.shutdown.set()
    what, _ = await gateway.report()
    await asyncio.wait_for(task, SECONDS_MAX)
    assert what == "complete"


async def test_comfyui_is_recycled_after_so_many_jobs_or_megabytes(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    process = CountingProcess(comfyui, rss_bytes=900 * 1048576)
    await start_worker(process, gate_graph="invert@1", recycle_jobs=0, recycle_rss_mb=800)
    gateway.offer(sketch(), graph="invert@1")
    await gateway.report()
    await eventually(lambda: process.restarts == 1, "recycled by its size")
    gateway.offer(sketch(), graph="invert@1", job_id="job_2")
    assert (await gateway.report())[0] == "complete"


async def test_a_worker_that_fails_its_gate_does_not_register_until_it_passes(
    gateway: FakeGateway, start_worker: StartWorker, comfyui: ComfyServer
) -> None:
    comfyui.faults(error_next=100)
    await start_worker(gate_graph="invert@1")
    await eventually(lambda: left(comfyui) < 99, "the gate was tried twice")
    assert not gateway.calls
    comfyui.faults(reset=True)
    await asyncio.wait_for(gateway.claiming.wait(), SECONDS_MAX)
    assert gateway.calls["register"] == 1


def left(comfyui: ComfyServer) -> int:
    return int(httpx.get(f"{comfyui.url}/sandbox/faults").json()["error_next"])
