"""The public API's surface, read from its OpenAPI document: what a client's program depends on.

Components are resolved, so that a renamed class changes nothing here. Descriptions and examples are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

METHODS = ("get", "put", "post", "patch", "delete")
LIMITS = ("format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
DEPTH_MAX = 8

Surface = dict[str, dict[str, Any]]


def surface_of(document: Mapping[str, Any]) -> Surface:
    """`METHOD /path` to its parameters, its body and its answers by status; fields by their paths."""
    reader = _Reader(document["components"]["schemas"])
    return {
        f"{method.upper()} {path}": reader.operation(operations[method])
        for path, operations in document["paths"].items()
        for method in METHODS
        if method in operations
    }


def fields_of(schema: Mapping[str, Any]) -> dict[str, str]:
    """The fields of one model, from its own JSON schema."""
    return _Reader(schema.get("$defs", {})).fields(schema)


class _Reader:
    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def operation(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What one operation takes and gives."""
        return {
            "parameters": {
                f"{one['in']} {one['name']}": self._kind(one["schema"])
                + ("" if one.get("required") else ", optional")
                for one in found.get("parameters", ())
            },
            "body": self._content(found.get("requestBody", {})),
            "answers": {
                status: self._content(answer) for status, answer in sorted(found["responses"].items())
            },
        }

    def _content(self, holder: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        return {
            media_type: self.fields(content.get("schema", {}))
            for media_type, content in holder.get("content", {}).items()
        }

    def fields(self, schema: Mapping[str, Any]) -> dict[str, str]:
        """Every field inside, by its path."""
        return dict(self._fields(schema, "", 0))

    def _fields(self, schema: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, str]]:
        """The field itself, and those inside it."""
        shape = self._resolved(schema)
        if path:
            yield path, self._kind(schema)
        needed = shape.get("required", ())
        for name, inner in shape.get("properties", {}).items() if depth < DEPTH_MAX else ():
            suffix = "" if name in needed else "?"
            yield from self._fields(inner, f"{path}.{name}{suffix}".lstrip("."), depth + 1)
        if "properties" in self._resolved(shape.get("items", {})) and depth < DEPTH_MAX:
            yield from self._fields(shape["items"], f"{path}[]", depth + 1)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema behind its reference, and without the null that it may be."""
        if "$ref" in schema:
            return self._resolved(self._schemas[schema["$ref"].rpartition("/")[2]])
        options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        return self._resolved(options[0]) if len(options) == 1 else schema

    def _kind(self, schema: Mapping[str, Any]) -> str:
        shape = self._resolved(schema)
        kind = str(shape.get("type", "any"))
        if kind == "array":
            kind = f"list of {self._kind(shape['items'])}"
        reported = [kind]
        if any(one.get("type") == "null" for one in schema.get("anyOf", ())):
            reported.append("or null")
        choices = shape.get("enum", [shape["const"]] if "const" in shape else ())
        if choices:
            reported.append("one of " + " | ".join(sorted(str(one) for one in choices)))
        reported += [f"{limit} {_number(shape[limit])}" for limit in LIMITS if limit in shape]
        return ", ".join(reported).replace(", or null", " or null")


def _number(value: Any) -> Any:
    """A whole number has one spelling, whichever type held it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
