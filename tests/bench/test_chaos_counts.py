"""The counting after chaos finds what must not be: each wrong thing, put there on purpose, is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.chaos_count import Tally, checks
from bench.chaos_load import Book

ANNA, BERT = "acct_anna", "acct_bert"
DIGESTS = {"job_1": "d1", "job_2": "d2"}


class After:
    """What is there when all went well: two delivered images and a cancelled job."""

    def __init__(self) -> None:
        self.book = Book(accepted={"job_1": ANNA, "job_2": BERT, "job_3": ANNA}, ended={"job_1": "completed"})
        self.found = Tally(
            owners={"job_1": ANNA, "job_2": BERT, "job_3": ANNA},
            ends={"job_1": ["completed"], "job_2": ["completed"], "job_3": ["cancelled"]},
            digests=dict(DIGESTS),
        )
        self.found.captured_by_job.update({"job_1": 1, "job_2": 1})
        self.found.captures_by_job.update({"job_1": 1, "job_2": 1})
        self.found.holds.update({"credits_held": 3, "hold_captured": 2, "hold_released": 1})
        self.holds_open = 0
        self.beside: dict[str, Any] = {"queue": 0, "images": {"job_1": "a", "job_2": "b"}}
        self.fetched: dict[str, str | None] = dict(DIGESTS)
        self.held_by_api = 0

    def wrong(self) -> set[str]:
        """The checks that fail."""
        found = checks(self.book, self.found, self.holds_open, self.beside, self.fetched, self.held_by_api)
        return {check.what for check in found if not check.ok}


def test_nothing_is_wrong_when_all_went_well() -> None:
    assert After().wrong() == set()


def lose_an_accepted_job(after: After) -> None:
    after.book.accepted["job_4"] = ANNA


def leave_a_job_open(after: After) -> None:
    after.found.ends["job_3"] = []


def end_a_job_twice(after: After) -> None:
    after.found.ends["job_3"] = ["cancelled", "expired"]


def leave_a_row(after: After) -> None:
    after.beside["queue"] = 1


def leave_a_hold(after: After) -> None:
    after.holds_open = 1


def hold_in_the_api(after: After) -> None:
    after.held_by_api = 1


def forget_a_hold(after: After) -> None:
    after.found.holds["hold_released"] = 0


def charge_twice(after: After) -> None:
    after.found.captures_by_job["job_1"] = 2


def charge_for_nothing(after: After) -> None:
    after.found.captured_by_job["job_3"] = 1


def deliver_for_nothing(after: After) -> None:
    del after.found.captured_by_job["job_2"]


def spoil_an_image(after: After) -> None:
    after.fetched["job_2"] = "another"


def lose_an_image(after: After) -> None:
    after.fetched["job_2"] = None


def give_it_to_another(after: After) -> None:
    after.found.owners["job_1"] = BERT


def take_an_end_back(after: After) -> None:
    after.book.ended["job_3"] = "completed"


def make_a_job_of_nothing(after: After) -> None:
    after.found.ends["job_9"] = ["cancelled"]


def forget_a_result(after: After) -> None:
    del after.beside["images"]["job_1"]


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lose_an_accepted_job, "accepted requests without their job"),
        (leave_a_job_open, "jobs that have not ended"),
        (end_a_job_twice, "jobs that ended twice"),
        (leave_a_row, "rows left in the queue"),
        (leave_a_hold, "holds open"),
        (hold_in_the_api, "holds open, as the API says"),
        (forget_a_hold, "holds resolved"),
        (charge_twice, "jobs charged twice"),
        (charge_for_nothing, "charged jobs without an image"),
        (deliver_for_nothing, "credits captured"),
        (spoil_an_image, "images fetched with the right digest"),
        (lose_an_image, "images fetched with the right digest"),
        (give_it_to_another, "jobs of somebody else"),
        (take_an_end_back, "ends told over HTTP that are not so"),
        (make_a_job_of_nothing, "jobs beyond accepted and unanswered requests"),
        (forget_a_result, "delivered images in the index"),
    ],
)
def test_what_must_not_be_is_named(break_it: Callable[[After], None], named: str) -> None:
    after = After()
    break_it(after)
    assert named in after.wrong()


def test_a_job_whose_request_was_never_answered_is_no_surprise() -> None:
    after = After()
    make_a_job_of_nothing(after)
    after.book.unanswered = 1
    assert after.wrong() == set()


def test_one_key_with_two_jobs_is_a_contradiction() -> None:
    after = After()
    after.book.accept("job_1", ANNA, before="job_3")
    assert after.wrong() == {"contradicting answers"}


def test_an_end_that_changes_is_a_contradiction() -> None:
    after = After()
    after.book.saw("job_1", "failed")
    assert after.wrong() == {"contradicting answers"}
