"""The same suite on a real ComfyUI: `COMFYUI_URL=http://127.0.0.1:8188 pytest -m real_comfyui`. It needs no models.

The server should do nothing else meanwhile. Some small files stay in its input and output folders.
"""

from __future__ import annotations

import os
import time

import httpx
import pytest

from tests.worker.comfyui.contract_suite import ComfyContract
from worker.comfyui.client import ComfyClient
from worker.comfyui.library import load_graphs
from worker.gate import Gate

pytestmark = [
    pytest.mark.real_comfyui,
    pytest.mark.skipif("COMFYUI_URL" not in os.environ, reason="COMFYUI_URL names no ComfyUI"),
]


class TestRealComfyUI(ComfyContract):
    @pytest.fixture
    def url(self) -> str:
        return os.environ["COMFYUI_URL"]

    async def test_the_gate_passes_with_the_graph_that_needs_no_model(
        self, http: httpx.AsyncClient, client: ComfyClient
    ) -> None:
        gate = Gate(comfy=client, graphs=load_graphs(), wanted=("invert@1",), monotonic=time.monotonic)
        report = await gate()
        assert report.passed, report.reason
        assert (report.graphs, report.painted) == (("invert@1",), ("invert@1",))
        assert await client.history(report.marker or "") is not None

    async def test_without_the_models_nothing_is_sold_and_the_gate_names_each_file_that_is_missing(
        self, client: ComfyClient
    ) -> None:
        info, graphs = await client.object_info(), load_graphs()
        missing = [
            text
            for label in graphs.labels()
            if graphs.get(label).sold
            for text in graphs.get(label).complaints(info)
        ]
        if not missing:
            pytest.skip("this ComfyUI has the models")
        report = await Gate(comfy=client, graphs=graphs, monotonic=time.monotonic)()
        assert not report.passed
        assert all(text in report.reason for text in missing)
        assert "nothing that is sold" in report.reason

    async def test_every_node_of_the_sold_graphs_is_there_with_the_inputs_that_we_give_it(
        self, client: ComfyClient
    ) -> None:
        info, graphs = await client.object_info(), load_graphs()
        for label in graphs.labels():
            found = graphs.get(label).complaints(info)
            assert [complaint for complaint in found if not complaint.startswith("model file")] == []
