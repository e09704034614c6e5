"""The whole ledger on the real log against a naive model, whatever happens to the processes.

Two sequencers write to one PostgreSQL. Commands come one by one, in batches, twice, at both
processes at once; connections are killed before and after COMMIT; processes are replaced;
clocks go forth and back. After each step the naive model is asked in the order in which the log
says things happened, and must agree.

`LLAMASKETCH_PROOF_EXAMPLES=2000 python -m pytest tests/proof/test_ledger_machine.py` looks longer.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.proof.harness import Harness
from tests.proof.random_commands import Ledger
from tests.proof.walk import live

EXAMPLES = int(os.environ.get("LLAMASKETCH_PROOF_EXAMPLES", "6"))
"""About half a second each; for every two of them there is one long life."""
LIVES = settings(
    max_examples=EXAMPLES,
    stateful_step_count=60,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_happens_the_ledger_is_what_the_model_says(harness: Harness) -> None:
    run_state_machine_as_test(Ledger, settings=LIVES)
    report = harness.verified()
    assert report.ok, report.findings
    assert report.outcomes > EXAMPLES


def test_long_lives_are_what_the_model_says(harness: Harness) -> None:
    for seed in range(EXAMPLES // 2):
        live(seed)
    report = harness.verified()
    assert report.ok, report.findings
    assert report.snapshots > 0
