"""wallycore's bindings, kept from destroying themselves when the interpreter ends."""

from __future__ import annotations

import ctypes
import sys

_RUNTIME = "swig_runtime_data"


def keep_bindings() -> None:
    """Let the SWIG runtime of wallycore 1.5 live until the process is gone.

    Its destructor makes a Python object while the interpreter is being taken down, and crashes the
    process with a segmentation fault after everything has been said and done.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(_RUNTIME):
            for value in list(vars(module).values()):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
