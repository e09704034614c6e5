"""The OpenAPI document, completed: who may call what, and every error as a problem document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.authentication import current_principal
from gateway.identity import SESSION_COOKIE, VISITOR_COOKIE
from gateway.problems import MEDIA_TYPE, REFUSAL_STATUS
from gateway.routes import account, events, generations, health, live, session, topups, worker
from gateway.routes.shapes import PROBLEMS_FIELD, ProblemOut
from ledger.errors import Refusal

_ROUTERS = tuple(
    module.router for module in (account, generations, live, topups, events, session, worker, health)
)

_OPTIONAL = frozenset({"GET /v1/account", "GET /v1/session", "POST /v1/session"})
"""Operations that also answer somebody who brings nothing."""

_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A visitor's token from POST /v1/visitors, or a token of the OIDC issuer.",
    },
    "visitor": {"type": "apiKey", "in": "cookie", "name": VISITOR_COOKIE, "description": "Set by our pages."},
    "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "Set by sign-in."},
    "box": {"type": "http", "scheme": "bearer", "description": "A worker's own token, from registration."},
}

_OURS: Mapping[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not JSON."),
    "bad_idempotency_key": (400, "The Idempotency-Key is empty, too long, or not printable ASCII."),
    "bad_last_event_id": (400, "The Last-Event-ID is not from this account's stream."),
    "hint_rejected": (400, "A rail's notification is not authentic."),
    "unauthenticated": (401, "There is no token, or it is not valid."),
    "worker_not_allowed": (401, "The worker's credentials are not valid."),
    "foreign_origin": (403, "A write with a cookie came from another site's page."),
    "not_allowed": (403, "The caller's role does not allow this."),
    "link_not_valid": (403, "The link is wrong or has expired. Ask for the image again."),
    "not_found": (404, "There is nothing at this address."),
    "no_image": (404, "There is no image yet, or it was erased."),
    "no_object": (404, "The object behind the link is gone."),
    "recovery_code_unknown": (404, "Nobody has this recovery code."),
    "no_built_in_issuer": (404, "Sign in with the identity provider, and send its token."),
    "body_too_slow": (408, "The body did not arrive within a minute."),
    "method_not_allowed": (405, "This address does not take that method."),
    "idempotency_conflict": (409, "The Idempotency-Key was used with another body."),
    "body_too_large": (413, "The body is larger than this address takes."),
    "sketch_too_large": (413, "The sketch has more than 4 MB."),
    "json_only": (415, "The body must be JSON, with Content-Type: application/json."),
    "sketch_type": (415, "The sketch is not a PNG, JPEG or WebP."),
    "invalid_request": (422, "A field is missing, of another type, or out of its bounds. See `errors`."),
    "sketch_unreadable": (422, "The sketch is not a picture that can be read."),
    "unsupported_asset": (422, "Nothing can be paid in this asset."),
    "protocol_mismatch": (426, "The worker speaks another version of the protocol."),
    "too_many_streams": (429, "This account has as many streams open as it may. Close one."),
    "rate_limited": (429, "Too many requests. Wait as long as Retry-After says."),
    "internal": (500, "Something broke on our side. Nothing was charged for it."),
    "rail_failed": (502, "The payment rail answered in a way we do not understand."),
    "database_unavailable": (503, "The database does not answer. Send the same request again."),
    "ledger_unavailable": (503, "The ledger does not answer. Send the same request again."),
    "rail_unavailable": (503, "The payment rail does not answer. Send it again, or pay another way."),
    "statement_behind": (503, "The statement is being brought up to date. Ask again in two seconds."),
}
"""Problems that are no refusal. `tests/docs` compares this with the code."""

_CONFLICTS = ("account_merged", "job_already_ended", "out_of_order", "session_paused", "stale_lease")
"""Refusals with 409 that a client can meet."""

SKETCH = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQAAAACCEkxzAAAAmklEQVR42qXRQQ6CMBCF4b+NCS71BtxAbgDsPFY9iR6Fm0Ai"
    "iVsSWGCiPhd0YsS4QLv6knkzbTNOTMezGMPpeyYFSVKfa1bqDHdDUsbw5TYPrw3N5xWtYWfIFjx+Y6jeSwoRj0MxYVAZAOks"
    "1bk8tJCCh33sUhbhCptTGYKhAQFSLY2Shw6usIKtIxlfX0bqpaP0w1KWwumv9ieZHT2K+lOlCwAAAABJRU5ErkJggg=="
)
"""A llama in 64 × 64 pixels, black and white: small enough for a command line."""

_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "POST /v1/generations": {
        "prompt": "a watercolour llama at sunset",
        "sketch": {"content_type": "image/png", "data": SKETCH},
    },
    "PATCH /v1/generations/sessions/{session_id}": {"paused": True},
    "POST /v1/topups": {"rail": "lightning", "credits": 500},
    "POST /v1/session": {"email": "ada@example.org"},
    "POST /v1/session/recover": {"recovery_code": "LLAMA-7Q2M-X41D-9KTE-03WZ"},
    "POST /v1/worker/register": {
        "token": "<registration token>",
        "name": "box-1",
        "version": "0.1.0",
        "protocol": 1,
        "capabilities": {"graphs": ["sketch@1"], "gpu": "RTX 4090", "vram_mb": 24564},
    },
    "POST /v1/worker/claim": {"wait_seconds": 20},
    "POST /v1/worker/jobs/{job_id}/heartbeat": {"epoch": 1, "progress": {"value": 3, "max": 20}},
    "POST /v1/worker/jobs/{job_id}/complete": {
        "epoch": 1,
        "sha256": _DIGEST,
        "size": 1_048_576,
        "content_type": "image/png",
        "gpu_ms": 1840,
    },
    "POST /v1/worker/jobs/{job_id}/fail": {"epoch": 1, "failure": "infrastructure", "code": "out_of_memory"},
    "POST /v1/worker/jobs/{job_id}/give-back": {"epoch": 1},
}
"""A body for each operation that takes one, by method and path."""


class ProblemCode(NamedTuple):
    """One code that a client may have to deal with."""

    code: str
    status: int
    meaning: str


def problem_codes() -> list[ProblemCode]:
    """Every problem code that the API can answer with, by status."""
    refusals = {kind.code: kind for kind in _subclasses(Refusal)}
    known = [ProblemCode(code, status, meaning) for code, (status, meaning) in _OURS.items()]
    for code in (*REFUSAL_STATUS, *_CONFLICTS):
        if code in refusals and code not in _OURS:
            meaning = (refusals[code].__doc__ or "").strip().splitlines()[0]
            known.append(ProblemCode(code, REFUSAL_STATUS.get(code, 409), meaning))
    return sorted(known, key=lambda problem: (problem.status, problem.code))


def complete(app: FastAPI) -> None:
    """Make `app.openapi()` say what FastAPI cannot know. The document is built when first asked for."""
    plain = app.openapi
    made: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not made:
            made.append(_completed(plain()))
        return made[0]

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {name: dict(scheme) for name, scheme in _SCHEMES.items()}
    components.setdefault("schemas", {})["Problem"] = ProblemOut.model_json_schema()
    document["servers"] = [{"url": "/"}]
    statuses = {problem.code: problem.status for problem in problem_codes()}
    for route in (route for router in _ROUTERS for route in router.routes):
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                named = f"{method} {route.path_format}"
                _complete(operation, route, statuses, optional=named in _OPTIONAL)
                _exemplify(operation, EXAMPLES.get(named))
    return document


def _complete(
    operation: dict[str, Any], route: APIRoute, statuses: Mapping[str, int], *, optional: bool
) -> None:
    asked = set(_calls(route.dependant))
    if worker.authenticated in asked:
        operation["security"] = [{"box": []}]
    elif optional or current_principal in asked or any(hasattr(call, "roles") for call in asked):
        anybody: list[dict[str, Any]] = [{}] if optional else []
        operation["security"] = [{"bearer": []}, {"session": []}, {"visitor": []}, *anybody]
    by_status: dict[str, list[str]] = {}
    for code in (code for code in operation.get(PROBLEMS_FIELD, ()) if code in statuses):
        by_status.setdefault(str(statuses[code]), []).append(code)
    responses = operation["responses"]
    for status, codes in sorted(by_status.items()):
        described = ", ".join(f"`{code}`" for code in codes)
        responses.setdefault(status, {"description": described}).update(_as_problem())
    responses.setdefault("4XX", {})["description"] = "A problem document (RFC 9457)."
    responses["4XX"].update(_as_problem())


def _exemplify(operation: dict[str, Any], example: Mapping[str, Any] | None) -> None:
    if example is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = dict(example)


def _as_problem() -> dict[str, Any]:
    return {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def _calls(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _subclasses(kind: type[Refusal]) -> Iterable[type[Refusal]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
