"""`make run` takes settings from the environment and, below it, from a `.env` file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.supervisor.__main__ import _parse, _settings

FILE = """\
# A comment, and an empty line.

PLAIN=one
export EXPORTED=two
QUOTED="three # four"
EXPLAINED=five # a comment behind a value
SECRET='a${b}=c$d'
EMPTY=
WITHOUT_A_VALUE
OVERRIDDEN=file
"""


def test_a_settings_file_is_read_as_shells_and_compose_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    assert _settings({"OVERRIDDEN": "environment"}) == {
        "PLAIN": "one",
        "EXPORTED": "two",
        "QUOTED": "three # four",
        "EXPLAINED": "five",
        "SECRET": "a${b}=c$d",
        "EMPTY": "",
        "OVERRIDDEN": "environment",
    }


def test_without_a_file_the_environment_is_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _settings({"NAME": "value"}) == {"NAME": "value"}


def test_the_file_also_says_where_the_stack_listens_and_keeps_its_data() -> None:
    settings = {"LLAMASKETCH_HOST": "0.0.0.0", "LLAMASKETCH_PORT": "8123", "LLAMASKETCH_DATA": "there"}
    options = _parse([], settings)
    assert (options.host, options.port, options.data) == ("0.0.0.0", 8123, Path("there"))
    assert _parse(["--port", "8124"], settings).port == 8124
    assert _parse([], {"LLAMASKETCH_PORT": ""}).port == 8000
