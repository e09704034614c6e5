"""What `make setup` says while it works."""

from __future__ import annotations

import os
import re
import subprocess

from tests.house.sources import ROOT

WITH_PROGRESS = str(ROOT / ".ci" / "with-progress")


def run(what: str, *command: str, every: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PROGRESS_SECONDS": every}
    return subprocess.run(
        [WITH_PROGRESS, what, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_long_step_says_that_it_still_goes_on() -> None:
    done = run("Fetching", "sleep", "1", every="0.1")
    first, *others = done.stdout.splitlines()
    assert first == "Fetching …"
    assert others
    assert all("still going" in line for line in others)


def test_a_short_step_says_what_it_does_and_no_more_and_nobody_waits_for_the_next_line() -> None:
    assert run("Fetching", "true", every="3600").stdout == "Fetching …\n"


def test_a_step_that_fails_passes_its_code_on() -> None:
    assert run("Fetching", "sh", "-c", "exit 7", every="3600").returncode == 7


def test_no_step_of_the_set_up_is_silent() -> None:
    makefile = (ROOT / "Makefile").read_text()
    steps = re.findall(r"^(\$\(STAMPS\)/[\w-]+):[^\n]*\n((?:\t[^\n]*\n)+)", makefile, re.MULTILINE)
    assert len(steps) == 5
    assert [name for name, recipe in steps if "with-progress" not in recipe] == []
