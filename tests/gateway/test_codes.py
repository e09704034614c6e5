"""Codes are data: stored in events and outcomes, decided by in clients' programs. A golden file holds them all."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import gateway
import generation
import ledger
import mail
import processes
import projections
import rails
import worker
from gateway.http.codes import MET, OWN, PUBLIC, RETRY_AFTER_SECONDS, STATUS, TITLE, UNMET
from gateway.http.problems import FRAMEWORK_CODES, Problem, problem_of
from generation.domain.errors import SketchRejected
from generation.domain.reasons import FAILURES
from ledger.domain.refusals import AccountMerged, InsufficientCredits
from ledger.errors import OwnError, Refusal
from rails.domain.crediting import PaymentAccountMoved
from rails.domain.refusals import MoneyCreditedElsewhere
from rails.payments.service import NotificationsFull
from tests.gateway.golden import golden
from worker.comfyui.faults import ComfyFault

PACKAGES = (ledger, rails, generation, mail, processes, projections, gateway, worker)
HELD: Mapping[str, Any] = golden("codes")


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__") and ".migrations" not in module.name:
                importlib.import_module(module.name)


def refusals() -> dict[str, type[Refusal]]:
    """Every refusal of ours, by its code; those that tests declare are not meant."""
    ours = {package.__name__ for package in PACKAGES}
    return {
        code: kind for code, kind in Refusal.declared().items() if kind.__module__.partition(".")[0] in ours
    }


def faults() -> dict[str, type[ComfyFault]]:
    """Every fault that a worker may report, by its code."""

    def below(kind: type[ComfyFault]) -> list[type[ComfyFault]]:
        return [kind, *(found for one in kind.__subclasses__() for found in below(one))]

    return {kind.code: kind for kind in below(ComfyFault) if kind.__module__.startswith("worker.")}


def errors() -> list[type[OwnError]]:
    """Every error of ours that is no refusal and has a code of its own."""

    def below(kind: type[OwnError]) -> list[type[OwnError]]:
        return [kind, *(found for one in kind.__subclasses__() for found in below(one))]

    ours = {package.__name__ for package in PACKAGES}
    return [
        kind
        for kind in below(OwnError)
        if not issubclass(kind, Refusal)
        and kind.__module__.partition(".")[0] in ours
        and isinstance(vars(kind).get("code"), str)
    ]


def test_every_problem_keeps_its_code_its_status_its_words_and_its_public_details() -> None:
    own = {
        code: {"status": meaning.status, "title": meaning.title, "message": meaning.text}
        for code, meaning in OWN.items()
    }
    refused = {
        code: {
            "status": STATUS[code],
            "title": TITLE[code],
            "message": kind.message,
            "details": sorted(PUBLIC[code]),
        }
        for code, kind in {Refusal.code: Refusal, **refusals()}.items()
    }
    assert {**own, **refused} == HELD["problems"]


def test_whatever_may_be_sent_again_says_when() -> None:
    again = {code for code, status in STATUS.items() if status in (408, 429, 503)}
    assert set(RETRY_AFTER_SECONDS) == again
    assert dict(RETRY_AFTER_SECONDS) == HELD["retry_after_seconds"]
    for code in again:
        answer = problem_of(Refusal.restore(code, {})) if code not in OWN else Problem(code)
        assert answer.response().headers["Retry-After"] == str(RETRY_AFTER_SECONDS[code])


def test_every_error_that_may_be_kept_with_failed_work_keeps_its_code_and_its_text() -> None:
    assert {kind.code: kind.message for kind in errors()} == HELD["errors"]
    assert len({kind.code for kind in errors()}) == len(errors()), "two errors share a code"


def test_a_detail_that_is_not_written_down_as_public_is_not_sent() -> None:
    found = problem_of(InsufficientCredits(wanted=3, available=1, lot_id="lot_of_somebody")).document()
    assert (found["wanted"], found["available"]) == (3, 1)
    assert "lot_id" not in found


@pytest.mark.parametrize(
    "refusal",
    [
        AccountMerged(into="acct_another"),
        MoneyCreditedElsewhere(money_ref="txid:0", payment_id="pay_another"),
        PaymentAccountMoved(into="acct_another"),
        Refusal.restore("of_long_ago", {"account_id": "acct_another"}),
    ],
    ids=lambda refusal: refusal.code,
)
def test_no_refusal_names_what_belongs_to_another_account(refusal: Refusal) -> None:
    assert set(problem_of(refusal).document()) == {"type", "title", "status", "detail", "code"}


def test_no_public_detail_is_the_id_of_anything() -> None:
    for code, details in PUBLIC.items():
        assert not {name for name in details if name.endswith(("_id", "_ref", "into"))}, code
        assert not details & {"type", "title", "status", "detail", "code"}, code


def test_a_problem_says_what_is_written_down_and_nothing_of_the_error_itself() -> None:
    for error in (*(kind.__new__(kind) for kind in errors()), ValueError("secret"), OSError("secret")):
        if not isinstance(error, SketchRejected):
            found = problem_of(error).document()
            assert (found["title"], found["detail"]) == (TITLE[found["code"]], OWN[found["code"]].text)


def test_a_full_inbox_is_told_apart_from_a_ledger_that_does_not_answer() -> None:
    answer = problem_of(NotificationsFull()).response()
    assert (answer.status_code, json.loads(answer.body)["code"]) == (503, "notifications_full")
    assert int(answer.headers["Retry-After"]) > 0


def test_every_fault_of_a_worker_keeps_its_code_its_class_and_its_text() -> None:
    found = {code: {"failure": kind.failure, "message": kind.message} for code, kind in faults().items()}
    assert found == HELD["worker_faults"]


def test_every_failure_of_a_job_keeps_its_code_and_its_text() -> None:
    assert dict(FAILURES) == HELD["job_failures"]


def test_every_refusal_has_a_status_and_no_status_is_for_a_refusal_that_is_gone() -> None:
    assert {*MET, *UNMET} - {Refusal.code} == set(refusals())
    assert len(STATUS) == len(OWN) + len(MET) + len(UNMET), "a code is in two tables"


def test_every_code_of_a_rejected_sketch_and_of_the_framework_has_a_status() -> None:
    rejected = {
        code
        for package in (generation, gateway)
        for file in Path(package.__path__[0]).rglob("*.py")
        for code in re.findall(r'SketchRejected\(\s*"([a-z_]+)"', file.read_text())
    }
    assert {"sketch_too_large", "sketch_type", "sketch_unreadable"} <= rejected
    assert rejected <= set(OWN)
    assert {status: STATUS[code] for status, code in FRAMEWORK_CODES.items()} == {
        status: status for status in FRAMEWORK_CODES
    }


@pytest.mark.parametrize("base", [Refusal, ComfyFault])
@pytest.mark.parametrize("missing", ["code", "message"])
def test_what_declares_no_code_or_no_message_cannot_be_defined(base: type, missing: str) -> None:
    declared = {"code": "never_used", "message": "It is never seen."}
    del declared[missing]
    with pytest.raises(TypeError, match=f"must declare its own {missing}"):
        type("Unfinished", (base,), declared)


def test_a_code_cannot_be_declared_twice() -> None:
    with pytest.raises(TypeError, match="share the code"):
        type("Another", (Refusal,), {"code": InsufficientCredits.code, "message": "Also too few."})


def test_what_a_refusal_answers_does_not_depend_on_its_name_or_description() -> None:
    class Renamed(Refusal):
        """Another description."""

        code = "renamed_for_a_test"
        message = "It stays as it was."

    stored = Refusal.restore("renamed_for_a_test", {"left": 3})
    assert isinstance(stored, Renamed)
    assert (stored.message, stored.left) == ("It stays as it was.", 3)


def test_a_stored_refusal_whose_class_is_gone_is_still_a_conflict() -> None:
    problem = problem_of(Refusal.restore("of_long_ago", {"left": 3}))
    assert (problem.status, problem.code) == (409, "refused")
