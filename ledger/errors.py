"""The ledger's exceptions. A refusal is an answer; everything else is a fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class OwnError(Exception):
    """An error of ours. What it is called and what is said of it are written down, never made of its class.

    A subclass that declares neither is called what its base is.
    """

    code: str
    """Kept with work that failed, and what is decided by: never changed, never used for anything else."""
    message: str
    """Safe to show to the public: it quotes nothing."""


class LedgerError(OwnError):
    """Something went wrong in the ledger."""

    code = "ledger_failed"
    message = "Something went wrong in the ledger."


class Refusal(LedgerError):
    """The command was understood and refused; nothing but the refusal was recorded.

    Subclasses are named by the fact (`InsufficientCredits`) and carry their details as JSON-able
    keyword arguments. A refusal is stored as its code and details, and the same exception is raised
    again whenever the same command is repeated. Every class writes down its own `code` and `message`:
    a class may be renamed or documented anew, stored data and clients must not notice.
    """

    code = "refused"
    message = "The command was refused."
    _by_code: ClassVar[dict[str, type[Refusal]]] = {}

    def __init__(self, **details: Any) -> None:
        self.details = details
        super().__init__(self.message)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("code", "message"):
            if not isinstance(vars(cls).get(name), str):
                raise TypeError(f"{cls.__name__} must declare its own {name}")
        if Refusal._by_code.setdefault(cls.code, cls) is not cls:
            raise TypeError(f"two refusals share the code {cls.code!r}")

    @classmethod
    def declared(cls) -> Mapping[str, type[Refusal]]:
        """Every refusal whose module has been imported, by its code."""
        return dict(cls._by_code)

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

    code = "idempotency_conflict"
    message = "This command key was already used with another body."


class LogUnavailable(LedgerError):
    """The event log cannot be reached; nothing was decided. Try again."""

    code = "log_unavailable"
    message = "The event log cannot be reached; nothing was decided. Try again."


class OutcomeUnknown(LedgerError):
    """The connection was lost while committing; ask again with the same command key."""

    code = "outcome_unknown"
    message = "The connection was lost while committing; ask again with the same command key."


class TooBusy(LedgerError):
    """Too many commands are waiting, or every connection is in use; nothing was decided. Try again shortly."""

    code = "too_busy"
    message = "Too many commands are waiting; nothing was decided. Try again shortly."


class InvariantViolated(LedgerError):
    """The command decided something that must never be. Nothing was recorded, not even this answer.

    It is a fault of ours: the same command may be sent again with the same key when it is repaired.
    """

    code = "invariant_violated"
    message = "The command decided something that must never be. Nothing was recorded."

    def __init__(self, stream: str, version: int, event: Any, violation: Any) -> None:
        """`version` is the one that `event` would have had; `violation` is a `ledger.log.model.Violation`."""
        self.stream = stream
        self.version = version
        self.event = event
        self.violation = violation
        super().__init__(f"{stream} {version}: " + "; ".join(violation.why))


class CorruptLog(LedgerError):
    """The log does not match its own hashes or rules."""

    code = "log_corrupt"
    message = "The log does not match its own hashes or rules."
