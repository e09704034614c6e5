"""What can go wrong with a run, and whose fault it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

FailureClass: TypeAlias = Literal["input", "infrastructure", "service"]
"""`input`: the request's own, it fails everywhere. `infrastructure`: this machine's, another may do.
`service`: what the machine was given or told by the platform; another attempt may do, no machine is to blame.

The class follows from what happened and where, never from the words of a message.
"""


class ComfyFault(Exception):
    """The image could not be made. Every kind writes down its `code` and `message`: the code ends in stored events."""

    failure: ClassVar[FailureClass] = "infrastructure"
    code: ClassVar[str] = "comfyui_fault"
    message: ClassVar[str] = "The image could not be made."
    """Safe to show to the public."""
    restart: ClassVar[bool] = False
    """Whether the server should be restarted before it gets another job."""

    def __init__(self, detail: str = "", *, node: str | None = None) -> None:
        self.detail = detail
        self.node = node
        super().__init__(detail or self.message)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("code", "message"):
            if not isinstance(vars(cls).get(name), str):
                raise TypeError(f"{cls.__name__} must declare its own {name}")


class ServerUnreachable(ComfyFault):
    """It does not accept connections, or breaks them."""

    code = "server_unreachable"
    message = "The image server cannot be reached."


class ServerDied(ComfyFault):
    """Its process ended."""

    code = "server_died"
    message = "The image server stopped while it was working."


class RunLost(ComfyFault):
    """Its history does not have the run."""

    code = "run_lost"
    message = "The image server no longer knows the job."


class RunHung(ComfyFault):
    """No message came for too long."""

    code = "run_hung"
    message = "The image server stopped making progress."
    restart = True


class RunInterrupted(ComfyFault):
    """Somebody else at the server did it."""

    code = "run_interrupted"
    message = "The job was interrupted."


class OutOfMemory(ComfyFault):
    """The framework or Python reported it."""

    code = "out_of_memory"
    message = "The GPU ran out of memory."
    restart = True


class DriverFailed(ComfyFault):
    """The driver gave up: nothing works in that process any more."""

    code = "driver_failed"
    message = "The GPU stopped working."
    restart = True


class NodeFailed(ComfyFault):
    """A node raised something. The graph is ours, and its values were checked: so it is the machine."""

    code = "node_failed"
    message = "The image server failed while it was working."


class SketchRefused(ComfyFault):
    """The node that loads the person's image raised what is raised for bad values."""

    code = "node_refused"
    message = "This sketch or prompt cannot be made into an image."
    failure = "input"


class InputsRefused(ComfyFault):
    """The job's values are not what its graph declares."""

    code = "inputs_refused"
    message = "The image server does not accept this request."
    failure = "input"


class GraphUnknown(ComfyFault):
    """This worker has no such graph: another one may."""

    code = "graph_unknown"
    message = "The image server does not know this kind of image."


class GraphRefused(ComfyFault):
    """The server's validation refused our graph: it lacks a node or a model, or is another version."""

    code = "graph_refused"
    message = "The image server cannot make this kind of image."

    def __init__(self, detail: str, node_errors: Mapping[str, Any] | None = None) -> None:
        self.node_errors = dict(node_errors or {})
        super().__init__(detail, node=next(iter(self.node_errors), None))


class OutputMissing(ComfyFault):
    """No node gave an image."""

    code = "output_missing"
    message = "The image server finished without an image."


_MISREAD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    # Brackets nested by the thousand.
    RecursionError,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
)


@contextmanager
def understood(answer: str) -> Iterator[None]:
    """Raises `ServerUnreachable` for whatever goes wrong while an answer is read: nobody there speaks ComfyUI.

    Wrap the reading in it, never the asking.
    """
    try:
        yield
    except _MISREAD as fault:
        raise ServerUnreachable(f"{answer} cannot be read ({type(fault).__name__})") from fault


_BAD_VALUES = frozenset(
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
_OUT_OF_MEMORY = frozenset({"torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError", "MemoryError"})
_DRIVER = frozenset({"torch.AcceleratorError", "torch.cuda.CudaError", "torch.cuda.DeferredCudaCallError"})


def fault_of_error(error: Mapping[str, Any], loaders: Collection[str] = ()) -> ComfyFault:
    """The fault that an `execution_error` message describes; `loaders` are the nodes that load the person's image.

    Only there can the person's image be what a node did not like. Everywhere else a KeyError or a
    ValueError is a wrong model file, a changed node, or a broken installation. The exception's type and
    the node decide; its text is kept for operators, and decides nothing.
    """
    kind = str(error.get("exception_type", ""))
    text = str(error.get("exception_message", "")).strip()
    node_id = str(error.get("node_id", "?"))
    node = f"{error.get('node_type', '?')}#{node_id}"
    detail = f"{kind}: {text.splitlines()[0] if text else ''}"[:500]
    if kind in _OUT_OF_MEMORY:
        return OutOfMemory(detail, node=node)
    if kind in _DRIVER:
        return DriverFailed(detail, node=node)
    if kind in _BAD_VALUES and node_id in loaders:
        return SketchRefused(detail, node=node)
    return NodeFailed(detail, node=node)
