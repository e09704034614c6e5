"""Faults that can be switched on from outside: counts that are used up, and settings that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """A stand-in names its faults as fields with the values that mean healthy."""

    def change(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set the named faults, after `{"reset": true}` all others to healthy. Returns all.

        Raises `ValueError` for an unknown name or a wrong value; nothing is changed then.
        """
        named = {name: value for name, value in values.items() if name != "reset"}
        kept = {} if values.get("reset") else self.all()
        try:
            wanted = msgspec.convert({**kept, **named}, type(self))
        except msgspec.ValidationError as error:
            raise ValueError(f"no fault with such a value: {error}") from error
        for name in self.__struct_fields__:
            setattr(self, name, getattr(wanted, name))
        return self.all()

    def take(self, name: str) -> bool:
        """Use up one of a counted fault; False if there is none left."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0

    def all(self) -> dict[str, Any]:
        """Every fault by name, and what is left of it."""
        return {name: getattr(self, name) for name in self.__struct_fields__}
