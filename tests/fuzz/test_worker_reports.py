"""Whatever a rented machine reports: it fits our tables, or it is refused as no such report."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.routes.worker import (
    CompleteIn,
    FailIn,
    GiveBackIn,
    GraphsIn,
    HeartbeatIn,
    RegisterIn,
    SelfTestIn,
    _preview,
)
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.hostile import bodies

CAPABILITIES = {"graphs": ["sketch@1"], "gpu": "RTX 4090", "vram_mb": 24_000}
REPORTS: dict[type[BaseModel], dict[str, Any]] = {
    RegisterIn: {"token": "t" * 40, "name": "worker", "version": "1.0", "capabilities": CAPABILITIES},
    GraphsIn: {"graphs": ["sketch@1"]},
    SelfTestIn: {"passed": True, "reason": ""},
    HeartbeatIn: {"epoch": 1, "progress": {"value": 1, "max": 4}, "moved": 2, "preview": "aGk="},
    CompleteIn: {"epoch": 1, "sha256": "0" * 64, "size": 5, "content_type": "image/webp", "gpu_ms": 7},
    FailIn: {"epoch": 1, "failure": "infrastructure", "code": "no_gpu", "node": "3"},
    GiveBackIn: {"epoch": 1},
}


def is_storable(value: Any) -> bool:
    """No number beyond a column of 64 bits, and no text that PostgreSQL refuses."""
    if isinstance(value, dict):
        return all(is_storable(inner) for inner in value.values())
    if isinstance(value, list):
        return all(is_storable(inner) for inner in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, str) or "\x00" not in value.encode().decode()


@pytest.mark.parametrize("kind", REPORTS)
def test_a_genuine_report_is_read(kind: type[BaseModel]) -> None:
    assert kind.model_validate(REPORTS[kind])


@fuzzed(kind=st.sampled_from(list(REPORTS)), data=st.data())
def test_a_report_of_a_worker_is_read_or_refused(kind: type[BaseModel], data: st.DataObject) -> None:
    body = data.draw(bodies(REPORTS[kind]))
    with contextlib.suppress(ValidationError):
        kind.model_validate_json(body)
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):  # which FastAPI answers with 400 or 422
        return
    try:
        report = kind.model_validate(sent)
    except ValidationError:
        return
    assert is_storable(report.model_dump())
    if isinstance(report, HeartbeatIn):
        assert isinstance(_preview(report.preview), bytes | None)
