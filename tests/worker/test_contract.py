"""An answer of the gateway double that the application would not give is noticed."""

from __future__ import annotations

import re

import pytest

from gateway.http.problems import MEDIA_TYPE, problem_of
from generation.domain.errors import WorkerNotAllowed
from tests.worker.contract import wrong_with

JSON = "application/json"
COMPLETE = "/v1/worker/jobs/job_1/complete"


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        ("/v1/worker/drain", 200, JSON, b'{"state": "draining"}'),
        (COMPLETE, 200, JSON, b'{"state": "completed"}'),
        ("/v1/worker/claim", 204, JSON, b""),
        ("/v1/worker/claim", 401, MEDIA_TYPE, problem_of(WorkerNotAllowed()).response().body),
    ],
    ids=["drain", "complete", "nothing to do", "a problem"],
)
def test_what_the_application_answers_passes(path: str, status: int, content_type: str, body: bytes) -> None:
    assert wrong_with("POST", path, status, content_type, body) is None


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body", "why"),
    [
        ("/v1/worker/leave", 200, JSON, b"{}", "no such route"),
        ("/v1/worker/drain", 200, JSON, b"{}", "state"),
        ("/v1/worker/drain", 200, JSON, b'{"state": 1}', "string"),
        ("/v1/worker/drain", 200, JSON, b'{"state": "draining", "since": 1}', "unknown members: .*since"),
        ("/v1/worker/renew", 201, JSON, b"{}", "never answers 201"),
        ("/v1/worker/claim", 204, JSON, b"{}", "a body where there is none"),
        (COMPLETE, 409, JSON, b'{"code": "stale_lease"}', "not sent as"),
        (COMPLETE, 409, MEDIA_TYPE, b'{"code": "stale_lease"}', "title"),
        (
            COMPLETE,
            401,
            MEDIA_TYPE,
            b'{"type": "t", "title": "t", "status": 401, "detail": "d", "code": "token_refused"}',
            "no problem with status 401",
        ),
    ],
)
def test_what_it_never_answers_does_not(
    path: str, status: int, content_type: str, body: bytes, why: str
) -> None:
    wrong = wrong_with("POST", path, status, content_type, body)
    assert wrong is not None
    assert re.search(why, wrong), wrong
