"""What a cell says that needs an exercise which isn't solved yet: one sentence in place of a traceback."""

from __future__ import annotations

import traceback

__all__ = ["explain", "install"]


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


def install() -> None:
    """Let the kernel show that sentence. The cell still ends in an error. Does nothing outside a notebook."""
    from labkit.display import kernel_shell

    shell = kernel_shell()
    if shell is not None:
        shell.set_custom_exc((NotImplementedError,), _shown)


def _shown(shell, kind, error, trace, tb_offset=None):
    sentence = explain(error.with_traceback(trace), shell.user_ns)
    if sentence is None:
        lines = shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset=tb_offset)
    else:
        lines = [sentence]
    shell._showtraceback(kind, error, lines)
    return lines
