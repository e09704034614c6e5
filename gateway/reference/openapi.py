"""The OpenAPI document, completed: who may call what, and every error as a problem document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.auth.identity import SESSION_COOKIE, VISITOR_COOKIE
from gateway.http.codes import MET, OWN, STATUS
from gateway.http.problems import MEDIA_TYPE
from gateway.routes import (
    account,
    auto_topups,
    events,
    generations,
    health,
    l402,
    live,
    mail,
    operator,
    reconciliation,
    refunds,
    session,
    sign_in_links,
    subscriptions,
    topup_links,
    topups,
    worker,
)
from gateway.routes.shapes import PROBLEMS_FIELD, ProblemOut
from gateway.wiring.dependencies import (
    current_link,
    current_principal,
    current_worker,
    optional_principal,
)
from ledger.errors import Refusal

ROUTERS = tuple(
    module.router
    for module in (
        account,
        generations,
        live,
        topups,
        refunds,
        subscriptions,
        auto_topups,
        operator,
        reconciliation,
        l402,
        topup_links,
        events,
        session,
        sign_in_links,
        mail,
        worker,
        health,
    )
)
"""What the description covers."""

_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A visitor's token from POST /v1/visitors, or a token of the OIDC issuer.",
    },
    "visitor": {
        "type": "apiKey",
        "in": "cookie",
        "name": VISITOR_COOKIE,
        "description": "Set by our pages; over https its name begins with __Host-.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "Set by sign-in; over https its name begins with __Host-.",
    },
    "topup_link": {
        "type": "http",
        "scheme": "bearer",
        "description": "What follows the # of a `topup_url`.",
    },
    "worker": {"type": "http", "scheme": "bearer", "description": "A worker's own token, from registration."},
}

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
    "POST /v1/topups/{topup_id}/refund": {"credits": 100},
    "POST /v1/subscriptions": {"plan": "pro", "rail": "card"},
    "POST /v1/auto-topup": {"pack": "pack_500", "threshold": 50, "limit_minor": 2_000, "consent": True},
    "POST /v1/subscriptions/{subscription_id}/preview": {"plan": "unlimited"},
    "POST /v1/subscriptions/{subscription_id}/change": {
        "plan": "unlimited",
        "prorated_at": "2027-01-20T12:00:00+00:00",
    },
    "POST /v1/operator/payments/{payment_id}/refund": {"credits": 100, "reason": "image of another person"},
    "POST /v1/operator/payments/{payment_id}/refunds/{refund_id}": {
        "sent": True,
        "reference": "1f6d0c42",
        "reason": "sent from the wallet",
    },
    "POST /v1/operator/payments/{payment_id}/suspense": {
        "money_ref": "liquid:1f6d0c42:0",
        "action": "accept",
        "reason": "the payer agreed",
    },
    "POST /v1/operator/accounts/{account_id}/adjust": {"credits": 20, "reason": "an outage"},
    "POST /v1/operator/accounts/{account_id}/forgive": {"credits": 20, "reason": "the bank was wrong"},
    "POST /v1/topup-link/topups": {"rail": "lightning", "credits": 100},
    "PUT /v1/mail/{token}": {"optional": False},
    "POST /v1/session": {"email": "ada@example.org"},
    "POST /v1/session/links": {"email": "ada@example.org"},
    "POST /v1/session/recover": {"recovery_code": "LLAMA-7Q2M-X41D-9KTE-03WZ"},
    "POST /v1/worker/register": {
        "token": "<registration token>",
        "name": "worker-1",
        "version": "0.1.0",
        "protocol": 1,
        "capabilities": {"graphs": ["sketch@1"], "gpu": "RTX 4090", "vram_mb": 24564},
    },
    "POST /v1/worker/graphs": {"graphs": ["sketch@1"]},
    "POST /v1/worker/self-test": {"passed": True},
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
    refusals = Refusal.declared()
    own = [ProblemCode(code, meaning.status, meaning.text) for code, meaning in OWN.items()]
    met = [ProblemCode(code, answer.status, refusals[code].message) for code, answer in MET.items()]
    return sorted((*own, *met), key=lambda problem: (problem.status, problem.code))


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
    for route in (route for router in ROUTERS for route in router.routes):
        if isinstance(route, APIRoute):
            for method in (route.methods or ()) if route.include_in_schema else ():
                operation = document["paths"][route.path_format][method.lower()]
                _complete(operation, route)
                _exemplify(operation, EXAMPLES.get(f"{method} {route.path_format}"))
    return document


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    asked = set(_calls(route.dependant))
    if current_worker in asked:
        operation["security"] = [{"worker": []}]
    elif current_link in asked:
        operation["security"] = [{"topup_link": []}]
    elif optional_principal in asked:
        # Some also answer somebody who brings nothing.
        anybody: list[dict[str, Any]] = [] if current_principal in asked else [{}]
        operation["security"] = [{"bearer": []}, {"session": []}, {"visitor": []}, *anybody]
    by_status: dict[str, list[str]] = {}
    for code in operation.get(PROBLEMS_FIELD, ()):
        by_status.setdefault(str(STATUS[code]), []).append(code)
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
