"""The stand-in passes the suite that a real ComfyUI passes."""

from __future__ import annotations

import pytest

from tests.worker.comfyui.contract_suite import ComfyContract
from tests.worker.comfyui.server import ComfyServer


class TestStandIn(ComfyContract):
    @pytest.fixture
    def url(self, comfyui: ComfyServer) -> str:
        return comfyui.url
