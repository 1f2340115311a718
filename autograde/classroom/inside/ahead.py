"""What is done once, so that the forks in which learners' code runs need not do it again, each for itself."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib

# What is imported at the first gradient and the first message: a third of a second.
_PUT_OFF = ("torch.fx.experimental.symbolic_shapes", "torch.utils._device", "numpy.ctypeslib", "labkit.flops")
_PAGE, _COLLAPSE = 2**21, 25  # bytes of a large page, and madvise(2)'s MADV_COLLAPSE


def import_all(source: str) -> None:
    """The setup cells' imports, and those that libraries put off, so that no notebook has to wait for them."""
    for name in _PUT_OFF:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for statement in ast.parse(source).body:
        with contextlib.suppress(Exception):
            exec(compile(ast.Module([statement], []), "<setup>", "exec"), {})


def in_large_pages() -> None:
    """Put this process's memory into large pages where Linux can (6.1 and newer): a fork then takes a third as long.

    What it holds does not change, nor does what a fork shares with it. A range that can't be put together stays.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file.readlines():
            span, rights, _, _, number, *name = line.split()
            if rights == "rw-p" and number == "0" and name in ([], ["[heap]"]):
                start, end = (int(text, 16) for text in span.split("-"))
                start, end = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
                if start < end:
                    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _COLLAPSE)
