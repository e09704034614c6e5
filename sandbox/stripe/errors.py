"""Stripe's error objects."""

from __future__ import annotations

from typing import Any


class StripeFault(Exception):
    """An answer in the shape of Stripe's `error` object, with its HTTP status."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind}}
        error = self.body["error"]
        if code is not None:
            error["code"] = code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param is not None:
            error["param"] = param
        error.update(extra)


def missing(kind: str, identifier: str, param: str = "id") -> StripeFault:
    """No such object: 404 in Stripe's words."""
    return StripeFault(f"No such {kind}: '{identifier}'", status=404, code="resource_missing", param=param)


def required(param: str) -> StripeFault:
    """A parameter that must be there is not."""
    return StripeFault(f"Missing required param: {param}.", code="parameter_missing", param=param)


def invalid(param: str, message: str) -> StripeFault:
    """A parameter that cannot be used."""
    return StripeFault(message, code="parameter_invalid", param=param)
