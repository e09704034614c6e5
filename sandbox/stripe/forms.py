"""Stripe's form encoding: `line_items[0][price_data][currency]=usd` as nested values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from sandbox.stripe.errors import StripeFault, invalid, required

MAX_FIELDS = 500
MAX_DEPTH = 6
_PART = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"[^\[\]]+(\[[^\[\]]*\])*")


def parse_form(text: str) -> dict[str, Any]:
    """Parse a request body or query string. Raises `StripeFault` on malformed names."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, strict_parsing=bool(text))
    except ValueError:
        raise StripeFault("Invalid request: the form could not be parsed.") from None
    root: dict[str, Any] = {}
    for name, value in pairs:
        if _NAME.fullmatch(name) is None:
            raise StripeFault(f"Invalid parameter name: {name[:80]}", param=name[:80])
        path = [name.partition("[")[0], *_PART.findall(name)]
        if len(path) > MAX_DEPTH:
            raise StripeFault(f"Parameter is nested too deeply: {name[:80]}")
        _put(root, path, value)
    return {key: _lists(value) for key, value in root.items()}


def _put(node: dict[str, Any], path: list[str], value: str) -> None:
    for position, key in enumerate(path):
        name = str(len(node)) if key == "" else key
        if position == len(path) - 1:
            node[name] = value
            return
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise StripeFault(f"Invalid parameter: {path[0]} is both a value and a hash.", param=path[0])
        node = child


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}


class Params:
    """Typed access to parsed parameters, with Stripe's error objects."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self.values = values
        self._prefix = prefix

    def allow(self, *names: str) -> None:
        """Refuse parameters outside `names`, as Stripe does."""
        for name in self.values:
            if name not in names:
                full = self._name(name)
                raise StripeFault(f"Received unknown parameter: {full}", code="parameter_unknown", param=full)

    def _name(self, name: str) -> str:
        return f"{self._prefix}[{name}]" if self._prefix else name

    def text(self, name: str) -> str | None:
        """A string, or None if absent or emptied."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise invalid(self._name(name), f"Invalid string: {self._name(name)}")
        return value

    def need(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise required(self._name(name))
        return value

    def integer(self, name: str) -> int | None:
        """An integer, or None if absent."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return int(value)
        except ValueError:
            message = f"Invalid integer: {value[:40]}"
            raise StripeFault(message, code="parameter_invalid_integer", param=self._name(name)) from None

    def flag(self, name: str) -> bool | None:
        """A boolean, or None if absent."""
        value = self.text(name)
        if value not in (None, "true", "false"):
            raise invalid(self._name(name), f"Invalid boolean: {value}")
        return None if value is None else value == "true"

    def choice(self, name: str, options: Iterable[str], default: str) -> str:
        """One of `options`."""
        value = self.text(name) or default
        if value not in options:
            raise invalid(
                self._name(name), f"Invalid {self._name(name)}: must be one of {', '.join(options)}"
            )
        return value

    def child(self, name: str) -> Params:
        """A nested hash, empty if absent."""
        value = self.values.get(name) or {}
        if not isinstance(value, dict):
            raise invalid(self._name(name), f"Invalid hash: {self._name(name)}")
        return Params(value, self._name(name))

    def children(self, name: str) -> list[Params]:
        """A nested array of hashes."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise invalid(self._name(name), f"Invalid array: {self._name(name)}")
        return [Params(entry, f"{self._name(name)}[{index}]") for index, entry in enumerate(value)]

    def strings(self, name: str) -> list[str]:
        """An array of strings."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise invalid(self._name(name), f"Invalid array: {self._name(name)}")
        return list(value)

    def metadata(self) -> dict[str, str]:
        """The `metadata` hash within Stripe's bounds; emptied values are left out."""
        values = self.child("metadata").values
        if len(values) > 50 or any(len(key) > 40 or len(str(text)) > 500 for key, text in values.items()):
            raise invalid(
                self._name("metadata"), "Metadata is limited to 50 keys of 40 and values of 500 characters"
            )
        return {key: str(text) for key, text in values.items() if text != ""}
