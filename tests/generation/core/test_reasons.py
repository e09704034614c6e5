"""Whatever keeps an image from coming, the person is told in a sentence."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import generation
import rails.domain.refusals
import worker
import worker.comfyui
from generation.domain.job import Job
from generation.domain.reasons import FAILURES, UNKNOWN, CancelledBy, Reason, sentence
from generation.domain.states import JobState
from ledger.domain import holding
from ledger.errors import Refusal
from ledger.identifiers import HoldId
from worker.comfyui.faults import ComfyFault

ROOT = Path(generation.__file__).parent


REFUNDS = {
    "destination_missing",
    "destination_not_taken",
    "destination_unusable",
    "nothing_to_refund",
    "refund_not_by_hand",
    "refund_not_found",
    "refund_too_late",
    "refund_unclear",
    "refund_under_way",
}
"""What is refused of sending money back, which no job waits for."""


def kinds(base: type[ComfyFault]) -> Iterator[type[ComfyFault]]:
    yield base
    for below in base.__subclasses__():
        yield from kinds(below)


def faults() -> set[str]:
    """The codes of everything that can go wrong at a worker."""
    for package in (worker.comfyui, worker):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return {kind.code for kind in kinds(ComfyFault)}


def refusals() -> set[str]:
    """What the ledger or a payment request may refuse of a payment for one image."""
    paying = {
        value.code
        for value in vars(rails.domain.refusals).values()
        if isinstance(value, type) and issubclass(value, Refusal) and value is not Refusal
    }
    source = Path(holding.__file__).read_text()
    holds = [
        function
        for function in ast.parse(source).body
        if isinstance(function, ast.FunctionDef) and "HoldCredits" in ast.unparse(function.args)
    ]
    raised = {
        getattr(holding, ast.unparse(node.exc.func)).code
        for function in holds
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    return (paying - {"no_webhooks", "money_credited_elsewhere"} - REFUNDS) | raised


def test_every_code_has_a_sentence() -> None:
    assert (faults() | set(Reason) | refusals()) - set(FAILURES) == set()


def test_no_sentence_is_for_a_code_that_nobody_reports() -> None:
    reported_by_other_workers = {"blank_sketch", "given_back"}
    assert set(FAILURES) - faults() - refusals() - set(Reason) - reported_by_other_workers == set()


def test_no_end_has_a_reason_that_is_written_beside_the_list() -> None:
    texts = {reason.value for reason in (*Reason, *CancelledBy)}
    offences = [
        f"{file.relative_to(ROOT)}: {node.value}"
        for file in ROOT.rglob("*.py")
        if file.name not in ("reasons.py", "errors.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in texts - {"person"}
    ]
    assert offences == []


@pytest.mark.parametrize("code", sorted(FAILURES))
def test_a_sentence_is_one_for_people(code: str) -> None:
    text = FAILURES[code]
    assert text[0].isupper()
    assert text.endswith(".")
    assert code not in text
    assert "_" not in text
    assert sentence(Job(state=JobState.FAILED, reason=code)) == f"{text} You were not charged."


def test_a_code_that_is_not_known_is_explained_all_the_same() -> None:
    assert sentence(Job(state=JobState.FAILED, reason="new_trouble")) == f"{UNKNOWN} You were not charged."


@pytest.mark.parametrize("state", [state for state in JobState if state.final])
def test_every_end_without_an_image_is_explained(state: JobState) -> None:
    text = sentence(Job(state=state))
    assert (text is None) == (state is JobState.COMPLETED)
    assert text is None or text.endswith("You were not charged.")


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (Job(state=JobState.FAILED), UNKNOWN),
        (Job(state=JobState.BLOCKED, reason="nudity"), "Our content rules do not allow this."),
        (Job(state=JobState.EXPIRED, hold_id=HoldId("hold_1")), "Nobody could paint it in time."),
        (Job(state=JobState.EXPIRED, payment_id="pay_1"), "Nobody could paint it in time."),
        (Job(state=JobState.EXPIRED), "It was not paid in time."),
        (Job(state=JobState.CANCELLED), "It was cancelled."),
        (Job(state=JobState.CANCELLED, reason="person"), "You cancelled it."),
        (Job(state=JobState.SUPERSEDED), "A newer frame of its live session took its place."),
    ],
    ids=lambda value: value.state.value if isinstance(value, Job) else "",
)
def test_each_end_has_its_own_words(job: Job, why: str) -> None:
    assert sentence(job) == f"{why} You were not charged."


def test_every_way_to_be_cancelled_has_its_own_sentence() -> None:
    texts = {sentence(Job(state=JobState.CANCELLED, reason=who)) for who in CancelledBy}
    assert len(texts) == len(CancelledBy)
    assert "It was cancelled. You were not charged." not in texts
