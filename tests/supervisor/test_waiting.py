"""A start that fails is explained by what this run said, and one that goes on is waited for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox.service import FileReady
from sandbox.supervisor import process
from sandbox.supervisor.errors import ChildFailed
from sandbox.supervisor.process import Child, ChildSpec

BUSY = "import pathlib, time; begin = time.process_time()\nwhile time.process_time() - begin < 1.5: pass\n"
BUSY += "pathlib.Path({path!r}).touch(); time.sleep(600)"


def child(code: str, folder: Path, shown: list[str]) -> Child:
    spec = ChildSpec(name="api", argv=[sys.executable, "-S", "-c", code], ready=FileReady(folder / "ready"))
    return Child(spec, lambda: folder / "api.log", shown.append)


async def test_what_an_earlier_run_said_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("a warning of yesterday\n")
    with pytest.raises(ChildFailed, match="it said nothing") as failed:
        await child("raise SystemExit(3)", tmp_path, []).start()
    assert "yesterday" not in str(failed.value)


async def test_it_is_waited_for_as_long_as_it_computes_and_the_person_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "READY_SECONDS_MAX", 1.0)
    monkeypatch.setattr(process, "SHOWN_EVERY_SECONDS", 0.3)
    shown: list[str] = []
    slow = child(BUSY.format(path=str(tmp_path / "ready")), tmp_path, shown)
    await slow.start()
    await slow.stop()
    assert shown[0].startswith("Waiting for api, since 0 s")
