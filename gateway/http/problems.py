"""RFC 9457: every error as `application/problem+json`. Statuses come from `gateway.http.codes`."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy.exc
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.http.codes import BUSY, OWN, PUBLIC, RETRY_AFTER_SECONDS, STATUS, TITLE
from generation.domain.errors import GenerationError, UploadRefused, WorkerNotAllowed
from ledger.errors import (
    IdempotencyConflict,
    InvariantViolated,
    LedgerError,
    LogUnavailable,
    OutcomeUnknown,
    Refusal,
    TooBusy,
)
from rails.contract import NotificationRejected, RailError, RailUnavailable
from rails.payments.service import NotificationsFull
from rails.recurring import ChangeRefused

TYPE_BASE = "https://llamasketch.com/problems/"
MEDIA_TYPE = "application/problem+json"

_TOO_BUSY = (TooBusy, psycopg_pool.TooManyRequests, sqlalchemy.exc.TimeoutError)
"""Everything answers, and more is asked than can be answered: all connections of a pool are in use."""

_DATABASE_AWAY = (
    psycopg.OperationalError,
    psycopg_pool.PoolTimeout,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
)

STANDS_FOR: Sequence[tuple[tuple[type[Exception], ...], str]] = (
    ((IdempotencyConflict,), "idempotency_conflict"),
    (_TOO_BUSY, "too_busy"),
    ((LogUnavailable, OutcomeUnknown), "ledger_unavailable"),
    ((InvariantViolated,), "invariant_violated"),
    (_DATABASE_AWAY, "database_unavailable"),
    ((WorkerNotAllowed,), "worker_not_allowed"),
    ((NotificationRejected,), "hint_rejected"),
    ((NotificationsFull,), "notifications_full"),
    ((RailUnavailable,), "rail_unavailable"),
    ((ChangeRefused,), "subscription_change_refused"),
    ((RailError,), "rail_failed"),
)
"""Which code stands for which errors. The first that fits counts."""

FRAMEWORK_CODES = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed"}
"""By the status of the framework's own errors."""


class Problem(Exception):
    """An answer that is not a success; `extra` becomes members of the document.

    The code decides the status, the title, `Retry-After`, and the detail unless a more exact one is given. Only what is
    plugged in brings codes that are not ours, and then their status and detail.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        self.status = STATUS[code] if status is None else status
        self.code = code
        self.detail = OWN[code].text if detail is None else detail
        again = RETRY_AFTER_SECONDS.get(code)
        self.headers = {**({} if again is None else {"Retry-After": str(again)}), **(headers or {})}
        self.extra = extra
        super().__init__(self.detail)

    def document(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": TYPE_BASE + self.code,
            "title": TITLE.get(self.code, TITLE[Refusal.code]),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }

    def response(self) -> JSONResponse:
        """The answer to send."""
        return JSONResponse(
            self.document(),
            status_code=self.status,
            headers={"Cache-Control": "no-store", **self.headers},
            media_type=MEDIA_TYPE,
        )


def problem_of(error: Exception) -> Problem:
    """How an exception looks from outside. What we do not know says nothing but that."""
    match error:
        case Problem():
            return error
        case Refusal():
            # A rail that somebody else installed may refuse in its own words: a conflict, as any refusal is.
            status = STATUS.get(error.code, STATUS[Refusal.code])
            return Problem(error.code, error.message, status=status, **_public(error))
        case UploadRefused():
            return Problem(error.code, error.detail)
        case _:
            return _stand_in(error)


def _stand_in(error: Exception) -> Problem:
    for kinds, code in STANDS_FOR:
        if isinstance(error, kinds):
            return Problem(code)
    return Problem("internal")


def _public(refusal: Refusal) -> dict[str, Any]:
    """What the asker may read of a refusal: the details that are written down as public for its code."""
    public = PUBLIC.get(refusal.code, frozenset())
    return {name: value for name, value in refusal.details.items() if name in public}


def problem_of_http(error: HTTPException) -> Problem:
    """The framework's own errors. It says 400 of bodies that it cannot read at all.

    An error that it does not raise today would be one that we do not know: our fault until somebody says otherwise.
    """
    return Problem(FRAMEWORK_CODES.get(error.status_code, "internal"), headers=error.headers)


def log_fault(path: str, problem: Problem, error: Exception) -> None:
    """Say that a request failed, and where; never the exception's words, which may quote what was sent."""
    places = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-8:]
    ]
    structlog.get_logger("gateway.http.problems").error(
        "request_failed", path=path, code=problem.code, error=type(error).__name__, at=places
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem document."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        # What was decided (a closed payment method, a full line) is no fault, and whoever asks again fills no log.
        if problem.status >= 500 and problem.code not in BUSY and not isinstance(error, Refusal):
            log_fault(request.url.path, problem, error)
        return problem.response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [
            {"location": [str(part)[:100] for part in item["loc"]], "message": item["msg"][:300]}
            for item in error.errors()[:20]
        ]
        malformed = any(item["type"] == "json_invalid" for item in error.errors())
        if malformed:
            return Problem("malformed_json", errors=found).response()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and any(f["location"][0] == "body" for f in found):
            return Problem("json_only").response()
        detail = "; ".join(f"{'.'.join(f['location'][1:])}: {f['message']}" for f in found[:3])
        return Problem("invalid_request", detail or None, errors=found).response()

    for kind in (Problem, LedgerError, GenerationError, RailError, *_TOO_BUSY, *_DATABASE_AWAY):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
