"""The pages read nothing that the API does not send: their JavaScript is checked against types made from it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.typescript import FILE, types
from tests.house.sources import ROOT

WEB = ROOT / "gateway" / "web"
PAGES = WEB / "static" / "js"
TSC = ROOT / "node_modules" / ".bin" / "tsc"


def checked(configuration: Path = WEB / "jsconfig.json") -> str:
    """What the compiler finds in JavaScript, by default the pages'; nothing if all is well."""
    if shutil.which("node") is None:
        pytest.skip("no Node")
    found = subprocess.run([TSC, "-p", configuration], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout + found.stderr


def test_the_types_are_those_of_the_api() -> None:
    assert FILE.read_text() == types(), "python -m tests.gateway.typescript writes them anew"


def test_every_property_that_a_page_reads_from_an_answer_is_one_that_the_api_sends() -> None:
    assert not checked()


def test_a_property_that_the_api_does_not_send_is_found(tmp_path: Path) -> None:
    (tmp_path / "probe.js").write_text(
        f'import {{ api }} from "{PAGES}/api.js";\n'
        f'import {{ on }} from "{PAGES}/events.js";\n'
        'api("GET", `/v1/generations/${location.hash}`).then((answer) => answer.prompt);\n'
        'api("GET", "/v1/plans").then((answer) => answer.plans[0].checkout_url);\n'
        'api("GET", "/v1/nowhere").then((answer) => answer.anything);\n'
        'on("topup", (data) => data.paid_by);\n'
    )
    configuration = tmp_path / "jsconfig.json"
    configuration.write_text(json.dumps({"extends": str(WEB / "jsconfig.json"), "include": ["probe.js"]}))
    assert re.findall(r"probe\.js\((\d+),\d+\): error TS2339", checked(configuration)) == ["3", "4", "5", "6"]
