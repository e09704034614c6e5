"""`/docs`: the API's reference as a page of the site, made once from the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI, Request, Response
from markupsafe import Markup, escape

from gateway.reference.openapi import SKETCH, ProblemCode, complete, problem_codes
from gateway.routes.shapes import PROBLEMS_FIELD
from gateway.settings import Settings
from gateway.web.pages import Pages

TEMPLATE = "reference.html"
GROUPS: Mapping[str, tuple[str, str]] = {
    "generations": ("Images", "Ask, follow, cancel, fetch."),
    "top-ups": ("Paying in", "Open a payment request and watch what arrives."),
    "account": ("Account", "What there is, and what happened to it."),
    "events": ("The stream", "One for everything that moves."),
    "session": ("Signing in", "For browsers. A program needs only its bearer token."),
    "worker": (
        "Workers",
        "What a GPU worker reports. Everything but registration needs the worker's own token.",
    ),
    "health": ("Health", "For load balancers and monitors."),
}
"""Titles of the tags, in the page's order."""

_VARIABLES = {"job_id": "$JOB", "topup_id": "$TOPUP", "rail": "card"}
_DEPTH_MAX = 5
_NO_CONTROLS = r"^[^\x00"


class Field(NamedTuple):
    """A parameter, or a field of a body; `name` is its path, such as `sketch.data`."""

    name: str
    kind: str
    required: bool
    text: Markup
    limits: str


class Answer(NamedTuple):
    """What may come back."""

    status: str
    text: Markup
    fields: Sequence[Field]


class Operation(NamedTuple):
    """One method of one path."""

    anchor: str
    method: str
    path: str
    summary: str
    paragraphs: Sequence[Markup]
    access: str
    parameters: Sequence[Field]
    body: Sequence[Field]
    answers: Sequence[Answer]
    problems: Sequence[str]
    curl: str


class Group(NamedTuple):
    """The operations of one tag."""

    anchor: str
    title: str
    text: str
    operations: Sequence[Operation]


class Reference(NamedTuple):
    """Everything on the page."""

    groups: Sequence[Group]
    problems: Sequence[ProblemCode]
    url: str
    requests_per_minute: int
    requests_per_minute_network: int
    sketch: str


def install_reference(app: FastAPI, pages: Pages, settings: Settings) -> None:
    """Complete the OpenAPI document and serve it as a page at `/docs`, rendered when first asked for."""
    complete(app)
    router = APIRouter(include_in_schema=False)
    made: list[Reference] = []

    async def show(request: Request) -> Response:
        if not made:
            made.append(build_reference(app.openapi(), settings))
            pages.keep(TEMPLATE, reference=made[0])
        return pages.page(request, TEMPLATE)

    router.add_api_route("/docs", show, methods=["GET", "HEAD"], name="reference")
    app.include_router(router)


def build_reference(document: Mapping[str, Any], settings: Settings) -> Reference:
    """The page's content. Pure."""
    found: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            found.setdefault(tag, []).append(_Reader(document).operation(path, method, operation))
    order = [*GROUPS, *(tag for tag in found if tag not in GROUPS)]
    groups = [
        Group(tag, *GROUPS.get(tag, (tag.capitalize(), "")), found[tag]) for tag in order if tag in found
    ]
    return Reference(
        groups=groups,
        problems=problem_codes(),
        url=settings.public_url,
        requests_per_minute=settings.requests_per_minute,
        requests_per_minute_network=settings.requests_per_minute_network,
        sketch=SKETCH,
    )


class _Reader:
    """Reads operations out of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._schemas: Mapping[str, Any] = document["components"]["schemas"]

    def operation(self, path: str, method: str, found: Mapping[str, Any]) -> Operation:
        sent = found.get("requestBody", {}).get("content", {}).get("application/json", {})
        body = sent.get("schema")
        parameters = found.get("parameters", [])
        named = re.sub(r"[^a-z]+", "-", path.removeprefix("/v1").lower()).strip("-")
        return Operation(
            anchor=f"{method}-{named}",
            method=method.upper(),
            path=path,
            summary=found.get("summary", path),
            paragraphs=[words(part) for part in found.get("description", "").split("\n\n") if part],
            access=_access(found.get("security")),
            parameters=[self._parameter(one) for one in parameters if one["name"] != "authorization"],
            body=list(self._fields(body, "", 0)) if body else [],
            answers=list(self._answers(found["responses"])),
            problems=found.get(PROBLEMS_FIELD, []),
            curl=_curl(path, method, found, sent.get("example")),
        )

    def _answers(self, responses: Mapping[str, Any]) -> Iterator[Answer]:
        for status, response in sorted(responses.items()):
            if status.startswith(("4", "5")):
                continue
            schema = response.get("content", {}).get("application/json", {}).get("schema")
            fields = list(self._fields(schema, "", 0)) if schema else []
            yield Answer(status, words(response.get("description", "")), fields)

    def _parameter(self, one: Mapping[str, Any]) -> Field:
        schema = one["schema"]
        text = one.get("description") or schema.get("description", "")
        kind = f"{self._kind(schema)}, in the {one['in']}"
        return Field(one["name"], kind, one.get("required", False), words(text), self._limits(schema))

    def _fields(self, schema: Mapping[str, Any], prefix: str, depth: int) -> Iterator[Field]:
        shape = self._resolved(schema)
        needed = shape.get("required", [])
        for name, raw in shape.get("properties", {}).items():
            inner = self._resolved(raw)
            path = f"{prefix}{name}"
            text = words(raw.get("description") or inner.get("description", ""))
            yield Field(path, self._kind(raw), name in needed, text, self._limits(inner))
            items = self._resolved(inner.get("items", {}))
            if depth < _DEPTH_MAX and "properties" in inner:
                yield from self._fields(inner, f"{path}.", depth + 1)
            elif depth < _DEPTH_MAX and "properties" in items:
                yield from self._fields(items, f"{path}[].", depth + 1)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema itself: behind its reference, and without the null that it may be."""
        if "$ref" in schema:
            return self._resolved(self._schemas[schema["$ref"].rpartition("/")[2]])
        options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        if len(options) == 1:
            own = {name: value for name, value in schema.items() if name != "anyOf"}
            return {**own, **self._resolved(options[0])}
        return schema

    def _kind(self, raw: Mapping[str, Any]) -> str:
        shape = self._resolved(raw)
        null = " or null" if any(one.get("type") == "null" for one in raw.get("anyOf") or ()) else ""
        if "enum" in shape:
            return " | ".join(str(one) for one in shape["enum"]) + null
        if shape.get("type") == "array":
            return f"list of {self._kind(shape['items'])}{null}"
        return str(shape.get("type", "any")) + null

    def _limits(self, raw: Mapping[str, Any]) -> str:
        shape, reported = self._resolved(raw), []
        low, high = shape.get("minimum"), shape.get("maximum")
        if low is not None or high is not None:
            reported.append(
                f"{_number(low)} to {_number(high)}" if high is not None else f"at least {_number(low)}"
            )
        if shape.get("minLength") and shape.get("maxLength"):
            reported.append(f"{shape['minLength']} to {_number(shape['maxLength'])} characters")
        elif shape.get("maxLength"):
            reported.append(f"at most {_number(shape['maxLength'])} characters")
        if shape.get("maxItems"):
            reported.append(f"at most {shape['maxItems']} items")
        if shape.get("pattern", "").startswith(_NO_CONTROLS):
            reported.append("no control characters")
        elif shape.get("pattern"):
            reported.append(f"matches {shape['pattern']}")
        if raw.get("default") is not None:
            reported.append(f"{json.dumps(raw['default'])} if left out")
        return "; ".join(reported)


def _curl(path: str, method: str, found: Mapping[str, Any], body: Any | None) -> str:
    address = re.sub(r"{(\w+)}", lambda match: _VARIABLES.get(match[1], "$ID"), path)
    security = found.get("security")
    parts = [f'curl -X {method.upper()} "$URL{address}"' if method != "get" else f'curl "$URL{address}"']
    if path == "/v1/events":
        parts = [f'curl -N "$URL{address}"']
    if security:
        parts.append(f'-H "Authorization: Bearer {"$WORKER_TOKEN" if "worker" in security[0] else "$TOKEN"}"')
    if any(one["name"] == "idempotency-key" for one in found.get("parameters", ())):
        parts.append('-H "Idempotency-Key: my-order-1"')
    if body is not None:
        parts.append('-H "Content-Type: application/json"')
        parts.append(f"-d '{json.dumps(body, ensure_ascii=False)}'")
    return " \\\n  ".join(parts)


def words(text: str) -> Markup:
    """Text with `code` in it, safe to show."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text.strip()))))  # noqa: S704 - escaped first


def _access(security: Sequence[Mapping[str, Any]] | None) -> str:
    if not security:
        return "Anybody"
    if {} in security:
        return "Anybody; a bearer token or cookie says who"
    return "The worker's token" if "worker" in security[0] else "Bearer token or cookie"


def _number(value: Any) -> str:
    """The document has floats even where a whole number is meant."""
    return f"{int(value):,}" if float(value).is_integer() else str(value)
