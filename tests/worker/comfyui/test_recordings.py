"""The stand-in answers as the recorded server did, to the letter."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.worker.comfyui.replay import PACE, Replay, content, entries
from tests.worker.comfyui.server import ComfyServer


@pytest.mark.parametrize(
    ("recording", "until"),
    [
        ("upload_view", None),
        ("success_and_cached", None),
        ("errors", None),
        ("interrupt_and_queue", None),
        # The last part of this recording depends on when a late socket arrives.
        ("ws_reconnect", "--- POST before WS connect"),
        ("process_death", None),
    ],
)
async def test_the_stand_in_repeats_a_recording(recording: str, until: str | None, tmp_path: Path) -> None:
    server = ComfyServer(tmp_path)
    await server.start()
    # An image that the recorded server still had from before.
    if recording == "errors":
        (tmp_path / "input" / "sk.png").write_bytes(content(138))
    try:
        async with aiohttp.ClientSession() as http:
            # Here jobs are ended in the middle: they take as long as they did.
            pace = 1.0 if recording == "interrupt_and_queue" else PACE
            replay = Replay(http, server.url, tmp_path, pace)
            await replay.run(entries(recording, until))
        assert replay.compared > 5
    finally:
        server.kill()
