"""RFC 9457: every error as `application/problem+json`. The only file with HTTP statuses of refusals."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy.exc
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from generation.errors import GenerationError, SketchRejected, WorkerNotAllowed
from ledger.errors import (
    IdempotencyConflict,
    LedgerError,
    LogUnavailable,
    OutcomeUnknown,
    Refusal,
    TooBusy,
)
from rails.contract import HintRejected, RailError, RailUnavailable

TYPE_BASE = "https://llamasketch.com/problems/"
MEDIA_TYPE = "application/problem+json"

REFUSAL_STATUS: Mapping[str, int] = {
    "insufficient_credits": 402,
    "account_in_debt": 402,
    "allowance_shared_out": 402,
    "session_spend_cap_reached": 402,
    "job_not_found": 404,
    "payment_not_found": 404,
    "unknown_rail": 404,
    "no_webhooks": 404,
    "too_many_in_flight": 429,
    "too_many_variations": 429,
    "too_many_open_payments": 429,
    "queue_full": 503,
    "no_worker_can_serve": 503,
    "rail_closed": 503,
    "amount_too_small": 422,
    "amount_too_large": 422,
    "unsupported_asset": 422,
    "asset_not_accepted": 422,
    "topup_unclear": 422,
    "cannot_hold": 422,
    "invalid_amount": 422,
}
"""By refusal code; any other refusal is a conflict with what is so: 409."""

UNFINISHED = frozenset({401, 402, 429})
"""With these, and with 5xx, an Idempotency-Key stays open: the same request may still run, once."""

_DATABASE_AWAY = (
    psycopg.OperationalError,
    psycopg_pool.PoolTimeout,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
)

_HTTP_CODES = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed"}

_TITLES = {
    400: "Bad request",
    401: "Who are you?",
    402: "Payment required",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    410: "Gone",
    411: "Length required",
    413: "Too large",
    415: "Unsupported content type",
    422: "Cannot be processed",
    426: "Upgrade required",
    429: "Too many requests",
    500: "Something broke on our side",
    502: "Bad answer from a payment rail",
    503: "Not available right now",
}


class Problem(Exception):
    """An answer that is not a success; `extra` becomes members of the document."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra
        super().__init__(detail)

    def document(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": TYPE_BASE + self.code,
            "title": _TITLES.get(self.status, "Error"),
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
            status = REFUSAL_STATUS.get(error.code, 409)
            return Problem(status, error.code, error.message, **_public(error.details))
        case IdempotencyConflict():
            return Problem(409, "idempotency_conflict", "This Idempotency-Key was used with another body.")
        case TooBusy() | LogUnavailable() | OutcomeUnknown():
            detail = "The ledger does not answer right now. Nothing is lost; send the same request again."
            return Problem(503, "ledger_unavailable", detail, headers={"Retry-After": "2"})
        case _ if isinstance(error, _DATABASE_AWAY):
            detail = "The database does not answer right now. Nothing is lost; send the same request again."
            return Problem(503, "database_unavailable", detail, headers={"Retry-After": "2"})
        case SketchRejected():
            status = {"sketch_too_large": 413, "sketch_type": 415}.get(error.code, 422)
            return Problem(status, error.code, error.detail)
        case WorkerNotAllowed():
            return Problem(401, "worker_not_allowed", "These worker credentials are not valid.")
        case HintRejected():
            return Problem(400, "hint_rejected", "The notification is not authentic.")
        case RailUnavailable():
            detail = "This way to pay does not answer right now. Try again, or pay another way."
            return Problem(503, "rail_unavailable", detail, headers={"Retry-After": "5"})
        case RailError():
            return Problem(502, "rail_failed", "This way to pay answered in a way we do not understand.")
        case _:
            return Problem(500, "internal", "Something broke on our side. You were not charged for it.")


def _public(details: Mapping[str, Any]) -> dict[str, Any]:
    reserved = {"type", "title", "status", "detail", "code"}
    return {name: value for name, value in details.items() if name not in reserved}


def problem_of_http(error: HTTPException) -> Problem:
    """The framework's own errors. It says 400 of bodies that it cannot read at all."""
    code = _HTTP_CODES.get(error.status_code, f"http_{error.status_code}")
    detail = "The body is not valid JSON." if code == "malformed_json" else str(error.detail)
    return Problem(error.status_code, code, detail, headers=error.headers)


def leaves_key_open(error: Exception) -> bool:
    """Whether the log keeps this refusal although the same request may succeed later.

    A fault is not meant: nothing was kept of it, or its outcome is not known, and then the same
    command key has to be asked again.
    """
    if not isinstance(error, Refusal):
        return False
    status = problem_of(error).status
    return status in UNFINISHED or status >= 500


def log_fault(path: str, problem: Problem, error: Exception) -> None:
    """Say that a request failed, and where; never the exception's words, which may quote what was sent."""
    places = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-8:]
    ]
    structlog.get_logger("gateway.problems").error(
        "request_failed", path=path, code=problem.code, error=type(error).__name__, at=places
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem document."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        if problem.status >= 500:
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
            return Problem(400, "malformed_json", "The body is not valid JSON.", errors=found).response()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and any(f["location"][0] == "body" for f in found):
            return Problem(415, "json_only", "Send JSON, with Content-Type: application/json.").response()
        detail = "; ".join(f"{'.'.join(f['location'][1:])}: {f['message']}" for f in found[:3])
        return Problem(422, "invalid_request", detail or "The request is not valid.", errors=found).response()

    for kind in (Problem, LedgerError, GenerationError, RailError, *_DATABASE_AWAY):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
