"""What can go wrong with a run, and whose fault it is. The docstring is the public message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

FailureClass: TypeAlias = Literal["input", "infrastructure"]
"""`input`: the same request fails everywhere, do not retry. `infrastructure`: try another box."""


class ComfyFault(Exception):
    """The image could not be made."""

    failure: ClassVar[FailureClass] = "infrastructure"
    code: ClassVar[str] = "comfyui_fault"
    restart: ClassVar[bool] = False
    """Whether the server should be restarted before it gets another job."""

    def __init__(self, detail: str = "", *, node: str | None = None) -> None:
        self.detail = detail
        self.node = node
        super().__init__(detail or self.message)

    @property
    def message(self) -> str:
        """The first line of the docstring: safe to show to the public."""
        return (type(self).__doc__ or "").strip().splitlines()[0]


class ServerUnreachable(ComfyFault):
    """The image server cannot be reached."""

    code = "server_unreachable"


class ServerDied(ComfyFault):
    """The image server stopped while it was working."""

    code = "server_died"


class RunLost(ComfyFault):
    """The image server no longer knows the job."""

    code = "run_lost"


class RunHung(ComfyFault):
    """The image server stopped making progress."""

    code = "run_hung"
    restart = True


class RunInterrupted(ComfyFault):
    """The job was interrupted."""

    code = "run_interrupted"


class OutOfMemory(ComfyFault):
    """The GPU ran out of memory."""

    code = "out_of_memory"
    restart = True


class NodeFailed(ComfyFault):
    """The image server failed while it was working."""

    code = "node_failed"


class NodeRefused(ComfyFault):
    """This sketch or prompt cannot be made into an image."""

    code = "node_refused"
    failure = "input"


class GraphRefused(ComfyFault):
    """The image server does not accept this request."""

    code = "graph_refused"
    failure = "input"

    def __init__(self, detail: str, node_errors: Mapping[str, Any] | None = None) -> None:
        self.node_errors = dict(node_errors or {})
        super().__init__(detail, node=next(iter(self.node_errors), None))


class OutputMissing(ComfyFault):
    """The image server finished without an image."""

    code = "output_missing"


_INPUT_EXCEPTIONS = frozenset(
    {
        "ValueError",
        "TypeError",
        "KeyError",
        "IndexError",
        "AssertionError",
        "PIL.UnidentifiedImageError",
        "PIL.Image.DecompressionBombError",
        "SyntaxError",
    }
)
_MEMORY_WORDS = ("out of memory", "outofmemory", "cuda_error_out_of_memory", "cublas_status_alloc_failed")


def fault_of_error(error: Mapping[str, Any]) -> ComfyFault:
    """The fault that an `execution_error` message describes.

    Exceptions that Python raises for bad values fail the same way on every box; whatever comes
    from the driver, the disk or the runtime may not.
    """
    kind = str(error.get("exception_type", ""))
    text = str(error.get("exception_message", "")).strip()
    node = f"{error.get('node_type', '?')}#{error.get('node_id', '?')}"
    said = f"{kind} {text}".lower()
    detail = f"{kind}: {text.splitlines()[0] if text else ''}"[:500]
    if any(word in said for word in _MEMORY_WORDS):
        return OutOfMemory(detail, node=node)
    if kind in _INPUT_EXCEPTIONS and "cuda" not in said:
        return NodeRefused(detail, node=node)
    return NodeFailed(detail, node=node)
