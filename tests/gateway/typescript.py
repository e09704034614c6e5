"""The API's answers as TypeScript types, for the pages' JavaScript: `python -m tests.gateway.typescript` writes them.

`npm run check` reads the pages against them, so that a page reads nothing that the API does not send.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.app import NODE_MODULES, create_app
from gateway.routes.events import FRAMES
from tests.gateway.stack import settings_for
from tests.gateway.surface import METHODS
from tests.house.sources import ROOT

FILE = ROOT / "gateway" / "web" / "api.d.ts"
_REF = "#/components/schemas/"
_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_HEAD = """// What the API answers, made from its description by `python -m tests.gateway.typescript`. Not edited by hand.
"""
_TAIL = """
/** What an operation answers. The pages' query is no part of its name; the sandbox's own pages are not described. */
export type Answer<M extends string, P extends string> =
  P extends `/sandbox/${string}` ? any
  : P extends `${infer Path}?${string}` ? Found<`${M} ${Path}`>
  : Found<`${M} ${P}`>;
"""


def types() -> str:
    """The whole file."""
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_for("postgresql://nowhere/none", "redis://nowhere", Path(folder))
        app = create_app(settings, environ={}, plugins=[], node_modules=Path(NODE_MODULES))
        document = app.openapi()
    _, frames = models_json_schema(
        [(model, "serialization") for model in FRAMES.values()], ref_template=_REF + "{model}"
    )
    schemas = {**frames["$defs"], **document["components"]["schemas"]}
    # The first that fits counts: the more exact ones go before.
    answers = dict(sorted(_answers(document), key=lambda found: (-len(found[0]), found[0])))
    parts = [_HEAD]
    parts += [_declared(name, schemas[name]) for name in sorted(_reached(schemas, answers.values()))]
    found = "".join(f"  K extends `{key}` ? {shape} :\n" for key, shape in answers.items())
    parts.append(f"type Found<K extends string> =\n{found}  never;\n")
    sent = "".join(f"  {name}: {model.__name__};\n" for name, model in sorted(FRAMES.items()))
    parts.append(
        f"/** What the stream's frames carry, by their event. */\nexport interface Frames {{\n{sent}}}\n"
    )
    return "\n".join(parts) + _TAIL


def _answers(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for method in METHODS:
            for status, answer in operations.get(method, {}).get("responses", {}).items():
                schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
                if status.startswith("2") and "$ref" in schema and not path.startswith("/v1/worker/"):
                    yield f"{method.upper()} {re.sub('{[^}]*}', '${string}', path)}", _type(schema)


def _reached(schemas: Mapping[str, Any], roots: Any) -> set[str]:
    waiting, reached = [*roots, *(model.__name__ for model in FRAMES.values())], set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += re.findall(_REF + r"(\w+)", json.dumps(schemas[name]))
    return reached


def _declared(name: str, schema: Mapping[str, Any]) -> str:
    description = str(schema.get("description", "")).partition("\n")[0]
    return (f"/** {description} */\n" if description else "") + f"export interface {name} {_object(schema)}\n"


def _object(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    # What a rail adds of its own is left out: pages show payments without knowing the rail.
    lines = [
        f"  {name}{'' if name in required else '?'}: {_type(field)};\n"
        for name, field in schema["properties"].items()
    ]
    return "{\n" + "".join(lines) + "}"


def _type(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"$ref": str(ref)}:
            return ref.removeprefix(_REF)
        case {"anyOf": options} | {"oneOf": options}:
            return " | ".join(dict.fromkeys(_type(option) for option in options))
        case {"enum": values}:
            return " | ".join(json.dumps(value) for value in values)
        case {"const": value}:
            return json.dumps(value)
        case {"type": "array", "items": items}:
            return f"({_type(items)})[]"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"Record<string, {_type(values)}>"
        case {"type": str(plain)} if plain in _PLAIN:
            return _PLAIN[plain]
        case _:
            return "unknown"


if __name__ == "__main__":
    FILE.write_text(types())
