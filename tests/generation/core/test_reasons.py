"""Whatever keeps an image from coming, the person is told in a sentence."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import generation
import generation.comfyui
import generation.worker
import rails.refusals
from generation.comfyui.faults import ComfyFault
from generation.job import Job, JobState
from generation.job_events import JobCancelled
from generation.reasons import FAILURES, UNKNOWN, sentence
from ledger.domain import holding
from ledger.errors import Refusal

ROOT = Path(generation.__file__).parent


def kinds(base: type[ComfyFault]) -> Iterator[type[ComfyFault]]:
    yield base
    for below in base.__subclasses__():
        yield from kinds(below)


def faults() -> set[str]:
    """The codes of everything that can go wrong at a box."""
    for package in (generation.comfyui, generation.worker):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return {kind.code for kind in kinds(ComfyFault)}


def said_by_the_server(function: str, argument: str) -> set[str]:
    """The texts given as `argument=` to calls of `function` anywhere in the generation side."""
    found, named = set(), named_texts()
    for file in ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(function):
                values = [keyword.value for keyword in node.keywords if keyword.arg == argument]
                found |= {value.value for value in values if isinstance(value, ast.Constant)}
                found |= {
                    named[value.id] for value in values if isinstance(value, ast.Name) and value.id in named
                }
    return {str(text) for text in found}


def named_texts() -> dict[str, str]:
    """The texts that have a name at the top of a module of the generation side."""
    return {
        target.id: node.value.value
        for file in ROOT.glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def refusals() -> set[str]:
    """What the ledger or a way to pay may refuse of a payment for one image."""
    paying = {
        value.code
        for value in vars(rails.refusals).values()
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
    return (paying - {"no_webhooks", "money_credited_elsewhere"}) | raised


def test_every_code_has_a_sentence() -> None:
    server = said_by_the_server("JobFailed", "reason") | said_by_the_server("Failure", "code")
    server |= said_by_the_server(".fail", "code")
    assert {"inputs_erased", "worker_lost", "bad_result", "hold_closed", "not_paid"} <= server
    codes = faults() | server | refusals()
    assert codes - set(FAILURES) == set()


def test_no_sentence_is_for_a_code_that_nobody_says() -> None:
    said = faults() | refusals() | said_by_the_server("JobFailed", "reason")
    said |= said_by_the_server("Failure", "code") | said_by_the_server(".fail", "code")
    by_boxes_of_others = {"blank_sketch", "given_back"}
    assert set(FAILURES) - said - by_boxes_of_others == set()


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


def test_every_way_to_be_cancelled_has_its_own_sentence() -> None:
    by = said_by_the_server(JobCancelled.__name__, "by") | {"session_paused"}
    texts = {sentence(Job(state=JobState.CANCELLED, reason=who)) for who in by}
    assert len(texts) == len(by)
    assert "It was cancelled. You were not charged." not in texts
