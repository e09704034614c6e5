"""The other side of `executors`: a process that does what comes over a socket, until its other end is gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, BinaryIO

import msgspec

from generation.domain.errors import SketchRejected
from generation.domain.sketches import Sketch
from generation.images.checking import Result
from generation.images.executors import FAULTS, FRAME, THREADS

_PR_SET_PDEATHSIG = 1
_DESCRIPTORS_MAX = 64


def serve_several(connection: socket.socket) -> None:
    """Do several calls at a time, in threads."""
    writing = Lock()

    def answer(number: int, done: Future[Any]) -> None:
        fault = done.exception()
        with writing:
            _answer(connection, number, done.result if fault is None else partial(_raise, fault))

    with ThreadPoolExecutor(THREADS) as pool, connection.makefile("rb") as stream:
        for number, work, arguments in _calls(stream):
            pool.submit(work, *arguments).add_done_callback(partial(answer, number))


def serve_bounded(connection: socket.socket, seconds: int, memory_bytes: int, niceness: int) -> None:
    """Do one call at a time, each within this much processor time and memory: the kernel ends what takes more.
    Who is nicer gets less of a processor that others want."""
    os.nice(niceness)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS_MAX),
    ):
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))
    with connection.makefile("rb") as stream:
        for number, work, arguments in _calls(stream):
            # What this call may use comes on top of what earlier ones did. The kernel counts whole seconds.
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, hard))
            _answer(connection, number, partial(work, *arguments))


def _calls(stream: BinaryIO) -> Iterator[tuple[int, Callable[..., Any], tuple[Any, ...]]]:
    while header := stream.read(FRAME.size):
        size, number = FRAME.unpack(header)
        work, arguments = pickle.loads(stream.read(size))  # noqa: S301 - from the process that started us
        yield number, work, arguments


def _answer(connection: socket.socket, number: int, work: Callable[[], Any]) -> None:
    try:
        body = _encoded(work())
    except Exception as error:  # noqa: BLE001 - what cannot be done or said is a fault of the work
        body = _described(error)
    with contextlib.suppress(OSError):
        connection.sendall(FRAME.pack(len(body), number) + body)


def _raise(fault: BaseException) -> Any:
    raise fault


def _encoded(value: Any) -> bytes:
    kind = type(value).__name__ if type(value) in (Result, Sketch) else ""
    return msgspec.msgpack.encode((True, kind, value))


def _described(fault: BaseException) -> bytes:
    if isinstance(fault, SketchRejected):
        return msgspec.msgpack.encode((False, "SketchRejected", (fault.code, fault.detail)))
    for name, kind in FAULTS.items():
        if isinstance(kind, type) and isinstance(fault, kind):
            return msgspec.msgpack.encode((False, name, (str(fault),)))
    return msgspec.msgpack.encode((False, "ValueError", (f"{type(fault).__name__}: {fault}",)))


def main() -> None:
    """Serve the socket whose descriptor is given. It ends when its other side does, and by nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # even work that never ends does not outlive us
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = socket.socket(fileno=int(sys.argv[1]))
    bounds = [int(argument) for argument in sys.argv[2:]]
    if bounds:
        serve_bounded(connection, *bounds)
    else:
        serve_several(connection)


if __name__ == "__main__":
    main()
