"""The ledger's exceptions. A refusal is an answer; everything else is a fault."""

from __future__ import annotations

from typing import Any, ClassVar


class LedgerError(Exception):
    """Something went wrong in the ledger."""


class Refusal(LedgerError):
    """The command was understood and refused; nothing but the refusal was recorded.

    Subclasses are named by the fact (`InsufficientCredits`), carry their details as
    JSON-able keyword arguments, and their docstring is the public message. A refusal is
    stored as its code and details, and the same exception is raised again whenever the
    same command is repeated.
    """

    code: ClassVar[str] = "refused"
    _by_code: ClassVar[dict[str, type[Refusal]]] = {}

    def __init__(self, **details: Any) -> None:
        self.details = details
        super().__init__(self.message)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.code = _snake_case(cls.__name__)
        known = Refusal._by_code.setdefault(cls.code, cls)
        if known.__qualname__ != cls.__qualname__ or known.__module__ != cls.__module__:
            raise TypeError(f"two refusals share the code {cls.code!r}")

    @property
    def message(self) -> str:
        """The first line of the docstring: safe to show to the public."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["details"][name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def restore(cls, code: str, details: dict[str, Any]) -> Refusal:
        """Rebuild a recorded refusal. An unknown code yields a plain `Refusal`."""
        refusal = cls._by_code.get(code, Refusal)(**details)
        if type(refusal) is Refusal:
            refusal.details["code"] = code
        return refusal


class IdempotencyConflict(LedgerError):
    """This command key was already used with another body."""


class LogUnavailable(LedgerError):
    """The event log cannot be reached; nothing was decided. Try again."""


class OutcomeUnknown(LedgerError):
    """The connection was lost while committing; ask again with the same command key."""


class TooBusy(LedgerError):
    """Too many commands are waiting; nothing was decided. Try again shortly."""


class CorruptLog(LedgerError):
    """The log does not match its own hashes or rules."""


def _snake_case(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
