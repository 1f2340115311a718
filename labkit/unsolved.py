"""What a cell says that needs an exercise which isn't solved yet: one sentence in place of a traceback."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable, Container

__all__ = ["explain", "install", "missing"]

_unmade: set[str] = set()  # names that cells would have made which ended in such a sentence


def explain(error: BaseException, namespace: dict) -> str | None:
    """One sentence where `error` is the bare NotImplementedError of a stub in `namespace`, else None.

    namespace: the global names of the notebook, so that a library's own NotImplementedError keeps its traceback.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if error.args or not frames or frames[-1].f_globals is not namespace:
        return None
    name = frames[-1].f_code.co_qualname.split(".")[0]
    if name == "<module>":
        return None
    return (
        f"`{name}` isn't solved yet, and this cell shows what it makes possible. Solve the exercise above, run its "
        "cell, then run this one again."
    )


def missing(error: NameError, cell: str, exercises: Container[str] = ()) -> str | None:
    """One sentence where a cell asks for a name that an unsolved one above would have made, else None.

    cell: the source that was run. What it would have made is remembered, for the cells below it.
    exercises: names whose own cells may not have been run at all, as after a restart of the kernel.
    """
    if error.name in exercises:
        return f"`{error.name}` isn't there yet: run the cell that defines it first."
    if error.name not in _unmade:
        return None
    remember(cell)
    return (
        f"`{error.name}` isn't there: a cell above makes it, and that one needs an exercise which isn't solved yet. "
        "Run them in order once it is."
    )


def remember(cell: str) -> None:
    """Note the names that a cell binds, which ended before it did."""
    for node in ast.walk(ast.parse(cell)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            _unmade.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            _unmade.add(node.name)


def install(exercises: Callable[[], Container[str]] = tuple) -> None:
    """Let the kernel show that sentence. The cell still ends in an error. Does nothing outside a notebook.

    exercises: gives the names of the exercises, when it is asked.
    """
    from labkit.display import kernel_shell

    def shown(shell, kind, error, trace, tb_offset=None):
        cell = shell.transform_cell(shell.user_ns.get("_ih", [""])[-1])
        if isinstance(error, NameError):
            sentence = missing(error, cell, exercises())
        else:
            sentence = explain(error.with_traceback(trace), shell.user_ns)
            if sentence is not None:
                remember(cell)
        if sentence is None:
            lines = shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset=tb_offset)
        else:
            lines = [sentence]
        shell._showtraceback(kind, error, lines)
        return lines

    shell = kernel_shell()
    if shell is not None:
        shell.set_custom_exc((NotImplementedError, NameError), shown)
